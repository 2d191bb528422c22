"""Every registered geometry against every law, and wrong geometries against the laws they break.

A law that a geometry declares itself exempt from appears as a skip with the declared reason.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import laws
from geometries import CASES, NOT_STRONGLY_CONVEX, Case, Sample, diagonal, draw, maximum
from mirrax import geometry as public
from mirrax.geometry import AbstractGeometry

EXAMPLES = settings(max_examples=20, deadline=None, derandomize=True, database=None)
FEW = settings(EXAMPLES, max_examples=6)
UNSHRUNK = settings(EXAMPLES, phases=(Phase.generate,))
SEEDS = st.integers(0, 2**32 - 1)
NO_INVERSE_HESSIAN = "declared: no closed-form inverse Hessian"


@functools.lru_cache(maxsize=256)
def seen(
    case: Case, seed: int, magnitude: float, dual_magnitude: float
) -> tuple[Sample, laws.Facts]:
    """Points of one magnitude, duals and gradients of another, and what follows from them.

    All laws of a case see the same draws, so each draw is evaluated once.
    """
    sample = draw(case, seed, magnitude)

    def resized(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf / magnitude * dual_magnitude, tree)

    sample = sample._replace(dual=resized(sample.dual), gradient=resized(sample.gradient))
    return sample, laws.facts(case, sample)


def hold(case: Case, law: Callable[..., None], effort: settings = EXAMPLES) -> None:
    """Tries an algebraic law on many draws: tiny, ordinary and large points, with zeros."""

    @effort
    @given(SEEDS, st.sampled_from((1.0, 1e-3, 1e3)), st.sampled_from(case.dual_magnitudes))
    def check(seed: int, magnitude: float, dual_magnitude: float) -> None:
        law(case, *seen(case, seed, magnitude, dual_magnitude))

    check()


def hold_generic(case: Case, law: Callable[..., None], effort: settings = FEW) -> None:
    """Tries a law about derivatives on a few draws away from zeros."""

    @effort
    @given(SEEDS)
    def check(seed: int) -> None:
        law(case, draw(case, seed, generic=True), seed)

    check()


REPEATS = (
    *("PNorm(1.1)", "PNorm(2.0)", "PNorm(2.0, separable)", "PNorm(3.0, separable)"),
    *("MaxOfDiagonals(1)", "MaxOfDiagonals(2)", "MaxOfDiagonals(5)"),
)
"""Cases of another exponent or number of components; each compiles as long as a new geometry."""


def _grid() -> list[Any]:
    """Case by case, so that each of several test processes compiles its own cases only."""
    grid = []
    for case in CASES:
        for law in (*laws.ALGEBRAIC, *laws.DIFFERENTIAL):
            name = law.__name__
            reason = case.exempt.get(name)
            if name == "inverse_hessian" and not case.closed_inverse_hessian:
                reason = NO_INVERSE_HESSIAN
            marks = [pytest.mark.skip(reason=reason)] if reason else []
            marks += [pytest.mark.slow] if case.name in REPEATS else []
            grid.append(pytest.param(case, law, marks=marks, id=f"{case.name}-{name}"))
    return grid


@pytest.mark.parametrize(("case", "law"), _grid())
def test_law(case: Case, law: Callable[..., None]) -> None:
    (hold if law in laws.ALGEBRAIC else hold_generic)(case, law)


EAGER = ("Diagonal", "MaxOfDiagonals(3)")
"""No geometry branches on values but the one with a solver, which compiles anew at each call."""


@pytest.mark.parametrize("case", [c for c in CASES if c.name in EAGER], ids=str)
def test_jit_is_eager(case: Case) -> None:
    laws.jit_is_eager(case, draw(case, 0, generic=True), 0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dtype_is_kept(case: Case) -> None:
    laws.dtype_is_kept(case, draw(case, 0))


# --- the registry itself ----------------------------------------------------------------------


def _classes_in(geometry: AbstractGeometry) -> set[str]:
    nodes, found = [geometry], set()
    while nodes:
        node = nodes.pop()
        found.add(type(node).__name__)
        fields = [getattr(node, name) for name in node.__dataclass_fields__]
        inside = jax.tree.leaves(fields, is_leaf=lambda n: isinstance(n, AbstractGeometry))
        nodes += [leaf for leaf in inside if isinstance(leaf, AbstractGeometry)]
    return found


def test_every_public_geometry_is_registered() -> None:
    registered = set().union(*(_classes_in(draw(case, 0).geometry) for case in CASES))
    exported = {
        name
        for name, thing in vars(public).items()
        if isinstance(thing, type) and issubclass(thing, AbstractGeometry)
    }
    assert exported - {"AbstractGeometry"} == registered


def test_every_method_is_under_the_laws() -> None:
    methods = {name for name in vars(AbstractGeometry) if not name.startswith("_")}
    inherited = {"to_dual", "to_primal"}
    # Bounds may be infinite, so they have a law but no derivatives; properties have no numbers.
    of_numbers = methods - {"is_strongly_convex", "is_quadratic", "jacobian_bounds"}
    assert of_numbers | inherited == set(laws.METHODS)


def test_repeats_are_cases() -> None:
    assert set(REPEATS) < {case.name for case in CASES}


def test_declared_exemptions_name_laws() -> None:
    known = {law.__name__ for law in (*laws.ALGEBRAIC, *laws.DIFFERENTIAL)}
    assert all(set(case.exempt) <= known for case in CASES)


@pytest.mark.parametrize("case", [c for c in CASES if not c.strongly_convex], ids=str)
def test_without_strong_convexity_bounds_are_refused(case: Case) -> None:
    sample = draw(case, 0)
    assert not sample.geometry.is_strongly_convex
    assert sample.geometry.strong_convexity() == 0
    with pytest.raises(ValueError, match="local_dual_norm_squared: .* is not strongly convex"):
        sample.geometry.local_dual_norm_squared(sample.gradient, sample.x)


@pytest.mark.parametrize("case", [c for c in CASES if not c.closed_inverse_hessian], ids=str)
def test_without_closed_inverse_hessian_it_is_refused(case: Case) -> None:
    sample = draw(case, 0)
    with pytest.raises(ValueError, match="inverse_hessian: this geometry has no closed-form"):
        sample.geometry.inverse_hessian(sample.x, sample.gradient)


# --- wrong geometries -------------------------------------------------------------------------


class Wrong(AbstractGeometry):
    """A geometry with some of its methods replaced by wrong ones."""

    right: AbstractGeometry
    wrong: tuple[tuple[str, Callable[..., Any]], ...] = eqx.field(static=True)

    def _call(self, name: str, *args: Any) -> Any:
        replaced = dict(self.wrong).get(name)
        return replaced(self.right, *args) if replaced else getattr(self.right, name)(*args)

    def to_dual(self, primal: Any) -> Any:
        return self._call("to_dual", primal)

    def to_primal(self, dual: Any) -> Any:
        return self._call("to_primal", dual)

    def potential(self, primal: Any) -> Any:
        return self._call("potential", primal)

    def conjugate(self, dual: Any) -> Any:
        return self._call("conjugate", dual)

    def divergence(self, primal: Any, reference: Any) -> Any:
        return self._call("divergence", primal, reference)

    @property
    def is_quadratic(self) -> bool:
        return "is_quadratic" in dict(self.wrong)

    def strong_convexity(self) -> Any:
        return self._call("strong_convexity")

    def jacobian_bounds(self) -> Any:
        return self._call("jacobian_bounds")

    def norm_squared(self, displacement: Any) -> Any:
        return self._call("norm_squared", displacement)

    def dual_norm_squared(self, gradient: Any) -> Any:
        return self._call("dual_norm_squared", gradient)

    def local_dual_norm_squared(self, gradient: Any, primal: Any) -> Any:
        return self._call("local_dual_norm_squared", gradient, primal)

    def inverse_hessian(self, primal: Any, gradient: Any) -> Any:
        return self._call("inverse_hessian", primal, gradient)


def _asymmetric(right: AbstractGeometry, dual: Any) -> Any:
    """The last gain also sees the first: a triangular map, like an autoregressive one."""
    primal = right.to_primal(dual)
    gain = primal["gain"]
    return primal | {"gain": gain.at[1].add(0.5 * gain[0])}


def _asymmetric_back(right: AbstractGeometry, primal: Any) -> Any:
    gain = primal["gain"]
    return right.to_dual(primal | {"gain": gain.at[1].add(-0.5 * gain[0])})


def _first_component(right: Any, dual: Any) -> Any:
    """Inverts the active branch at the wrong place, as the printed step of S000 does."""
    return jax.tree.map(lambda c, z: z / c[0], right.curvatures, dual)


def _frozen(right: AbstractGeometry, dual: Any) -> Any:
    """A conjugate map whose meta-parameters get no gradient."""
    return jax.lax.stop_gradient(right).to_primal(dual)


def _most_curved(right: Any, gradient: Any, primal: Any) -> Any:
    """The norm of the largest curvature of every coordinate, where the smallest is a bound."""
    steps = jax.tree.map(lambda c, g: g / jnp.max(c, axis=0), right.curvatures, gradient)
    return laws.dot(gradient, steps)


def _largest(tree: Any) -> Any:
    return jnp.max(jnp.stack([jnp.max(leaf) for leaf in jax.tree.leaves(tree)]))


def _upcast(right: AbstractGeometry, primal: Any) -> Any:
    return right.potential(primal).astype(jnp.float64)


MUTANTS: dict[str, tuple[Any, dict[str, Callable[..., Any]], tuple[str, ...]]] = {
    "a mirror map with an asymmetric Jacobian": (
        diagonal,
        {"to_primal": _asymmetric, "to_dual": _asymmetric_back},
        ("symmetric_jacobian", "dual_is_gradient", "primal_is_gradient", "fenchel_young"),
    ),
    "a divergence without its half": (
        diagonal,
        {"divergence": lambda right, x, y: 2 * right.divergence(x, y)},
        ("is_bregman", "three_points"),
    ),
    "a divergence with its arguments exchanged": (
        maximum(2),
        {"divergence": lambda right, x, y: right.divergence(y, x)},
        ("is_bregman", "three_points"),
    ),
    "a maximum that calls itself quadratic": (
        maximum(2),
        {"is_quadratic": lambda right: True},
        ("quadratic",),
    ),
    "min m for the modulus min m²": (
        diagonal,
        {"strong_convexity": lambda right: jnp.sqrt(right.strong_convexity())},
        ("strong_convexity",),
    ),
    "a conjugate without its half": (
        diagonal,
        {"conjugate": lambda right, z: 2 * right.conjugate(z)},
        ("fenchel_young", "primal_is_gradient"),
    ),
    "a dual norm that is too small": (
        diagonal,
        {"dual_norm_squared": lambda right, g: right.dual_norm_squared(g) / 4},
        ("dual_norms",),
    ),
    "a step bound in the largest curvatures": (
        maximum(2),
        {"local_dual_norm_squared": _most_curved},
        ("step_bound",),
    ),
    "one fixed component inverted": (
        maximum(2),
        {"to_primal": _first_component},
        ("round_trip", "primal_is_gradient"),
    ),
    "a stopped gradient in the inverse map": (
        diagonal,
        {"to_primal": _frozen},
        ("derivatives",),
    ),
    "a Jacobian bounded by its smallest eigenvalue": (
        diagonal,
        {"jacobian_bounds": lambda right: (0.0, 1 / _largest(right.diagonal) ** 2)},
        ("jacobian_bounds",),
    ),
    "an inverse Hessian without its square": (
        diagonal,
        {"inverse_hessian": lambda right, x, g: jax.tree.map(jnp.divide, g, right.diagonal)},
        ("inverse_hessian",),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_geometry_is_caught(name: str) -> None:
    make, wrong, broken = MUTANTS[name]

    def mutate(rng: Any) -> Wrong:
        return Wrong(make(rng), tuple(wrong.items()))

    case = Case(name, mutate, rounding=8.0)
    for law in broken:
        run = hold if getattr(laws, law) in laws.ALGEBRAIC else hold_generic
        with pytest.raises(AssertionError):
            run(case, getattr(laws, law), UNSHRUNK)


def test_every_law_catches_something() -> None:
    caught = {law for _, _, broken in MUTANTS.values() for law in broken}
    beyond = {"nonnegative", "zero_at_itself", "local_below_dual", "vmap_is_loop"}
    every = {law.__name__ for law in (*laws.ALGEBRAIC, *laws.DIFFERENTIAL)}
    assert every - beyond == caught


def test_upcast_is_caught() -> None:
    def mutate(rng: Any) -> Wrong:
        return Wrong(diagonal(rng), (("potential", _upcast),))

    case = Case("an upcast potential", mutate)
    with pytest.raises(AssertionError, match="potential"):
        laws.dtype_is_kept(case, draw(case, 0))


def test_false_declarations_are_caught() -> None:
    orthant = next(case for case in CASES if case.name == "NegativeEntropy(orthant)")
    boastful = replace(orthant, exempt={}, strongly_convex=True)
    assert set(orthant.exempt) == set(NOT_STRONGLY_CONVEX)
    with pytest.raises(ValueError, match="not strongly convex"):
        hold(boastful, laws.strong_convexity, UNSHRUNK)
    simplex = next(case for case in CASES if case.name == "NegativeEntropy(simplex)")
    with pytest.raises(AssertionError):
        hold(replace(simplex, local_over_dual=1.0), laws.local_below_dual, UNSHRUNK)
