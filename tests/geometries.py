"""The registry of geometries: every one that enters here is held to every law of `test_laws`.

A case says how to draw random meta-parameters and points of the geometry's domain, and *declares*
what the geometry cannot do. A law that is not true of a geometry is named in `exempt` with the
reason, so that it shows up as a skip with that reason and never passes in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mirrax.geometry import (
    AbstractGeometry,
    Blockwise,
    ConvexPotential,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
    Transformed,
)

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SHAPES: dict[str, Any] = {"dense": {"weight": (2, 3)}, "gain": (2,)}
"""Parameters are nested and of several ranks, never one vector. More leaves compile longer."""


ROLES = {"dense": {"weight": ("in", "out")}, "gain": ("out",)}
"""What the axes of those parameters mean."""


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple)


def filled(rng: np.random.Generator, draw: Draw, shapes: Any = None) -> Any:
    """A tree of the standard structure, each leaf drawn in turn."""
    shapes = SHAPES if shapes is None else shapes
    return jax.tree.map(lambda shape: jnp.asarray(draw(rng, shape)), shapes, is_leaf=_is_shape)


# --- points -----------------------------------------------------------------------------------


class Spread(NamedTuple):
    """How wild the points are: their magnitude, and whether zeros and tiny shares may occur."""

    magnitude: float = 1.0
    generic: bool = False


def real(spread: Spread) -> Draw:
    """Any real numbers; unless generic, one entry in five is exactly zero."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        sizes = spread.magnitude * np.exp(rng.uniform(-1, 1, shape))
        kept = np.ones(shape) if spread.generic else rng.random(shape) > 0.2
        return sizes * rng.choice([-1.0, 1.0], shape) * kept

    return draw


def level(spread: Spread) -> Draw:
    """Entries of one common size and random sign: components that are permutations tie here."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return spread.magnitude * rng.choice([-1.0, 1.0], shape)

    return draw


def positive(spread: Spread) -> Draw:
    """Positive numbers over a few powers of ten."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        width = 1 if spread.generic else 2
        return spread.magnitude * np.exp(rng.uniform(-width, width, shape))

    return draw


def simplex(spread: Spread) -> Draw:
    """Probability vectors along the last axis; the magnitude has no meaning here."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        weights = np.exp(rng.uniform(-0.5 if spread.generic else -5, 0.5, shape))
        return weights / weights.sum(axis=-1, keepdims=True)

    return draw


# --- cases ------------------------------------------------------------------------------------

Points = Callable[[np.random.Generator, Spread], Any]


def everywhere(kind: Callable[[Spread], Draw]) -> Points:
    """Points with the same kind of entries in every leaf."""
    return lambda rng, spread: filled(rng, kind(spread))


@dataclass(frozen=True, eq=False)
class Case:
    """One geometry under test.

    `rounding` is how many units in the last place its arithmetic may lose, as a multiple of what
    one operation loses: powers `x^a` lose about `a`, an iterative solve some more.
    """

    name: str
    make: Callable[[np.random.Generator], AbstractGeometry]
    points: Points = everywhere(real)
    dual_magnitudes: tuple[float, ...] = (1e-3, 1.0, 1e3)
    strongly_convex: bool = True
    dual_up_to_constant: bool = False
    """The dual is determined up to a constant along the last axis of `constant_in` leaves."""
    constant_in: Callable[[str], bool] = lambda leaf: True
    closed_inverse_hessian: bool = True
    local_over_dual: float = 1.0
    """A declared bound on `local_dual_norm_squared · λ / dual_norm_squared`."""
    rounding: float = 1.0
    offset: float = 0.0
    """How far from zero the maps carry zero, that is, the size of `∇ψ*(0)`.

    Points smaller than that are differences of numbers of this size, and round as those do.
    """
    exempt: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


def _log(rng: np.random.Generator, shapes: Any = None, width: float = 1.0) -> Any:
    return filled(rng, lambda r, shape: r.uniform(-width, width, shape), shapes)


def diagonal(rng: np.random.Generator, shapes: Any = None) -> Diagonal:
    return Diagonal(_log(rng, shapes))


def maximum(count: int, shapes: Any = None) -> Callable[[np.random.Generator], MaxOfDiagonals]:
    def make(rng: np.random.Generator) -> MaxOfDiagonals:
        def draw(r: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            return r.uniform(-0.7, 0.7, (count, *shape))

        return MaxOfDiagonals(filled(rng, draw, shapes))

    return make


def coinciding(rows: tuple[int, ...]) -> Callable[[np.random.Generator], MaxOfDiagonals]:
    """Components of which several are exactly equal: row `j` is number `rows[j]` of the drawn."""

    def make(rng: np.random.Generator) -> MaxOfDiagonals:
        drawn = maximum(max(rows) + 1)(rng)
        return MaxOfDiagonals(jax.tree.map(lambda leaf: leaf[np.array(rows)], drawn.log_diagonals))

    return make


def permuted(count: int) -> Callable[[np.random.Generator], MaxOfDiagonals]:
    """Components that are permutations of one another, leaf by leaf: equal at `level` points."""

    def make(rng: np.random.Generator) -> MaxOfDiagonals:
        def draw(r: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            values = r.uniform(-0.7, 0.7, int(np.prod(shape)))
            return np.stack([np.roll(values, j).reshape(shape) for j in range(count)])

        return MaxOfDiagonals(filled(rng, draw))

    return make


def _mixed(rng: np.random.Generator) -> Blockwise:
    return Blockwise(
        {"dense": maximum(3, SHAPES["dense"])(rng), "gain": NegativeEntropy("orthant")}
    )


def _mixed_points(rng: np.random.Generator, spread: Spread) -> Any:
    dense = filled(rng, real(spread), SHAPES["dense"])
    return {"dense": dense, "gain": filled(rng, positive(spread), SHAPES["gain"])}


def _scaled(rng: np.random.Generator, geometry: AbstractGeometry) -> Scaled:
    return Scaled(geometry, jnp.asarray(rng.uniform(-1.0, 1.0)))


def _scaled_blocks(rng: np.random.Generator) -> Blockwise:
    dense = _scaled(rng, diagonal(rng, SHAPES["dense"]))
    return Blockwise({"dense": dense, "gain": _scaled(rng, NegativeEntropy())})


def _scaled_points(rng: np.random.Generator, spread: Spread) -> Any:
    dense = filled(rng, real(spread), SHAPES["dense"])
    return {"dense": dense, "gain": filled(rng, simplex(spread), (2,))}


def transformed(rng: np.random.Generator) -> Transformed:
    """A random diagonal in random coordinates; the gain's own are kept."""
    geometry = diagonal(rng)
    like = Transformed.like(geometry, geometry.log_diagonal, ROLES)
    draw = lambda leaf: jnp.asarray(real(Spread(0.3))(rng, leaf.shape))  # noqa: E731
    return Transformed(geometry, jax.tree.map(draw, like.raw_factors), like.axes)


def kronecker(rng: np.random.Generator) -> Kronecker:
    """Random factors; what is above their diagonals is random too and must not matter."""
    like = Kronecker.like(filled(rng, lambda r, shape: np.zeros(shape)))
    draw = lambda leaf: jnp.asarray(rng.uniform(-0.8, 0.8, leaf.shape))  # noqa: E731
    return jax.tree.map(draw, like)


def convex_potential(rng: np.random.Generator) -> ConvexPotential:
    """Three units on top of random rates, all meta-parameters random."""
    template = filled(rng, lambda r, shape: np.zeros(shape))
    like = ConvexPotential.like(template, ROLES, units=3, reduction=2, key=jax.random.key(0))

    def uniform(low: float, high: float, leaves: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(low, high, leaf.shape)), leaves)

    return ConvexPotential(
        uniform(-1.0, 1.0, like.raw_rates),
        uniform(-0.8, 0.8, like.encoders),
        uniform(-0.8, 0.8, like.directions),
        uniform(0.1, 1.9, like.amplitudes),
        uniform(-1.0, 1.0, like.offsets),
        like.axes,
        like.smallest_rate,
    )


TIED = "where components tie ∇ψ is a set, and to_dual is one element of it"
COINCIDING = "equal components: ψ has a kink in the meta-parameters wherever it is evaluated"
UNBOUNDED = "the curvature has no positive lower bound over the domain"

NOT_STRONGLY_CONVEX = {
    "strong_convexity": UNBOUNDED,
    "step_bound": UNBOUNDED,
    "local_below_dual": UNBOUNDED,
}


def _pnorm(p: float, separable: bool = False) -> Case:
    kind = f"PNorm({p}{', separable' if separable else ''})"
    strongly = p == 2 if separable else p <= 2
    q = p / (p - 1)
    return Case(
        kind,
        lambda rng: PNorm(p, separable),
        strongly_convex=strongly,
        closed_inverse_hessian=False,
        # The maps raise to the powers p − 1 and q − 1, one after the other.
        rounding=max(p, q),
        dual_magnitudes=(1e-1, 1.0, 1e1) if separable else (1e-3, 1.0, 1e3),
        exempt={} if strongly else NOT_STRONGLY_CONVEX,
    )


CASES: tuple[Case, ...] = (
    Case("Euclidean", lambda rng: Euclidean()),
    Case(
        "NegativeEntropy(simplex)",
        lambda rng: NegativeEntropy(),
        points=everywhere(simplex),
        dual_up_to_constant=True,
        closed_inverse_hessian=False,
        local_over_dual=4.0,
    ),
    Case(
        "NegativeEntropy(orthant)",
        lambda rng: NegativeEntropy("orthant"),
        points=everywhere(positive),
        dual_magnitudes=(1e-3, 1.0),
        strongly_convex=False,
        closed_inverse_hessian=False,
        exempt=NOT_STRONGLY_CONVEX,
    ),
    *(_pnorm(p) for p in (1.1, 1.5, 2.0, 3.0)),
    *(_pnorm(p, separable=True) for p in (1.5, 2.0, 3.0)),
    Case("Diagonal", diagonal),
    *(Case(f"MaxOfDiagonals({n})", maximum(n), rounding=8.0) for n in (1, 2, 3, 5)),
    Case(
        "MaxOfDiagonals(3, all equal)",
        coinciding((0, 0, 0)),
        rounding=8.0,
        exempt={"derivatives": COINCIDING},
    ),
    Case(
        "MaxOfDiagonals(3, two equal)",
        coinciding((0, 1, 0)),
        rounding=8.0,
        exempt={"derivatives": COINCIDING},
    ),
    Case(
        "MaxOfDiagonals(3, tied)",
        permuted(3),
        points=everywhere(level),
        rounding=8.0,
        exempt={
            "derivatives": TIED,
            "dual_is_gradient": TIED,
            "inverse_hessian": TIED,
        },
    ),
    Case("ConvexPotential", convex_potential, rounding=8.0, offset=1.0),
    Case("Kronecker", kronecker, rounding=8.0),
    Case("Transformed(Diagonal)", transformed, rounding=8.0),
    Case("Scaled(Diagonal)", lambda rng: _scaled(rng, diagonal(rng))),
    Case(
        "Blockwise(mixed)",
        _mixed,
        points=_mixed_points,
        dual_magnitudes=(1e-3, 1.0),
        strongly_convex=False,
        closed_inverse_hessian=False,
        rounding=8.0,
        exempt=NOT_STRONGLY_CONVEX,
    ),
    Case(
        "Blockwise(Scaled)",
        _scaled_blocks,
        points=_scaled_points,
        dual_up_to_constant=True,
        constant_in=lambda leaf: leaf == "gain",
        closed_inverse_hessian=False,
        local_over_dual=4.0,
    ),
)


class Sample(NamedTuple):
    """Random arguments for one geometry."""

    geometry: AbstractGeometry
    x: Any
    y: Any
    u: Any
    dual: Any
    gradient: Any
    rate: Any


def draw(case: Case, seed: int, magnitude: float = 1.0, *, generic: bool = False) -> Sample:
    """A geometry with random meta-parameters and points of its domain, from a seed."""
    rng = np.random.default_rng([seed, len(case.name)])
    spread = Spread(magnitude, generic)
    points = [case.points(rng, spread) for _ in range(3)]
    duals = [filled(rng, real(spread)) for _ in range(2)]
    return Sample(case.make(rng), *points, *duals, jnp.asarray(np.exp(rng.uniform(-3, 1))))
