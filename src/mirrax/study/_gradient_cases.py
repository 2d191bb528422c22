r"""Small problems on which every hypergradient is compared with every other, and what is compared.

A network `tanh(F W) g` with six weights and two gains is fitted to twelve rows, and judged on five
others. The prior is a geometry with random numbers, a random start, and a number that scales the
losses; all of them are differentiated. There are two inner problems: a run of `T` steps on
minibatches, and the solution of the Bregman-proximal problem on all rows. With the linear model
`F_1 vec W + F_2 g` either has a closed form in a quadratic geometry.
Source: spec B4, B5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from .._tree import Scalar
from ..geometry import (
    AbstractGeometry,
    AbstractMirrorMap,
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
from ..hypergradient import (
    AbstractHypergradient,
    Direct,
    Evolution,
    Forward,
    Implicit,
    Pathwise,
    Reverse,
    Truncated,
)
from ..inner import (
    AbstractInner,
    AbstractObjective,
    BregmanProximal,
    DualDescent,
    Minibatch,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
)
from ..objective import LipschitzRegretBound, ValidationLoss, WeightedSum

ALL_PARTS = ("geometry", "start", "shared")
RATE = 0.1
RUN_STEPS, SOLVER_STEPS = 6, 400
_NEAR = 0.3
"""The rate of the proximal problem: so near that there is one solution, which moves smoothly."""
_SHAPES = {"dense": {"weight": (3, 2)}, "gain": {"scale": (2,)}}
_ROLES = {"dense": {"weight": ("in", "out")}, "gain": {"scale": ("out",)}}


def _random(rng: np.random.Generator, tree: Any, width: float = 0.4) -> Any:
    """The tree, its numbers moved by as many independent normal ones."""
    return jax.tree.map(
        lambda x: x + width * rng.normal(size=x.shape) if eqx.is_inexact_array(x) else x, tree
    )


def _start(rng: np.random.Generator) -> Any:
    """Positive numbers, so that every geometry has them in its domain."""
    return jax.tree.map(
        lambda shape: jnp.asarray(np.exp(0.4 * rng.normal(size=shape))),
        _SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def _blocks(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda start: Blockwise({"dense": first(start["dense"]), "gain": second(start["gain"])})


def _scaled(inside: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda start: Scaled(inside(start), jnp.zeros(()))


GEOMETRIES: Mapping[str, Callable[[Any], Any]] = {
    "Euclidean": lambda start: Euclidean(),
    "Scaled(NegativeEntropy)": _scaled(lambda start: NegativeEntropy("orthant")),
    "Scaled(PNorm)": _scaled(lambda start: PNorm(1.5)),
    "Diagonal": Diagonal.like,
    "MaxOfDiagonals": lambda start: MaxOfDiagonals.like(
        start, components=2, spread=0.5, key=jax.random.key(5)
    ),
    "Kronecker": Kronecker.like,
    "ConvexPotential": lambda start: ConvexPotential.like(
        start, _ROLES, units=3, reduction=2, key=jax.random.key(6)
    ),
    "Transformed(Diagonal)": lambda start: Transformed.like(Diagonal.like(start), start, _ROLES),
    "Blockwise(Kronecker, Scaled(Diagonal))": _blocks(Kronecker.like, _scaled(Diagonal.like)),
    "BlockIAF": lambda start: BlockIAF.like(
        start, _ROLES, [["dense/weight"], ["gain/scale"]], key=jax.random.key(7)
    ),
    "ModeProducts": lambda start: ModeProducts.identity(start, _ROLES),
    "KroneckerUpdate": lambda start: KroneckerUpdate.identity(start, _ROLES),
    "RandomMask": RandomMask.like,
}
"""How a geometry is made for parameters; its numbers are then drawn."""

STEPWISE = {
    "RandomMask": (
        "a mask is a step function of its logits, differentiated as its smooth version; evolution "
        "strategies, which see the steps, are compared in all other numbers"
    )
}
"""Geometries whose derivative is, by definition, not that of their values."""


def network(params: Any, shared: Any, rows: Any) -> Scalar:
    """`s` times the mean squared error of `tanh(F W) g`."""
    features, values = rows
    found = jnp.tanh(features @ params["dense"]["weight"]) @ params["gain"]["scale"]
    return shared["scale"] * jnp.mean((found - values) ** 2) / 2


def linear(params: Any, shared: Any, rows: Any) -> Scalar:
    """`s` times the mean squared error of a linear model of all eight numbers."""
    features, values = rows
    wide = jnp.concatenate([features, features**2 - 1, features[:, :2] ** 3], axis=1)
    return shared["scale"] * jnp.mean((wide @ ravel_pytree(params)[0] - values) ** 2) / 2


@dataclass(frozen=True)
class GradientCase:
    """A hypergradient to compute: `objective` at the end of `inner` on `problem` from `prior`."""

    objective: AbstractObjective
    inner: AbstractInner
    prior: Prior
    problem: Problem
    steps: int
    key: PRNGKeyArray


def make_case(
    geometry: str, *, solved: bool, quadratic: bool = False, seed: int = 0
) -> GradientCase:
    """One of the problems.

    **Arguments:**

    - `geometry`: a name in `GEOMETRIES`.
    - `solved`: the proximal problem's solution instead of a run.
    - `quadratic`: the linear model, whose objective is the validation loss alone. The network's
      is besides a tenth of a regret bound, where the geometry has one.
    - `seed`: of data, geometry and start, and of the run.

    **Raises:**

    - `ValueError`: from the inner rule's first step, if the geometry has no potential and
      `solved`.
    """
    rng = np.random.default_rng([seed, 11])
    start = _start(rng)
    made = _random(rng, GEOMETRIES[geometry](start))
    rows = [(rng.normal(size=(n, 3)), rng.normal(size=n)) for n in (12, 5)]
    support, query = jax.tree.map(jnp.asarray, rows)
    batches = Repeat(support) if solved or quadratic else Minibatch(support, 4)
    loss = linear if quadratic else network
    judged: AbstractObjective = ValidationLoss()
    if isinstance(made, AbstractGeometry) and made.is_strongly_convex and not quadratic:
        bound = LipschitzRegretBound(0.3, comparator="last")
        judged = WeightedSum(((1.0, judged), (0.1, bound)))
    return GradientCase(
        judged,
        BregmanProximal(_NEAR) if solved else _rule(made),
        Prior(made, start, {"scale": jnp.asarray(1.2)}),
        Problem(loss, batches, query=query),
        SOLVER_STEPS if solved else RUN_STEPS,
        jax.random.key(seed),
    )


def _rule(geometry: Any) -> AbstractInner:
    """The inner rule that a geometry is made for."""
    if isinstance(geometry, AbstractGeometry):
        return MirrorDescent(RATE)
    return (DualDescent if isinstance(geometry, AbstractMirrorMap) else PreconditionedDescent)(RATE)


@dataclass(frozen=True)
class Column:
    """An estimator as it is entered in the matrix.

    **Arguments:**

    - `kind`: `"exact"`, `"approximate"` or `"random"`.
    - `make`: from the number of steps.
    - `about`: what it leaves out, for those that are approximate.
    """

    kind: str
    make: Callable[[int], AbstractHypergradient]
    about: str = ""


def estimators(pairs: int) -> dict[str, Column]:
    """Every estimator, by the name it has in the matrix.

    **Arguments:**

    - `pairs`: of runs, for evolution strategies.
    """
    wrt = ALL_PARTS
    return {
        "Reverse": Column("exact", lambda n: Reverse(n, wrt=wrt)),
        "Reverse, checkpoints": Column("exact", lambda n: Reverse(n, checkpoint=True, wrt=wrt)),
        "Reverse, mixed mode": Column("exact", lambda n: Reverse(n, mixed=True, wrt=wrt)),
        "Forward": Column("exact", lambda n: Forward(n, wrt=wrt)),
        "Truncated, K = T": Column("exact", lambda n: Truncated(n, window=n, wrt=wrt)),
        "Implicit, CG": Column("exact", lambda n: _implicit(n, "cg")),
        "Implicit, Neumann": Column("exact", lambda n: _implicit(n, "neumann")),
        "Implicit, GMRES": Column("exact", lambda n: _implicit(n, "gmres")),
        "Truncated, K = T/2": Column(
            "approximate",
            lambda n: Truncated(n, window=n // 2, wrt=wrt),
            "what a window owes to earlier ones",
        ),
        "Truncated, K = 1": Column(
            "approximate", lambda n: Truncated(n, window=1, wrt=wrt), "all but the last step"
        ),
        "Reverse, first order": Column(
            "approximate", lambda n: Reverse(n, first_order=True, wrt=wrt), "second derivatives"
        ),
        "Direct": Column(
            "approximate", lambda n: Direct(n, wrt=("geometry", "shared")), "the whole run"
        ),
        "Pathwise": Column(
            "approximate",
            lambda n: Pathwise(n, wrt=wrt),
            "all but one step from each point; its value is the mean over the points, its start "
            "moves along the path",
        ),
        "Evolution": Column("random", lambda n: Evolution(n, pairs=pairs, spread=0.01, wrt=wrt)),
        "Evolution, windows": Column(
            "random", lambda n: Evolution(n, pairs=pairs, spread=0.01, window=n // 2, wrt=wrt)
        ),
    }


def _implicit(steps: int, solver: Literal["cg", "neumann", "gmres"]) -> Implicit:
    """Both systems solved to rounding, so that the formula is compared and not a tolerance."""
    return Implicit(
        steps,
        solver=solver,
        wrt=ALL_PARTS,
        tolerance=1e-13,
        linear_tolerance=1e-13,
        linear_steps=20_000,
    )


def differentiated(prior: Prior, parts: tuple[str, ...] = ALL_PARTS) -> Array:
    """The numbers of a prior's parts, flat."""
    kept = [getattr(prior, part) for part in ALL_PARTS if part in parts]
    return ravel_pytree(eqx.filter(kept, eqx.is_inexact_array))[0]
