"""The classes of CIFAR-100 and the two few-shot splits of them; facts from the papers named.

- 100 classes in 20 superclasses of five (Krizhevsky, *Learning multiple layers of features from
  tiny images*, 2009). Labels number the names of each in alphabetical order.
- CIFAR-FS: 64, 16 and 20 classes (Bertinetto et al., *Meta-learning with differentiable
  closed-form solvers*, 2019).
- FC100: 12, 4 and 4 superclasses, so that test classes are far from training classes (Oreshkin et
  al., *TADAM: task dependent adaptive metric for improved few-shot learning*, 2018).

The names of the two splits agree with the files of torchmeta (MIT).
"""

from collections.abc import Sequence

from ._few_shot import Split

_MEMBERS = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASSES = {name: tuple(members.split()) for name, members in _MEMBERS.items()}
"""The 20 superclasses in the order of their labels, each with its five classes."""

CLASSES = tuple(sorted(name for members in SUPERCLASSES.values() for name in members))
"""The 100 classes in the order of their labels."""

_CIFAR_FS_VALIDATION = """
    beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle
    otter sea shark television tractor
"""
_CIFAR_FS_TEST = """
    baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail
    sweet_pepper table telephone wardrobe whale woman worm
"""
_FC100_VALIDATION = """
    large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals
"""
_FC100_TEST = """
    aquatic_mammals insects medium_mammals people
"""


def _split(validation: Sequence[str], test: Sequence[str]) -> Split:
    train = [name for name in CLASSES if name not in {*validation, *test}]
    return {"train": train, "validation": validation, "test": test}


def _members(superclasses: str) -> list[str]:
    return sorted(name for above in superclasses.split() for name in SUPERCLASSES[above])


CIFAR_FS = _split(_CIFAR_FS_VALIDATION.split(), _CIFAR_FS_TEST.split())
"""The split of Bertinetto et al. 2019."""

FC100 = _split(_members(_FC100_VALIDATION), _members(_FC100_TEST))
"""The split of Oreshkin et al. 2018."""
