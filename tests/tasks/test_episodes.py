"""Episodes: what is drawn, how often, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax._errors import ConfigError, DataError
from mirrax.tasks import Episodes, FewShotFamily, ImageClasses

CLASSES, PER_CLASS = 7, 9
PADDING = 255


def numbered(counts=None, classes=CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Images of which the first pixel is the class and the second the member, the others zero."""
    counts = np.full(classes, PER_CLASS) if counts is None else np.asarray(counts)
    images = np.zeros((classes, PER_CLASS, 3, 3, 2), np.uint8)
    images[:, :, 0, 0, 0] = np.arange(classes)[:, None]
    images[:, :, 0, 1, 0] = np.arange(PER_CLASS)
    images[np.arange(PER_CLASS) >= counts[:, None]] = PADDING
    return images, counts.astype(np.int32)


def made(counts=None, classes=CLASSES, way=3, shot=2, query=4, **fields) -> Episodes:
    return Episodes(
        *numbered(counts, classes), way=way, shot=shot, query=query, scale=1.0, **fields
    )


def turns_and_origin(images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quarter turn, class (from 1) and member of each image, read off the pixels alone."""
    upright = np.asarray(images)[..., 0]
    turns, classes, members = [], [], []
    for image in upright:
        # Upright, only two pixels of the first row are inked: turned otherwise, others are.
        options = [np.rot90(image, -turn) for turn in range(4)]
        rest = [option[1:].sum() + option[0, 2] for option in options]
        turn = int(np.argmin(rest))
        turns.append(turn)
        classes.append(options[turn][0, 0])
        members.append(options[turn][0, 1])
    return np.array(turns), np.array(classes, int), np.array(members, int)


def drawn(episodes: Episodes, count: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(lambda key: episodes.draw(key=key)))(keys)


def test_shapes_types_and_order():
    episode = made().draw(key=jax.random.key(0))
    assert episode.support_images.shape == (6, 3, 3, 2)
    assert episode.query_images.shape == (12, 3, 3, 2)
    assert episode.support_images.dtype == episode.query_images.dtype == jnp.float64
    assert episode.support_labels.dtype == episode.query_labels.dtype == jnp.int32
    assert episode.support_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert episode.query_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_images_are_scaled_into_the_unit_interval():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 6, 1), dtype=np.uint8)
    images[:, :, 0, 0, 0] = 255
    episodes = Episodes(images, np.full(4, 5, np.int32), way=4, shot=1, query=4, scale=1 / 255)
    episode = episodes.draw(key=jax.random.key(1))
    pixels = np.concatenate([episode.support_images, episode.query_images])
    assert pixels.max() == 1.0 and pixels.min() >= 0
    # Four classes, all five images of each: the whole set, as bytes again.
    back = sorted(image.tobytes() for image in np.round(pixels * 255).astype(np.uint8))
    assert back == sorted(image.tobytes() for image in images.reshape(20, 6, 6, 1))


def test_every_episode_is_a_proper_one():
    """Classes distinct, labels tell them apart, no image twice, no padding; over 300 episodes."""
    counts = [6, 7, 9, 9, 8, 6, 9]
    batch = drawn(made(counts), 300)
    for index in range(300):
        episode = jax.tree.map(lambda leaf, at=index: np.asarray(leaf[at]), batch)
        images = np.concatenate([episode.support_images, episode.query_images])
        labels = np.concatenate([episode.support_labels, episode.query_labels])
        assert images.max() < PADDING
        classes, members = images[:, 0, 0, 0].astype(int), images[:, 0, 1, 0].astype(int)
        assert len(set(zip(classes, labels, strict=True))) == 3
        assert len(set(classes)) == 3
        assert len(set(zip(classes, members, strict=True))) == len(images)
        assert (members < np.asarray(counts)[classes]).all()


def within_five_errors(counts: np.ndarray, trials: int, chance: float) -> bool:
    """Binomial counts: each within five standard errors, one in two million a count by chance."""
    return bool((abs(counts - trials * chance) < 5 * (trials * chance * (1 - chance)) ** 0.5).all())


def test_classes_images_and_labels_are_uniform():
    trials = 4000
    counts = np.array([6, 7, 9, 9, 8, 6, 9])
    batch = drawn(made(counts), trials)
    of_label = np.asarray(batch.support_images)[:, ::2, 0, 0, 0].astype(int)
    assert of_label.shape == (trials, 3)
    for label in range(3):  # a class is each label's equally often
        found = np.bincount(of_label[:, label], minlength=CLASSES)
        assert within_five_errors(found, trials, 1 / CLASSES)
    pairs = {tuple(sorted(row[:2])) for row in of_label}
    assert len(pairs) == CLASSES * (CLASSES - 1) // 2
    support = np.asarray(batch.support_images).reshape(-1, 3, 3, 2)
    for label in range(CLASSES):  # each image of a class equally often, wherever it may stand
        members = support[support[:, 0, 0, 0] == label][:, 0, 1, 0].astype(int)
        found = np.bincount(members, minlength=PER_CLASS)
        assert found[counts[label] :].sum() == 0
        assert within_five_errors(found[: counts[label]], len(members), 1 / counts[label])


def test_the_most_that_fits():
    """All classes and all images: nothing is left out, nothing is padding."""
    counts = [9, 6, 7, 9, 9, 8, 6]
    batch = drawn(made(counts, way=7, shot=1, query=5), 50)
    assert (np.sort(np.asarray(batch.support_images)[..., 0, 0, 0], axis=1) == np.arange(7)).all()
    assert float(jnp.max(batch.query_images)) < PADDING


def test_equal_keys_draw_equal_episodes():
    episodes = made()
    one, two = (episodes.draw(key=jax.random.key(7)) for _ in range(2))
    other = episodes.draw(key=jax.random.key(8))
    np.testing.assert_array_equal(one.query_images, two.query_images)
    assert not np.array_equal(one.query_images, other.query_images)


def test_an_episode_does_not_depend_on_the_precision():
    key = jax.random.key(3)
    double = made().draw(key=key)
    with jax.enable_x64(False):
        single = made().draw(key=key)
    assert single.query_images.dtype == jnp.float32
    np.testing.assert_array_equal(single.query_images, double.query_images)


@pytest.mark.parametrize("rotations", [False, True])
def test_vmap_and_scan_are_a_loop(rotations):
    episodes = made(rotations=rotations)
    keys = jax.random.split(jax.random.key(0), 5)
    mapped = jax.vmap(lambda key: episodes.draw(key=key))(keys)
    _, scanned = jax.lax.scan(lambda state, key: (state, episodes.draw(key=key)), 0, keys)
    for index, key in enumerate(keys):
        looped = episodes.draw(key=key)
        for ours in (mapped, scanned):
            jax.tree.map(
                lambda leaf, alone, at=index: np.testing.assert_array_equal(leaf[at], alone),
                ours,
                looped,
            )


def test_the_set_is_an_argument_not_a_constant():
    """A set of the same shape is drawn from without compiling again."""
    draw = jax.jit(lambda episodes, key: episodes.draw(key=key))
    images, counts = numbered()
    for shift in (0, 20):
        moved = images + np.uint8(shift)
        episodes = Episodes(moved, counts, way=3, shot=2, query=4, scale=1.0)
        episode = draw(episodes, jax.random.key(0))
        assert float(jnp.min(episode.support_images)) == shift
    assert draw._cache_size() == 1


def test_rotations_are_quarter_turns_and_classes_of_their_own():
    trials = 400
    images = np.zeros((2, PER_CLASS, 3, 3, 2), np.uint8)
    images[:, :, 0, 0] = np.array([1, 2])[:, None, None]
    images[:, :, 0, 1] = np.arange(10, 10 + PER_CLASS)[:, None]
    counts = np.full(2, PER_CLASS, np.int32)
    episodes = Episodes(images, counts, way=8, shot=1, query=3, scale=1.0, rotations=True)
    batch = drawn(episodes, trials)
    first = np.zeros(8, int)
    for index in range(trials):
        turns, classes, _ = turns_and_origin(batch.support_images[index])
        kinds = turns * 2 + classes - 1
        assert sorted(kinds) == list(range(8))  # eight ways of two characters: every turn of both
        first[kinds[0]] += 1
        if index < 20:
            query = turns_and_origin(batch.query_images[index])
            np.testing.assert_array_equal(query[0], np.repeat(turns, 3))
            np.testing.assert_array_equal(query[1], np.repeat(classes, 3))
    assert within_five_errors(first, trials, 1 / 8)


def test_rotated_images_are_numpys():
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4, 3), dtype=np.uint8)
    two = np.concatenate([images, images], axis=1)
    counts = np.full(1, 2, np.int32)
    episodes = Episodes(two, counts, way=4, shot=1, query=1, scale=1.0, rotations=True)
    episode = episodes.draw(key=jax.random.key(0))
    expected = {np.rot90(images[0, 0], turn).tobytes() for turn in range(4)}
    for found in (episode.support_images, episode.query_images):
        assert {np.asarray(image, np.uint8).tobytes() for image in found} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"way": 0}, "episodes: way is 0; it must be at least 1"),
        ({"shot": -1}, "episodes: shot is -1"),
        ({"query": 0}, "episodes: query is 0"),
        ({"way": 8}, "episodes of 8 ways need 8 classes, and there are 7; lower way"),
        ({"way": 29, "rotations": True}, "need 29 classes, and there are 28; lower way"),
        ({"shot": 3, "query": 4}, "3 shots and 4 queries need 7 images a class, and class 5 has 6"),
    ],
)
def test_impossible_episodes(fields, message):
    with pytest.raises(ConfigError, match=message) as raised:
        made([9, 7, 9, 9, 8, 6, 9], **fields)
    assert "\n" not in str(raised.value)


def test_rotations_of_oblong_images():
    with pytest.raises(ConfigError, match="rotations need square images, and these are 2 × 3"):
        images, counts = np.zeros((5, 4, 2, 3, 1), np.uint8), np.full(5, 4, np.int32)
        Episodes(images, counts, way=2, shot=1, query=1, scale=1.0, rotations=True)


@pytest.mark.parametrize(
    ("images", "counts", "message"),
    [
        (np.zeros((5, 4, 3, 3, 1), np.float32), np.full(5, 4, np.int32), "images is float32"),
        (np.zeros((5, 4, 3, 3), np.uint8), np.full(5, 4, np.int32), r"shape \(5, 4, 3, 3\)"),
        (np.zeros((0, 4, 3, 3, 1), np.uint8), np.zeros(0, np.int32), r"shape \(0, 4, 3, 3, 1\)"),
        (np.zeros((5, 4, 3, 3, 1), np.uint8), np.full(4, 4, np.int32), r"\(5,\) is needed"),
        (np.zeros((5, 4, 3, 3, 1), np.uint8), np.full(5, 4.0), "counts is float64"),
        (np.zeros((5, 4, 3, 3, 1), np.uint8), np.full(5, 9, np.int32), "room for 4 images"),
        (np.zeros((5, 4, 3, 3, 1), np.uint8), np.full(5, 2**32 + 2), "room for 4 images"),
    ],
)
def test_arrays_that_do_not_belong_together(images, counts, message):
    with pytest.raises(DataError, match=message) as raised:
        Episodes(images, counts, way=2, shot=1, query=1, scale=1.0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.uint64, list])
def test_counts_are_whole_numbers_of_any_type(precise, kind):
    """NumPy's own are of 64 bits, which only JAX's default precision took for 32."""
    counts = [4] * 5 if kind is list else np.full(5, 4, kind)
    with jax.enable_x64(precise):
        images = np.zeros((5, 4, 3, 3, 1), np.uint8)
        episodes = Episodes(images, counts, way=2, shot=1, query=1, scale=1.0)  # pyright: ignore[reportArgumentType]
        assert episodes.counts.dtype == np.int32 and episodes.counts.tolist() == [4] * 5


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        # As numbers of classes these would let the padding of the last one be drawn.
        (np.array([0, 0, 1]), r"allowed is int64 of shape \(3,\); bool of shape \(3,\) is needed"),
        (np.ones(2, bool), r"allowed is bool of shape \(2,\)"),
    ],
)
def test_classes_are_allowed_by_a_mask(allowed, message):
    images, counts = np.zeros((3, 9, 2, 2, 1), np.uint8), np.array([9, 9, 2], np.int32)
    fields = {"way": 1, "shot": 1, "query": 4, "scale": 1.0}
    with pytest.raises(DataError, match=message):
        Episodes(images, counts, **fields, allowed=allowed)
    with pytest.raises(ConfigError, match="class 2 has 2; lower shot"):
        Episodes(images, counts, **fields, allowed=np.array([False, False, True]))


def classes(names=("a", "b"), shape=(3, 4, 4, 1), **changes) -> ImageClasses:
    fields = {
        "images": np.zeros((len(names), *shape), np.uint8),
        "counts": np.full(len(names), shape[0], np.int32),
        "scale": 1 / 255,
    } | changes
    return ImageClasses("toy", tuple(names), **fields)


def test_classes_become_episodes():
    images, counts = numbered([9, 7, 9, 9, 8, 6, 9])
    toy = ImageClasses("toy", tuple("abcdefg"), images, counts, 1.0)
    episodes = toy.episodes(3, 2, 4)
    assert isinstance(episodes.images, jax.Array) and episodes.images.dtype == jnp.uint8
    direct = Episodes(images, counts, way=3, shot=2, query=4, scale=1.0)
    key = jax.random.key(0)
    ours, theirs = episodes.draw(key=key), direct.draw(key=key)
    np.testing.assert_array_equal(ours.query_images, theirs.query_images)
    with pytest.raises(ConfigError, match="need 7 images a class, and class 'f' has 6; lower"):
        toy.episodes(3, 3, 4)


@pytest.mark.parametrize("rotations", [False, True])
def test_no_class_of_one_part_is_ever_drawn_in_another(rotations):
    """The parts share one array of images; each draws all of its classes and no other."""
    images, counts = numbered(classes=10)
    images[..., 0, 0, 0] += 1  # the origin of a turned image is read from 1
    ranges = {"train": range(4), "validation": range(4, 7), "test": range(7, 10)}
    parts = [
        ImageClasses(name, tuple(f"{i}" for i in ids), images[list(ids)], counts[list(ids)], 1.0)
        for name, ids in ranges.items()
    ]
    family = FewShotFamily("toy", *parts).episodes(3, 1, 2, 1, rotations)
    for episodes, ids in zip(family, ranges.values(), strict=True):
        many = drawn(episodes, 60)
        for found in (many.support_images, many.query_images):
            _, classes, _ = turns_and_origin(np.asarray(found).reshape(-1, 3, 3, 2))
            assert set(classes - 1) == set(ids)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "'toy': it has no class; give it at least one"),
        ({"names": ("a", "a")}, "class 'a' is there twice; names must be distinct"),
        ({"counts": np.array([3, 0], np.int32)}, "class 'b' is empty; 1 … 3 images are needed"),
        ({"counts": np.array([4, 3], np.int32)}, "class 'a' counts 4 images; 1 … 3 images"),
        (
            {"counts": np.array([3], np.int32)},
            "2 names, images of 2 classes, counts int32 of shape",
        ),
        ({"images": np.zeros((2, 3, 4, 4, 1))}, "images is float64 of shape"),
        ({"shape": (3, 4, 0, 1)}, r"images are of shape \(4, 0, 1\); pixels are needed"),
        ({"scale": float("nan")}, "scale is nan; it must be positive and finite"),
    ],
)
def test_classes_that_cannot_be_right(fields, message):
    with pytest.raises(DataError, match=message) as raised:
        classes(**fields)
    assert "\n" not in str(raised.value)


def test_classes_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        classes().images[0] = 1


def test_families_refuse_common_classes_and_other_images():
    parts = [classes(names) for names in (("a", "b"), ("c",), ("d", "e"))]
    family = FewShotFamily("toy", *parts)
    assert family.note == ""
    shared = classes(("e", "b"))
    with pytest.raises(DataError, match="class 'b' is in train and in test; a class may be in one"):
        dataclasses.replace(family, test=shared)
    with pytest.raises(DataError, match="class 'e' is in validation and in test"):
        dataclasses.replace(family, validation=classes(("e",)))
    with pytest.raises(DataError, match=r"train has .* \(\(4, 4, 1\), .*, validation .*\(4, 5, 1"):
        dataclasses.replace(family, validation=classes(("c",), (3, 4, 5, 1)))
