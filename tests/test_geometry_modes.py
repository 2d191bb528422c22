"""Mode products and the two preconditioners made of them, against values of other codes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from mirrax._views import view_shape
from mirrax.geometry import AbstractPreconditioner, KroneckerUpdate, ModeProducts
from mirrax.geometry._modes import unview, view

ROLES = {
    "conv_0": {"weight": ("height", "width", "in", "out"), "bias": ("out",)},
    "dense_0": {"weight": ("in", "out")},
}
TEMPLATE = {
    "conv_0": {"weight": jnp.zeros((3, 3, 3, 4)), "bias": jnp.zeros(4)},
    "dense_0": {"weight": jnp.zeros((7, 5))},
}
CLASSES = (ModeProducts, KroneckerUpdate)

# A sum of at most 108 products of numbers of order one, in an order of its own.
ROUNDING = dict(rtol=1e-12, atol=1e-13)


def house(conv, dense, vector):
    """Arrays as papers write them, (O, I, kh, kw) and (out, in), as the library keeps them."""
    return {
        "conv_0": {"weight": jnp.asarray(conv).transpose(2, 3, 1, 0), "bias": jnp.asarray(vector)},
        "dense_0": {"weight": jnp.asarray(dense).T},
    }


def from_golden(stored, prefix=""):
    names = [f"{kind}_{prefix}" for kind in ("conv", "lin", "vec")]
    return house(*(stored[name] for name in names))


def compare(found, expected):
    jax.tree.map(lambda a, b: assert_allclose(a, b, **ROUNDING), found, expected)


def test_meta_curvature_agrees_with_other_codes(golden):
    stored = golden("c04_metacurvature_transform")
    factors = {
        "conv_0/weight": ("conv_M_out", "conv_M_in", "conv_M_k"),
        "dense_0/weight": ("lin_M_out", "lin_M_in"),
        "conv_0/bias": ("vec_m",),
    }
    identity = ModeProducts.identity(TEMPLATE, ROLES)
    learned = ModeProducts(
        {name: tuple(jnp.asarray(stored[key]) for key in keys) for name, keys in factors.items()},
        identity.axes,
    )
    found = eqx.filter_jit(learned.apply)(from_golden(stored, "grad"))
    expected = house(stored["conv_mode_product"], stored["lin_mode_product"], stored["vec_product"])
    compare(found, expected)


def test_mode_products_are_kronecker_products(golden):
    stored = golden("c04_metacurvature_transform")
    dense = np.kron(np.kron(stored["conv_M_out"], stored["conv_M_in"]), stored["conv_M_k"])
    expected = (dense @ stored["conv_grad"].ravel()).reshape(4, 3, 3, 3)
    factors = (stored["conv_M_out"], stored["conv_M_in"], stored["conv_M_k"])
    axes = (("w", ROLES["conv_0"]["weight"]),)
    learned = ModeProducts({"w": tuple(map(jnp.asarray, factors))}, axes)
    gradient = jnp.asarray(stored["conv_grad"]).transpose(2, 3, 1, 0)
    found = learned.apply({"w": gradient})["w"].transpose(3, 2, 0, 1)
    assert_allclose(found, expected, **ROUNDING)


def test_kronecker_update_agrees_with_other_code(golden):
    stored = golden("c04_kfo_transform")
    kinds = {"conv_0/weight": "conv", "dense_0/weight": "lin", "conv_0/bias": "vec"}
    identity = KroneckerUpdate.identity(TEMPLATE, ROLES)
    learned = KroneckerUpdate(
        {
            name: (jnp.asarray(stored[f"{kind}_L"]), jnp.asarray(stored[f"{kind}_R"]))
            for name, kind in kinds.items()
        },
        identity.axes,
    )
    found = eqx.filter_jit(learned.apply)(from_golden(stored, "grad"))
    compare(found, from_golden(stored, "psd"))


@pytest.fixture
def gradient():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), TEMPLATE)


def scattered(preconditioner, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape), preconditioner)


@pytest.mark.parametrize("kind", CLASSES)
def test_both_start_at_the_identity(kind, gradient):
    compare(kind.identity(TEMPLATE, ROLES).apply(gradient), gradient)
    shapes = jax.eval_shape(lambda: TEMPLATE)
    assert eqx.tree_equal(kind.identity(shapes, ROLES), kind.identity(TEMPLATE, ROLES))


@pytest.mark.parametrize("kind", CLASSES)
def test_both_are_linear_and_differentiable(kind, gradient):
    learned = scattered(kind.identity(TEMPLATE, ROLES))
    assert isinstance(learned, AbstractPreconditioner)
    other = jax.tree.map(jnp.cos, gradient)
    mixed = jax.tree.map(lambda a, b: 2 * a - 3 * b, gradient, other)
    parts = learned.apply(gradient), learned.apply(other)
    compare(learned.apply(mixed), jax.tree.map(lambda a, b: 2 * a - 3 * b, *parts))

    def pairing(preconditioner):
        moved = preconditioner.apply(gradient)
        return sum(
            jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (moved, other)), strict=True)
        )

    slopes, tangent = jax.grad(pairing)(learned), jax.tree.map(jnp.sin, learned)
    step = 1e-5
    ends = [pairing(jax.tree.map(lambda a, b: a + h * b, learned, tangent)) for h in (step, -step)]  # noqa: B023
    forward = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slopes, tangent)), strict=True)
    )
    # Central differences of a polynomial of degree at most four: step² and rounding over step.
    assert_allclose(forward, (ends[0] - ends[1]) / (2 * step), rtol=1e-7)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (learned, gradient))
    moved = jax.eval_shape(lambda pair: pair[0].apply(pair[1]), single)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("kind", CLASSES)
def test_definite_or_not(kind, gradient):
    """KFO cannot become indefinite; MetaCurvature can, which its type does not promise away."""
    flat, unravel = ravel_pytree(gradient)
    smallest = []
    for seed in range(3):
        learned = scattered(kind.identity(TEMPLATE, ROLES), seed)
        matrix = jax.jacfwd(lambda g: ravel_pytree(learned.apply(unravel(g)))[0])(  # noqa: B023
            flat
        )
        smallest.append(np.linalg.eigvalsh((matrix + matrix.T) / 2).min())
    if kind is KroneckerUpdate:
        # The smallest eigenvalues are products of small ones; they round like the largest, ~1e3.
        assert min(smallest) >= -1e-11
    else:
        assert min(smallest) < -0.1


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 5), (5,), ()])
def test_views_are_inverted(shape):
    roles = ("height", "width", "in", "out")[4 - len(shape) :]
    array = jnp.arange(np.prod(shape, dtype=int)).reshape(shape)
    seen = view(array, roles)
    assert seen.shape == view_shape(shape, roles)
    assert jnp.array_equal(unview(seen, roles, shape), array)


def test_view_of_a_convolution_is_output_input_place():
    array = jnp.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert jnp.array_equal(
        view(array, ("height", "width", "in", "out"))[1, 2, 5], array[1, 2, 2, 1]
    )


@pytest.mark.parametrize(
    "roles",
    [
        {"conv_0": ROLES["conv_0"]},
        {**ROLES, "dense_0": {"weight": ("in",)}},
        {**ROLES, "dense_0": {"weight": ("in", "units")}},
        {**ROLES, "dense_0": {"weight": ("out", "out")}},
    ],
    ids=["absent", "too few", "unknown", "twice"],
)
def test_roles_are_checked(roles):
    with pytest.raises(ValueError, match=r"ModeProducts.roles: .*'dense_0/weight'"):
        ModeProducts.identity(TEMPLATE, roles)


@pytest.mark.parametrize("kind", CLASSES)
def test_other_parameters_are_refused(kind):
    learned = kind.identity(TEMPLATE, ROLES)
    with pytest.raises(ValueError, match=f"{kind.__name__}.apply: expected the parameters conv_0"):
        learned.apply({"conv_0": TEMPLATE["conv_0"]})
