r"""Which parameter of a model is which of an artifact: by names, else by layers in order.

Names are equal after `module.`, `_orig_mod.` and `/value`, capitals, `.` for `/` and the words that
libraries have for the same thing (`gain`, `scale`, `kernel` for `weight`) are put aside. What is
left is taken layer by layer: layers of the same shapes follow each other in the model as their
numbers do in the artifact. Where that would be a guess, it is refused. A parameter of a shape that
no other has needs no name.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._layout import Leaf, Shape
from ._reorder import CHANNELS_FIRST, Convention, shape_in, without_units

_WRAPPERS = ("module", "_orig_mod")
_BOXES = ("value", "raw_value")  # the array of a Flax variable
_WORDS = {"gain": "weight", "scale": "weight", "kernel": "weight", "gamma": "weight", "w": "weight"}
_WORDS |= {"beta": "bias", "b": "bias"}

Pairs = dict[str, tuple[str, str]]
"""The model's name and how it was found, by the artifact's name."""


def pairs_of(
    leaves: Sequence[Leaf],
    shapes: Mapping[str, Shape],
    ordered: bool = True,
    convention: Convention = CHANNELS_FIRST,
) -> Pairs:
    """Pairs of parameters, as many as can be told.

    **Arguments:**

    - `leaves`: the artifact's parameters.
    - `shapes`: the model's shapes by name, in its order.
    - `ordered`: whether that order is the model's; groups of parameters have their own, and
        dictionaries forget it.
    - `convention`: what the axes of the model's layers mean.

    **Raises:**

    - `ValueError`: layers of equal shapes whose names have no order, or where names and order say
      different things.

    >>> pairs_of([Leaf("dense_0/bias", (3,), "float32")], {"module.dense_0.bias": (3,)})
    {'dense_0/bias': ('module.dense_0.bias', 'name')}
    """
    found: Pairs = {}
    by_layer = functools.partial(_by_layer, ordered=ordered, convention=convention)
    for rule in (_by_name, by_layer, _by_shape):
        taken = {name for name, _ in found.values()}
        rest = {name: shape for name, shape in shapes.items() if name not in taken}
        found |= rule([leaf for leaf in leaves if leaf.name not in found], rest)
    _check_mixed(leaves, found, list(shapes))
    return found


def _by_name(leaves: Sequence[Leaf], shapes: Mapping[str, Shape]) -> Pairs:
    ours = _unique((_plain(leaf.name), leaf.name) for leaf in leaves)
    theirs = _unique((_plain(name), name) for name in shapes)
    return {name: (theirs[plain], "name") for plain, name in ours.items() if plain in theirs}


def _by_shape(leaves: Sequence[Leaf], shapes: Mapping[str, Shape]) -> Pairs:
    """Parameters of a shape that no other has."""
    ours = _unique((_signature(leaf), leaf.name) for leaf in leaves)
    theirs = _unique((tuple(sorted(shape)), name) for name, shape in shapes.items())
    return {name: (theirs[shape], "shape") for shape, name in ours.items() if shape in theirs}


def _by_layer(
    leaves: Sequence[Leaf], shapes: Mapping[str, Shape], ordered: bool, convention: Convention
) -> Pairs:
    known = {leaf.name: shape_in(leaf, convention) for leaf in leaves}
    exact = None not in known.values()

    def shown(shape: Shape | None) -> Shape:
        return tuple(shape or ()) if exact else tuple(sorted(shape or ()))

    ours = _layers((leaf.name, shown(known[leaf.name] or leaf.shape)) for leaf in leaves)
    theirs = _layers((name, shown(shape)) for name, shape in shapes.items())
    found: Pairs = {}
    for kind, layers in ours.items():
        others = theirs.get(kind, [])
        if len(layers) != len(others):
            continue
        _check_listed(others, ordered)
        for layer, other in zip(_in_order(layers), others, strict=True):
            for word, name in layer.items():
                found[name] = (other[word], "order")
    return found


Layer = dict[str, str]
"""Names of parameters by their last words."""


def _layers(named: Iterable[tuple[str, Shape]]) -> dict[Any, list[Layer]]:
    """Layers by what they are made of, in order."""
    inside: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, shape in named:
        *layer, word = _words(name)
        inside.setdefault("/".join(layer), {})[word] = (name, shape)
    kinds: dict[Any, list[Layer]] = {}
    for members in inside.values():
        kind = tuple(sorted((word, shape) for word, (_, shape) in members.items()))
        kinds.setdefault(kind, []).append({word: name for word, (name, _) in members.items()})
    return kinds


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Layers in the order of the numbers in their names."""
    names = _heads(layers)
    if len(stems(names)) > 1:
        raise ValueError(f"names: {_listed(names)} have equal shapes and no {_SAY}")
    return [layer for _, layer in sorted(zip(map(numbers, names), layers, strict=True), key=_first)]


def _check_listed(layers: list[Layer], ordered: bool) -> None:
    """Refuses a model's layers of one kind where their numbers and their order disagree."""
    names = _heads(layers)
    same = len(stems(names)) == 1
    found = [numbers(name) for name in names]
    if (same and found != sorted(found)) or (not same and not ordered):
        raise ValueError(f"names: {_listed(names)} have equal shapes and stand in no sure {_SAY}")


def _check_mixed(leaves: Sequence[Leaf], found: Pairs, listed: Sequence[str]) -> None:
    """Refuses layers of one kind some of which fit by name and others by order, but not both.

    Four layers numbered from 0 and four numbered from 1 have three names in common.
    """
    for layers in _layers((leaf.name, leaf.shape) for leaf in leaves).values():
        known = [name for layer in layers if (name := next(iter(layer.values()))) in found]
        if {found[name][1] for name in known} != {"name", "order"}:
            continue
        known.sort(key=numbers)
        places = [listed.index(found[name][0]) for name in known]
        if len(stems(known)) > 1 or places != sorted(places):
            raise ValueError(
                f"names: {_listed(known)} have equal shapes, and names and places in "
                f"the model give them no one {_SAY}"
            )


_SAY = "order; say which is which, such as names={'first/weight': 'model.name.weight'}."


def stems(names: Iterable[str]) -> set[str]:
    """Names without their numbers.

    >>> stems(["conv_1", "conv_20"])
    {'conv_0'}
    """
    return {re.sub(r"\d+", "0", name) for name in names}


def numbers(name: str) -> tuple[int, ...]:
    """The numbers in a name.

    >>> numbers("block_2/conv_10")
    (2, 10)
    """
    return tuple(map(int, re.findall(r"\d+", name)))


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _heads(layers: list[Layer]) -> list[str]:
    """The layers' own names, without those of their arrays."""
    boxed = rf"[./]({'|'.join(_BOXES)})$"
    names = [re.sub(boxed, "", next(iter(layer.values()))) for layer in layers]
    return [re.split(r"[./](?=[^./]*$)", name)[0] for name in names]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _signature(leaf: Leaf) -> Shape:
    return tuple(sorted(without_units(leaf.name, leaf.shape)))


def _words(name: str) -> list[str]:
    words = re.split(r"[./]", name.casefold())
    while len(words) > 1 and words[0] in _WRAPPERS:
        words = words[1:]
    while len(words) > 1 and words[-1] in _BOXES:
        words = words[:-1]
    return [*words[:-1], _WORDS.get(words[-1], words[-1])]


def _plain(name: str) -> str:
    return "/".join(_words(name))


def _unique(pairs: Iterable[tuple[Any, str]]) -> dict[Any, str]:
    """Those pairs whose key occurs once."""
    listed = list(pairs)
    keys = [key for key, _ in listed]
    return {key: name for key, name in listed if keys.count(key) == 1}
