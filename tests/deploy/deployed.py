"""One geometry of every kind, with parameters it acts on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mirrax.geometry import (
    BlockIAF,
    Blockwise,
    ConvexPotential,
    Diagonal,
    Euclidean,
    Kronecker,
    KroneckerUpdate,
    MaxOfDiagonals,
    ModeProducts,
    NegativeEntropy,
    PNorm,
    RandomMask,
    Scaled,
    Transformed,
)


def make_params(dtype=jnp.float64):
    """Positive, with last axes that sum to one, so that every geometry applies."""
    rng = np.random.default_rng(0)

    def simplex(*shape):
        draw = rng.uniform(0.5, 2.0, shape)
        return jnp.asarray(draw / draw.sum(axis=-1, keepdims=True), dtype)

    return {
        "dense_0": {"weight": simplex(3, 2), "bias": simplex(2)},
        "mixture": [simplex(4)],
    }


def _diagonal(params, seed=1):
    rng = np.random.default_rng(seed)
    return Diagonal(jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape)), params))


def _max(params, components=3):
    return MaxOfDiagonals.like(params, components, spread=0.2, key=jax.random.key(3))


def _kronecker(params, seed=2):
    rng = np.random.default_rng(seed)
    like = Kronecker.like(params)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape)), like)


def make_geometries():
    params = make_params()
    dense, mixture = params["dense_0"], params["mixture"]
    blocks = {
        "dense_0": {"weight": _diagonal(dense["weight"]), "bias": Euclidean()},
        "mixture": NegativeEntropy(),
    }
    nested = {
        "dense_0": Blockwise({"weight": PNorm(1.7), "bias": _max(dense["bias"], 2)}),
        "mixture": [Scaled(NegativeEntropy("orthant"), jnp.asarray(0.3))],
    }
    linear = {"dense_0": Scaled(Euclidean(), jnp.asarray(0.2)), "mixture": _diagonal(mixture)}
    return {
        "euclidean": Euclidean(),
        "simplex": NegativeEntropy(),
        "orthant": NegativeEntropy("orthant"),
        "pnorm": PNorm(1.5),
        "pnorm-3": PNorm(3.0),
        "pnorm-separable": PNorm(1.5, separable=True),
        "diagonal": _diagonal(params),
        "max": _max(params),
        "kronecker": _kronecker(params),
        "blockwise-kronecker": Scaled(
            Blockwise({"dense_0": _kronecker(dense), "mixture": _diagonal(mixture)}),
            jnp.asarray(0.2),
        ),
        "scaled": Scaled(_diagonal(params), jnp.asarray(-0.3)),
        "scaled-twice": Scaled(Scaled(Euclidean(), jnp.asarray(0.3)), jnp.asarray(0.1)),
        "blockwise": Blockwise(blocks),
        "blockwise-nested": Blockwise(nested),
        "blockwise-linear": Blockwise(linear),
        "scaled-blockwise": Scaled(Blockwise(blocks), jnp.asarray(-0.2)),
    }


ROLES = {
    "dense_0": {"weight": ("in", "out"), "bias": ("out",)},
    "mixture": [("out",)],
}
BLOCKS = (("dense_0/weight", "dense_0/bias"), ("mixture/0",))


def make_by_roles():
    """Maps that mix arrays or their axes, every number of them random."""
    params, key = make_params(), jax.random.key(4)
    dense, mixture = params["dense_0"], params["mixture"]
    blocks = Blockwise({"dense_0": Kronecker.like(dense), "mixture": PNorm(1.7)})
    part = Transformed.like(_max(dense), dense, ROLES["dense_0"])
    starts = {
        "convex": ConvexPotential.like(params, ROLES, units=3, key=key),
        "blockiaf": BlockIAF.like(params, ROLES, BLOCKS, key=key),
        "blockiaf-official": BlockIAF.like(params, ROLES, BLOCKS, variant="official", key=key),
        "transformed": Transformed.like(Diagonal.like(params), params, ROLES),
        "transformed-kronecker": Transformed.like(Kronecker.like(params, 2.0), params, ROLES),
        "transformed-blockwise": Transformed.like(blocks, params, ROLES),
        "blockwise-transformed": Blockwise({"dense_0": part, "mixture": _diagonal(mixture)}),
        "mode-products": ModeProducts.identity(params, ROLES),
        "kronecker-update": KroneckerUpdate.identity(params, ROLES),
        "random-mask": RandomMask.like(params),
    }
    rng = np.random.default_rng(6)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape)), starts)


GEOMETRIES = make_geometries()
BY_ROLES = make_by_roles()
TRANSFORMED = {
    name: BY_ROLES[name]
    for name in (
        "transformed",
        "transformed-kronecker",
        "transformed-blockwise",
        "blockwise-transformed",
    )
}
STEPPED = GEOMETRIES | TRANSFORMED
"""Whatever `MirrorDescent` steps with: geometries, not bare maps and preconditioners."""

SINGLE = (
    "euclidean",
    "simplex",
    "pnorm",
    "diagonal",
    "max",
    "kronecker",
    "transformed",
    "transformed-kronecker",
    "scaled",
    "blockwise",
)
KINDS = ("diagonal", "kronecker", "blockwise")
"""One of each form of the step: by rates, linear, through the dual."""


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), tree)


def make_loss(dtype=jnp.float64):
    """A strongly convex quadratic with its minimum inside every geometry's domain."""
    params = make_params(dtype)
    rng = np.random.default_rng(5)
    pull = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 2.0, x.shape), dtype), params)
    goal = jax.tree.map(lambda x: jnp.flip(x, -1), params)

    def loss(point):
        parts = jax.tree.map(lambda c, x, g: jnp.sum(c * (x - g) ** 2) / 2, pull, point, goal)
        return sum(jax.tree.leaves(parts), start=jnp.zeros((), dtype))

    return loss


def run(optimiser, params, loss, steps):
    """An ordinary loop, compiled as one scan: last point, last state, all points."""

    def step(carry, _):
        point, state = carry
        updates, state = optimiser.update(jax.grad(loss)(point), state, point)
        point = optax.apply_updates(point, updates)
        return (point, state), point

    @jax.jit
    def whole(start):
        (last, state), points = jax.lax.scan(
            step, (start, optimiser.init(start)), None, length=steps
        )
        return last, state, points

    return whole(params)


def assert_close(left, right, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * float(jnp.max(jnp.abs(b)))
        ),
        left,
        right,
    )


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def check_frozen_stay(make):
    """Three steps in which `v` has no gradient, beside an optimiser that knows nothing of it.

    `make` is from a geometry to an optimiser. The parameters at the end, and the states of both.
    """
    params = {"v": jnp.ones(2), "w": jnp.ones(3)}
    logs = jax.tree.map(lambda x: jnp.linspace(0, 1, x.size), params)
    optimiser, alone = make(Diagonal(logs)), make(Diagonal({"w": logs["w"]}))
    state, other = optimiser.init(params), alone.init({"w": params["w"]})
    for _ in range(3):
        updates, state = optimiser.update({"v": None, "w": params["w"]}, state, params)
        expected, other = alone.update({"w": params["w"]}, other, {"w": params["w"]})
        assert updates["v"] is None
        np.testing.assert_array_equal(updates["w"], expected["w"])
        params = params | {"w": params["w"] + updates["w"]}
    return params, state, other
