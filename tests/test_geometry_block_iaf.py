"""blockIAF against the authors' code, run; its structure; and that it is not a gradient map."""

import dataclasses
import functools
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

import laws
import nchw
from geometries import Case
from mirrax.geometry import AbstractGeometry, BlockIAF
from mirrax.hypergradient import Reverse
from mirrax.inner import DualDescent, Prior, Problem, Repeat, unroll
from mirrax.models import conv4
from mirrax.objective import ValidationLoss

ORDER = [
    f"{kind}{i}_{part}"
    for i in range(1, 5)
    for kind, part in zip(("conv", "conv", "bn", "bn"), "wbgb", strict=True)
]
BLOCKS = (*(tuple(ORDER[4 * i : 4 * i + 4]) for i in range(4)), ("lin_w", "lin_b"))


def assembled(like, find):
    """A map, or a gradient of one, from arrays by the names of the stored files."""

    def layer(names, prefix, count):
        def stack(part):
            return jnp.stack([jnp.asarray(find(prefix.format(name) + part)) for name in names])

        return (tuple(stack(f"w{d + 1}") for d in range(count)), stack("bias"))

    def fill(equals, prefixes):
        layers = jax.tree.leaves(equals.stacked, is_leaf=lambda n: hasattr(n, "factors"))
        filled = [
            layer(equals.names, prefix, len(old.factors))
            for prefix, old in zip(prefixes, layers, strict=True)
        ]
        leaves = [leaf for factors, bias in filled for leaf in (*factors, bias)]
        stacked = jax.tree.unflatten(jax.tree.structure(equals.stacked), leaves)
        return dataclasses.replace(equals, stacked=stacked)

    def constants(which):
        shapes = {name: like.shift[name].shape for name in like.blocks[0]}
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
        parts = np.split(np.asarray(find(f"block1__{which}")), ends)
        return {n: jnp.asarray(p).reshape(shapes[n]) for n, p in zip(shapes, parts, strict=True)}

    dense = [
        ((jnp.asarray(find(f"iar__block{i}__weight")),), jnp.asarray(find(f"iar__block{i}__bias")))
        for i in range(2, len(like.blocks) + 1)
    ]
    stages = [f"enc__{{}}__s{s}__" for s in (1, 2, 3)]
    ends = ["dec__{}__s1__", "dec__{}__s2__", "dec__{}__logscale__", "dec__{}__shift__"]
    return dataclasses.replace(
        like,
        encoders=tuple(fill(equals, stages) for equals in like.encoders),
        autoregressors=jax.tree.unflatten(
            jax.tree.structure(like.autoregressors), jax.tree.leaves(dense)
        ),
        decoders=tuple(fill(equals, ends) for equals in like.decoders),
        raw_scale=constants("log_scale"),
        shift=constants("shift"),
    )


def skeleton(template, variant="official", seed=0):
    names = list(template)
    return BlockIAF.like(
        template, nchw.roles(names), BLOCKS, variant=variant, key=jax.random.key(seed)
    )


def tensors(stored, prefix):
    found = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    return jax.tree.map(jnp.asarray, found)


@pytest.fixture
def live(golden):
    return golden("c03_blockiaf_official_live_heads")


def stored_map(live, variant="official"):
    return assembled(skeleton(tensors(live, "z__"), variant), lambda role: live[f"p__{role}"])


def compare(found, expected, tolerance):
    """Relative to the largest entry of all: biases before a normalisation have gradient zero."""
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=0, atol=tolerance * scale), found, expected
    )


@jax.jit
def meta_gradient(mirror_map, dual, support, query, alpha):
    """As the method makes it: dual descent, and reverse mode through all of it."""
    inner, prior = DualDescent(alpha), Prior(mirror_map, dual)
    task = Problem(lambda x, shared, batch: nchw.loss(x, *batch), Repeat(support), query=query)
    adapted = unroll(inner, prior, task, 5, key=jax.random.key(0)).last
    estimator = Reverse(5, wrt=("geometry", "start"))
    value, grad, _ = estimator.over_a_run(
        ValidationLoss(), inner, prior, task, key=jax.random.key(0)
    )
    return (value, adapted), (grad.geometry, grad.start)


def task_of(stored):
    return tuple(
        tuple(jnp.asarray(stored[k]) for k in pair) for pair in (("xs", "ys"), ("xq", "yq"))
    )


# Independent implementations of these files agree to 5e-14 in float64 relative to the scale.
AGREES = 1e-11


def test_official_map_agrees_with_the_authors_code(live):
    mirror_map, z = stored_map(live), tensors(live, "z__")
    to_primal = eqx.filter_jit(BlockIAF.to_primal)
    compare(to_primal(mirror_map, z), tensors(live, "g_z__"), AGREES)
    direction = tensors(live, "jvp_dir__")
    _, moved = jax.jvp(functools.partial(to_primal, mirror_map), (z,), (direction,))
    compare(moved, tensors(live, "jvp_out__"), AGREES)
    # Scales of e^{±2} or so lose a few digits on the way back.
    compare(eqx.filter_jit(BlockIAF.to_dual)(mirror_map, to_primal(mirror_map, z)), z, 1e-12)


def test_paper_map_agrees_with_the_authors_code_but_for_its_scale(live, golden):
    mirror_map, z = stored_map(live, "paper"), tensors(live, "z__")
    x = eqx.filter_jit(BlockIAF.to_primal)(mirror_map, z)
    compare(x, tensors(golden("c03_blockiaf_paper_bounded"), "g_z__"), AGREES)


@pytest.mark.slow
def test_official_dependence_of_blocks_agrees_with_the_authors_code(live):
    mirror_map, z = stored_map(live), tensors(live, "z__")
    first = [block[0] for block in BLOCKS]

    @jax.jit
    def slopes(z):
        def sums(z):
            return jnp.stack([jnp.sum(mirror_map.to_primal(z)[name]) for name in first])

        return jax.jacrev(sums)(z)

    found = np.array(
        [[float(jnp.sum(jnp.abs(slopes(z)[name][i]))) for name in first] for i in range(5)]
    )
    assert_allclose(found, live["block_dependence_abs_sum"], rtol=1e-9)
    assert not np.triu(found, 1).any()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["official", "paper"])
def test_adaptation_and_meta_gradient_agree_with_the_authors_code(variant, live, golden):
    stored = live if variant == "official" else golden("c03_blockiaf_paper_bounded")
    mirror_map, z = stored_map(live, variant), tensors(live, "z__")
    (value, adapted), (slopes, start) = meta_gradient(
        mirror_map, z, *task_of(live), float(live["alpha"])
    )
    assert_allclose(value, stored["query_loss"], rtol=1e-10)
    compare(adapted, tensors(stored, "adapted__"), 1e-10)
    expected = assembled(mirror_map, lambda role: stored[f"meta_grad__{role}"])
    compare((slopes, start), (expected, tensors(stored, "meta_grad__z0__")), 1e-9)


@pytest.mark.slow
def test_official_start_adapts_like_maml_and_never_trains_its_heads(golden):
    """What depends on the random layers is zero; what is not agrees with the code."""
    stored = golden("c03_blockiaf_official_own_init")
    z = tensors(stored, "z__")
    mirror_map = skeleton(z)
    support, query = task_of(stored)
    (_, adapted), (slopes, start) = meta_gradient(
        mirror_map, z, support, query, float(stored["alpha"])
    )
    compare(adapted, tensors(stored, "adapted__"), 1e-10)
    plain = jax.jit(lambda z: nchw.adapt(lambda x: x, z, support, float(stored["alpha"]), 5))(z)
    compare(adapted, plain, 1e-12)
    compare(start, tensors(stored, "meta_grad__z0__"), 1e-9)
    still = [slopes.encoders, slopes.autoregressors]
    biases, expected = {}, {}
    for equals in slopes.decoders:
        still.append(equals.stacked.hidden)
        for role, head in (("logscale", equals.stacked.scale), ("shift", equals.stacked.shift)):
            if len(head.factors) > 1:
                still.append(head.factors)
            for row, name in enumerate(equals.names):
                key = f"dec__{name}__{role}__bias"
                biases[key] = head.bias[row]
                expected[key] = jnp.asarray(stored[f"meta_grad__{key}"])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(still))
    compare(biases, expected, 1e-9)
    assert all(np.any(equals.stacked.shift.bias) for equals in slopes.decoders)
    flat = np.concatenate([np.ravel(slopes.shift[name]) for name in BLOCKS[0]])
    compare(flat, stored["meta_grad__block1__shift"], 1e-9)


# --- 64 channels, values from a hash ----------------------------------------------------------


def hashed(shape, identifier):
    """`u = h(k, p)` of the stored values' description, in [0, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(int(np.prod(shape)), dtype=np.uint64)
    x = (x + np.uint64(0x9E3779B9) * np.uint64(identifier + 1)) & mask
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x85EBCA6B)) & mask
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(0xC2B2AE35)) & mask
    x ^= x >> np.uint64(16)
    return (x / 2.0**32).reshape(shape)


@pytest.mark.slow
def test_official_map_at_full_size_agrees_with_the_authors_code(golden):
    stored = golden("c03_blockiaf_official_64ch")
    assert_allclose(hashed((8,), 0), stored["hash_test_p0"], rtol=1e-15)
    shape_of = lambda text: tuple(int(n) for n in text.strip("(,)").split(",") if n)  # noqa: E731
    z = {}
    for name, text, identifier, kind in zip(
        *(stored[f"net_param_{k}"] for k in ("order", "shape", "hash_id", "kind")), strict=True
    ):
        shape = shape_of(str(text))
        wave = 2 * hashed(shape, int(identifier)) - 1
        matrix = np.sqrt(3 / max(np.prod(shape[1:]), 1))
        scaled = {"gain": 1 + 0.2 * wave, "vector": 0.1 * wave, "matrix": matrix * wave}
        z[str(name)] = jnp.asarray(scaled[str(kind)])
    rows = {str(role): row for row, role in enumerate(stored["role"])}

    def find(role):
        row = rows[role]
        wave = (
            2 * hashed(shape_of(str(stored["role_shape"][row])), int(stored["role_hash_id"][row]))
            - 1
        )
        return stored["role_centre"][row] + stored["role_amplitude"][row] * wave

    mirror_map = assembled(skeleton(z), find)
    counts = [
        sum(leaf.size for leaf in jax.tree.leaves(part))
        for part in (
            mirror_map.encoders,
            mirror_map.decoders,
            (mirror_map.autoregressors, mirror_map.raw_scale, mirror_map.shift),
        )
    ]
    assert counts == [stored[f"n_{part}_params"] for part in ("encoder", "decoder", "iar")]
    assert mirror_map.raw_scale["conv1_w"].shape == (64, 3, 9)
    x = eqx.filter_jit(BlockIAF.to_primal)(mirror_map, z)
    for arrays, prefix in ((z, "z"), (x, "g_z")):
        for row, name in enumerate(stored["net_param_order"]):
            flat = np.ravel(arrays[str(name)])
            norm = stored[f"{prefix}_norm"][row]
            assert_allclose(np.linalg.norm(flat), norm, rtol=1e-11)
            # A sum of up to 37,000 terms cancels to far less than the sum of their sizes.
            assert_allclose(
                flat.sum(), stored[f"{prefix}_sum"][row], atol=1e-11 * np.abs(flat).sum()
            )
            sample = flat[(7919 * np.arange(64)) % flat.size]
            assert_allclose(sample, stored[f"{prefix}_sample"][row], atol=1e-11 * norm)


# --- structure --------------------------------------------------------------------------------

ROLES = {
    "conv_0": {"weight": ("height", "width", "in", "out"), "bias": ("out",)},
    "conv_1": {"weight": ("height", "width", "in", "out"), "bias": ("out",)},
    "dense_0": {"weight": ("in", "out"), "bias": ("out",)},
}
SHAPES = {
    "conv_0": {"weight": (2, 2, 1, 16), "bias": (16,)},
    "conv_1": {"weight": (2, 2, 8, 16), "bias": (16,)},
    "dense_0": {"weight": (16, 8), "bias": (8,)},
}
TEMPLATE = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float64),
    SHAPES,
    is_leaf=lambda node: isinstance(node, tuple),
)
SMALL_BLOCKS = tuple((f"{layer}/weight", f"{layer}/bias") for layer in SHAPES)


def small(variant="paper", seed=0):
    return BlockIAF.like(TEMPLATE, ROLES, SMALL_BLOCKS, variant=variant, key=jax.random.key(seed))


def noise(tree, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), tree)


def conditioned(variant="paper", seed=0):
    """A map whose blocks depend on one another: everything random."""
    start = small(variant, seed)
    return jax.tree.map(jnp.add, start, noise(start, seed + 1, 0.4))


def jacobian(mirror_map, dual):
    flat, unravel = ravel_pytree(dual)
    return jax.jit(jax.jacfwd(lambda v: ravel_pytree(mirror_map.to_primal(unravel(v)))[0]))(flat)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_starts_at_the_identity(variant):
    z = noise(TEMPLATE, 3)
    mirror_map = small(variant)
    for direction in (BlockIAF.to_primal, BlockIAF.to_dual):
        jax.tree.map(assert_array_equal, eqx.filter_jit(direction)(mirror_map, z), z)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_inverse_is_exact(variant):
    z, mirror_map = noise(TEMPLATE, 3), conditioned(variant)
    there = eqx.filter_jit(BlockIAF.to_primal)(mirror_map, z)
    assert (
        max(
            float(jnp.max(jnp.abs(a - b)))
            for a, b in zip(*map(jax.tree.leaves, (there, z)), strict=True)
        )
        > 0.1
    )
    # Each entry is scaled, shifted and brought back; scales are within e^{±3} here.
    compare(eqx.filter_jit(BlockIAF.to_dual)(mirror_map, there), z, 1e-13)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_blocks_depend_on_earlier_blocks_only(variant):
    """Oracle 4 of the specification, with the order of blocks and not that of names."""
    z, mirror_map = noise(TEMPLATE, 5), conditioned(variant)
    matrix = np.asarray(jacobian(mirror_map, z))
    positions = jax.tree.unflatten(
        jax.tree.structure(z),
        np.split(np.arange(len(matrix)), np.cumsum([l.size for l in jax.tree.leaves(z)])[:-1]),
    )
    where = [
        np.concatenate([positions[layer]["weight"], positions[layer]["bias"]]) for layer in SHAPES
    ]
    for i, rows in enumerate(where):
        for j, columns in enumerate(where):
            part = matrix[np.ix_(rows, columns)]
            if j > i:
                assert not part.any()
            elif j == i:
                assert not (part - np.diag(np.diag(part))).any()
                assert (np.diag(part) > 0).all()
            else:
                assert np.abs(part).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_with_constant_conditioners_it_is_a_learned_rate_for_each_parameter(variant):
    """Oracle 2: `x⁺ = x − α σ(s) ⊙ g`, the step of Meta-SGD."""
    start = small(variant)

    def where(m):
        heads = [head for e in m.decoders for head in (e.stacked.scale, e.stacked.shift)]
        return [*(head.bias for head in heads), m.raw_scale, m.shift]

    mirror_map = eqx.tree_at(where, start, noise(where(start), 7))
    z, gradient = noise(TEMPLATE, 8), noise(TEMPLATE, 9)
    x = mirror_map.to_primal(z)
    moved = mirror_map.to_primal(jax.tree.map(lambda a, g: a - 0.1 * g, z, gradient))
    ones = jax.tree.map(jnp.ones_like, z)
    rates = jax.tree.map(jnp.subtract, mirror_map.to_primal(jax.tree.map(jnp.add, z, ones)), x)
    assert np.ptp(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(rates)])) > 0.5
    expected = jax.tree.map(lambda a, r, g: a - 0.1 * r * g, x, rates, gradient)
    # The rates are differences of numbers of size 5.
    compare(moved, expected, 1e-14)


@pytest.mark.slow
def test_paper_heads_all_train_within_two_steps():
    """Oracle 3: after a step or two no factor of a head has gradient zero."""
    z, goal = noise(TEMPLATE, 11), noise(TEMPLATE, 12)

    @jax.jit
    def slopes(mirror_map):
        def miss(mirror_map):
            x = mirror_map.to_primal(z)
            return sum(
                jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (x, goal)), strict=True)
            )

        return jax.grad(miss)(mirror_map)

    def still(variant, least):
        mirror_map = small(variant)
        for _ in range(2):
            mirror_map = jax.tree.map(lambda p, g: p - 0.01 * g, mirror_map, slopes(mirror_map))
        heads = [h for e in slopes(mirror_map).decoders for h in (e.stacked.scale, e.stacked.shift)]
        return [
            not np.any(f, axis=(1, 2)).all()
            for h in heads
            for f in h.factors
            if len(h.factors) > least
        ]

    # Two heads of two weights, with three and two modes; with one mode, of two biases.
    assert still("paper", 0) == [False] * 14
    assert still("official", 1) == [True] * 10


def test_arrays_of_one_axis_are_a_half_percent_of_the_paper_s_network():
    """What the official start leaves to be conditioned, of 121,093 parameters: 3·3·64 + 5."""
    model = conv4((84, 84, 3), 5)
    sizes = {name: np.prod(shape) for name, shape in model.leaf_shapes.items()}
    vectors = [n for block in model.blocks[1:] for n in block if len(model.leaf_shapes[n]) == 1]
    assert sum(sizes[name] for name in vectors) == 581 < 0.005 * sum(sizes.values())


def test_only_bounded_scales_leave_the_inverse_a_modulus():
    """`x = z σ(s)` with one large `s`: `1/σ(s)` is at least ½, or as small as one likes."""
    for variant, least in (("paper", 0.5), ("official", np.exp(-30.0))):
        start = small(variant)
        raw = jax.tree.map(lambda leaf: jnp.full_like(leaf, 30.0), start.raw_scale)
        mirror_map = eqx.tree_at(lambda m: m.raw_scale, start, raw)
        ones = jax.tree.map(jnp.ones_like, noise(TEMPLATE, 0))
        dual = eqx.filter_jit(BlockIAF.to_dual)(mirror_map, ones)
        assert_allclose(dual["conv_0"]["bias"], least, rtol=1e-12)


def test_it_is_not_a_gradient_map():
    """The law that every potential obeys, broken by conditioners that vary."""
    assert not issubclass(BlockIAF, AbstractGeometry)
    case = Case("BlockIAF", lambda rng: conditioned())
    z = noise(TEMPLATE, 13)
    start = SimpleNamespace(jacobian=np.asarray(jacobian(small(), z)))
    laws.symmetric_jacobian(case, None, start)
    for variant in ("paper", "official"):
        found = SimpleNamespace(jacobian=np.asarray(jacobian(conditioned(variant), z)))
        with pytest.raises(AssertionError):
            laws.symmetric_jacobian(case, None, found)


@pytest.mark.slow
def test_layout_does_not_matter():
    """Roles, not positions, say what the axes are."""
    flip = lambda tree: {  # noqa: E731
        layer: {"weight": jnp.transpose(leaves["weight"]), "bias": leaves["bias"]}
        for layer, leaves in tree.items()
    }
    turned = {layer: {"weight": r["weight"][::-1], "bias": r["bias"]} for layer, r in ROLES.items()}
    mirror_map, z = conditioned(), noise(TEMPLATE, 14)
    axes = BlockIAF.like(flip(z), turned, SMALL_BLOCKS, key=jax.random.key(0)).axes
    other = dataclasses.replace(mirror_map, axes=axes)
    jax.tree.map(assert_array_equal, other.to_primal(flip(z)), flip(mirror_map.to_primal(z)))


def test_types_are_kept():
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), (conditioned(), noise(TEMPLATE, 1))
    )
    for method in (BlockIAF.to_primal, BlockIAF.to_dual):
        found = jax.eval_shape(method, *single)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    narrow = jax.eval_shape(
        lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), TEMPLATE)
    )
    drawn = BlockIAF.like(narrow, ROLES, SMALL_BLOCKS, key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    traced = jax.jit(lambda key: BlockIAF.like(narrow, ROLES, SMALL_BLOCKS, key=key))(
        jax.random.key(0)
    )
    # XLA may fuse the product and the sum of a draw.
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), drawn, traced)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"BlockIAF.variant: .*'bounded'"):
        small("bounded")
    for blocks in (SMALL_BLOCKS[:2], (*SMALL_BLOCKS, ()), (*SMALL_BLOCKS, ("conv_0/bias",))):
        with pytest.raises(ValueError, match=r"BlockIAF.blocks: expected each of conv_0/bias"):
            BlockIAF.like(TEMPLATE, ROLES, blocks, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"BlockIAF.to_primal: expected the parameters"):
        small().to_primal({"conv_0": noise(TEMPLATE["conv_0"], 0)})
