"""The laws of a geometry, as functions that raise `AssertionError` where one is broken.

They are kept apart from `test_laws` so that deliberately wrong geometries can be shown to fail
them. All run in float64 and on every method through one compiled function a geometry. Tolerances
are multiples of the rounding of one operation, relative to the largest term of each identity: a
law that holds only approximately would have to say so here.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume
from jax.flatten_util import ravel_pytree

from geometries import Case, Sample, draw
from mirrax._tree import dot, leaf_names

EPS = float(np.finfo(np.float64).eps)

UNITS = 32
"""Rounding of a sum of a dozen terms, each the result of a handful of operations."""

METHODS = (
    "to_dual",
    "to_primal",
    "potential",
    "conjugate",
    "divergence",
    "strong_convexity",
    "norm_squared",
    "dual_norm_squared",
    "local_dual_norm_squared",
    "inverse_hessian",
)


def arguments(method: str, sample: Sample) -> tuple[Any, ...]:
    """The arguments of a method, taken from a sample."""
    return {
        "to_dual": (sample.x,),
        "to_primal": (sample.dual,),
        "potential": (sample.x,),
        "conjugate": (sample.dual,),
        "divergence": (sample.x, sample.y),
        "strong_convexity": (),
        "norm_squared": (sample.u,),
        "dual_norm_squared": (sample.gradient,),
        "local_dual_norm_squared": (sample.gradient, sample.x),
        "inverse_hessian": (sample.x, sample.gradient),
    }[method]


def offered(case: Case) -> tuple[str, ...]:
    """The methods that a geometry declares to have."""
    missing = set()
    if not case.strongly_convex:
        missing.add("local_dual_norm_squared")
    if not case.closed_inverse_hessian:
        missing.add("inverse_hessian")
    return tuple(method for method in METHODS if method not in missing)


def everything(methods: tuple[str, ...], sample: Sample) -> dict[str, Any]:
    """The value of every method at a sample."""
    return {
        method: getattr(sample.geometry, method)(*arguments(method, sample)) for method in methods
    }


COMPILER = {"xla_backend_optimization_level": 0}
"""Most of the time of these tests is compilation."""


def _stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _facts(methods: tuple[str, ...], sample: Sample) -> dict[str, Any]:
    geometry, gradient = sample.geometry, sample.gradient
    points = _stack(sample.x, sample.y, sample.u)

    def at_point(x: Any) -> dict[str, Any]:
        potential, slope = jax.value_and_grad(geometry.potential)(x)
        return {"potential": potential, "slope": slope, "to_dual": geometry.to_dual(x)}

    primal_side = jax.vmap(at_point)(points)
    x_dual = jax.tree.map(lambda leaf: leaf[0], primal_side["to_dual"])
    pushed = jax.tree.map(lambda p, g: p - sample.rate * g, x_dual, gradient)

    def at_dual(z: Any) -> dict[str, Any]:
        flat, unravel = ravel_pytree(z)

        def twice(v: Any) -> Any:
            primal = geometry.to_primal(unravel(v))
            return ravel_pytree(primal)[0], primal

        jacobian, primal = jax.jacfwd(twice, has_aux=True)(flat)
        conjugate, slope = jax.value_and_grad(geometry.conjugate)(z)
        return {"to_primal": primal, "jacobian": jacobian, "conjugate": conjugate, "slope": slope}

    def from_points(x: Any) -> Any:
        return jax.vmap(lambda y: geometry.divergence(x, y))(points)

    steepest = jax.grad(lambda g: geometry.dual_norm_squared(g) / 2)(gradient)
    away = jax.tree.map(jnp.subtract, sample.x, sample.y)
    norms = jax.vmap(geometry.norm_squared)(_stack(sample.u, steepest, away))
    found = {
        "primal_side": primal_side,
        "dual_side": jax.vmap(at_dual)(_stack(sample.dual, x_dual, pushed)),
        "divergences": jax.vmap(from_points)(points),
        "pushed": pushed,
        "steepest": steepest,
        "norms_squared": norms,
        "dual_norm_squared": geometry.dual_norm_squared(gradient),
        "strong_convexity": geometry.strong_convexity(),
        "jacobian_bounds": jnp.stack(geometry.jacobian_bounds()),
    }
    flat, unravel = ravel_pytree(gradient)
    found["unit_dual_norms_squared"] = jax.vmap(lambda e: geometry.dual_norm_squared(unravel(e)))(
        jnp.eye(len(flat))
    )
    if "local_dual_norm_squared" in methods:
        found["local"] = geometry.local_dual_norm_squared(gradient, sample.x)
    if "inverse_hessian" in methods:
        direction = geometry.inverse_hessian(sample.x, gradient)
        slope_at = jax.grad(geometry.potential)
        found["hessian_of_it"] = jax.jvp(slope_at, (sample.x,), (direction,))[1]
    return found


@functools.cache
def _evaluator(methods: tuple[str, ...]) -> Any:
    # One function for all cases with these methods: those of one structure are compiled once.
    return jax.jit(functools.partial(_facts, methods), compiler_options=COMPILER)


class Facts(NamedTuple):
    """What the algebraic laws are about, under the names that they use."""

    to_dual: Any
    y_dual: Any
    u_dual: Any
    potential_gradient: Any
    x_potential: Any
    y_potential: Any
    divergence: Any
    x_x: Any
    x_u: Any
    y_u: Any
    conjugate: Any
    conjugate_gradient: Any
    to_primal: Any
    jacobian: Any
    x_dual_conjugate: Any
    x_back: Any
    pushed: Any
    pushed_conjugate: Any
    steepest: Any
    norm_squared: Any
    steepest_norm_squared: Any
    distance_squared: Any
    dual_norm_squared: Any
    strong_convexity: Any
    jacobian_bounds: Any
    unit_dual_norms_squared: Any
    local: Any
    hessian_of_it: Any


def facts(case: Case, sample: Sample) -> Facts:
    """The values of everything at a sample, from one compiled function, as numpy arrays."""
    found = jax.tree.map(np.asarray, _evaluator(offered(case))(sample))

    def rows(tree: Any) -> list[Any]:
        return [jax.tree.map(lambda leaf: leaf[i], tree) for i in range(3)]  # noqa: B023

    x, y, u = rows(found["primal_side"])
    free, at_x, pushed = rows(found["dual_side"])
    norms = found["norms_squared"]
    return Facts(
        to_dual=x["to_dual"],
        y_dual=y["to_dual"],
        u_dual=u["to_dual"],
        potential_gradient=x["slope"],
        x_potential=x["potential"],
        y_potential=y["potential"],
        divergence=found["divergences"][0, 1],
        x_x=found["divergences"][0, 0],
        x_u=found["divergences"][0, 2],
        y_u=found["divergences"][1, 2],
        conjugate=free["conjugate"],
        conjugate_gradient=free["slope"],
        to_primal=free["to_primal"],
        jacobian=free["jacobian"],
        x_dual_conjugate=at_x["conjugate"],
        x_back=at_x["to_primal"],
        pushed=found["pushed"],
        pushed_conjugate=pushed["conjugate"],
        steepest=found["steepest"],
        norm_squared=norms[0],
        steepest_norm_squared=norms[1],
        distance_squared=norms[2],
        dual_norm_squared=found["dual_norm_squared"],
        strong_convexity=found["strong_convexity"],
        jacobian_bounds=found["jacobian_bounds"],
        unit_dual_norms_squared=found["unit_dual_norms_squared"],
        local=found.get("local"),
        hessian_of_it=found.get("hessian_of_it"),
    )


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _abs_dot(a: Any, b: Any) -> float:
    return float(np.abs(_flat(a)) @ np.abs(_flat(b)))


def _pairing(a: Any, b: Any) -> float:
    return float(_flat(a) @ _flat(b))


def _up_to_constant(case: Case, dual: Any) -> Any:
    """One representative of a dual, where it is only defined up to a constant."""
    if not case.dual_up_to_constant:
        return dual
    leaves, structure = jax.tree.flatten(dual)
    centred = [
        leaf - leaf.mean(axis=-1, keepdims=True) if case.constant_in(name) else leaf
        for name, leaf in zip(leaf_names(dual), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, centred)


def _slack(case: Case, *terms: Any) -> float:
    """What rounding may do to a sum of these terms."""
    return UNITS * case.rounding * EPS * float(sum(np.abs(term) for term in terms))


def _close(case: Case, a: Any, b: Any) -> None:
    """Two trees agree relative to the largest entry of each leaf."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    largest = max(np.max(np.abs(_flat(a))), np.max(np.abs(_flat(b))), case.offset)
    np.testing.assert_allclose(_flat(a), _flat(b), rtol=0, atol=_slack(case, largest))


# --- the laws ---------------------------------------------------------------------------------


def nonnegative(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖y) ≥ 0`."""
    slack = _slack(case, found.x_potential, found.y_potential)
    slack += _slack(case, _abs_dot(found.y_dual, sample.x), _abs_dot(found.y_dual, sample.y))
    assert found.divergence >= -slack


def zero_at_itself(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖x) = 0`, exactly but for the last place of the potential."""
    assert abs(found.x_x) <= _slack(case, found.x_potential) / UNITS


def is_bregman(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖y) = ψ(x) − ψ(y) − ⟨∇ψ(y), x − y⟩`, the definition."""
    away = jax.tree.map(np.subtract, sample.x, sample.y)
    expected = found.x_potential - found.y_potential - _pairing(found.y_dual, away)
    slack = _slack(case, found.x_potential, found.y_potential)
    slack += _slack(case, _abs_dot(found.y_dual, sample.x), _abs_dot(found.y_dual, sample.y))
    np.testing.assert_allclose(found.divergence, expected, rtol=0, atol=slack)


def quadratic(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖y) = ½⟨∇ψ(x) − ∇ψ(y), x − y⟩` where the geometry says that `ψ` is quadratic."""
    if not sample.geometry.is_quadratic:
        return
    turn = jax.tree.map(np.subtract, found.to_dual, found.y_dual)
    away = jax.tree.map(np.subtract, sample.x, sample.y)
    duals, points = (found.to_dual, found.y_dual), (sample.x, sample.y)
    slack = _slack(case, *(_abs_dot(dual, point) for dual in duals for point in points))
    np.testing.assert_allclose(found.divergence, _pairing(turn, away) / 2, rtol=0, atol=slack)


def three_points(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖u) = D(x‖y) + D(y‖u) + ⟨∇ψ(y) − ∇ψ(u), x − y⟩`."""
    turn = jax.tree.map(np.subtract, found.y_dual, found.u_dual)
    away = jax.tree.map(np.subtract, sample.x, sample.y)
    right = found.divergence + found.y_u + _pairing(turn, away)
    scale = [found.x_potential, found.y_potential, found.x_u, found.y_u]
    scale += [_abs_dot(dual, x) for dual in (found.y_dual, found.u_dual) for x in sample[1:4]]
    np.testing.assert_allclose(found.x_u, right, rtol=0, atol=_slack(case, *scale))


def fenchel_young(case: Case, sample: Sample, found: Facts) -> None:
    """`ψ(x) + ψ*(z) ≥ ⟨z, x⟩`, with equality at `z = ∇ψ(x)`."""
    z = found.to_dual
    total = found.x_potential + found.x_dual_conjugate
    slack = _slack(case, found.x_potential, found.x_dual_conjugate, _abs_dot(z, sample.x))
    np.testing.assert_allclose(total, _pairing(z, sample.x), rtol=0, atol=slack)
    total = found.x_potential + found.conjugate
    pairing = _pairing(sample.dual, sample.x)
    slack = _slack(case, found.x_potential, found.conjugate, _abs_dot(sample.dual, sample.x))
    assert total >= pairing - slack


def round_trip(case: Case, sample: Sample, found: Facts) -> None:
    """`∇ψ*(∇ψ(x)) = x`; the other order is not a law where the dual is a set."""
    _close(case, found.x_back, jax.tree.map(np.asarray, sample.x))


def dual_is_gradient(case: Case, sample: Sample, found: Facts) -> None:
    """`to_dual = ∇ψ`, as differentiated."""
    expected = _up_to_constant(case, found.potential_gradient)
    _close(case, _up_to_constant(case, found.to_dual), expected)


def primal_is_gradient(case: Case, sample: Sample, found: Facts) -> None:
    """`to_primal = ∇ψ*`, as differentiated; the conjugate is smooth even where `ψ` is not."""
    _close(case, found.to_primal, found.conjugate_gradient)


def symmetric_jacobian(case: Case, sample: Sample, found: Facts) -> None:
    """`∂ to_primal/∂z` is symmetric and positive semi-definite, or there is no potential."""
    jacobian = found.jacobian
    # A softmax's Jacobian, diag(x) − xxᵀ, cancels where it saturates: it errs relative to x ≤ 1.
    slack = _slack(case, np.max(np.abs(jacobian)), float(case.dual_up_to_constant))
    np.testing.assert_allclose(jacobian, jacobian.T, rtol=0, atol=slack)
    assert np.linalg.eigvalsh((jacobian + jacobian.T) / 2).min() >= -slack


def jacobian_bounds(case: Case, sample: Sample, found: Facts) -> None:
    """Eigenvalues of `∂ to_primal/∂z` lie between the bounds, which hold at every point."""
    lower, upper = found.jacobian_bounds
    values = np.linalg.eigvalsh((found.jacobian + found.jacobian.T) / 2)
    slack = _slack(case, values[-1], float(case.dual_up_to_constant))  # as symmetric_jacobian
    assert 0 <= lower <= values[0] + slack and values[-1] - slack <= upper


def strong_convexity(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖y) ≥ (λ/2) ‖x − y‖²` with `λ > 0`, and the same of the conjugate.

    `ψ*` is then `1/λ`-smooth, `⟨e, J e⟩ ≤ ‖e‖_*²/λ` with the Jacobian `J` of `to_primal`. Along
    the coordinates `e` this is sharp, where random pairs of points miss the worst direction.
    """
    modulus = found.strong_convexity
    assert modulus > 0
    assert sample.geometry.is_strongly_convex
    slack = _slack(case, found.x_potential, found.y_potential)
    slack += _slack(case, _abs_dot(found.y_dual, sample.x), _abs_dot(found.y_dual, sample.y))
    assert found.divergence >= modulus / 2 * found.distance_squared - slack
    limits = found.unit_dual_norms_squared / modulus
    assert np.all(np.diag(found.jacobian) <= limits * (1 + _slack(case, 1.0)))


def dual_norms(case: Case, sample: Sample, found: Facts) -> None:
    """`|⟨g, v⟩| ≤ ‖g‖_* ‖v‖`, and `v = ∇ ½‖g‖_*²` attains it with `‖v‖ = ‖g‖_*`."""
    norms = np.sqrt(found.norm_squared * found.dual_norm_squared)
    paired = abs(_pairing(sample.gradient, sample.u))
    assert paired <= norms + _slack(case, _abs_dot(sample.gradient, sample.u))
    squared = found.dual_norm_squared
    slack = _slack(case, squared)
    np.testing.assert_allclose(found.steepest_norm_squared, squared, rtol=0, atol=slack)
    reached = _pairing(sample.gradient, found.steepest)
    np.testing.assert_allclose(reached, squared, rtol=0, atol=slack)


def step_bound(case: Case, sample: Sample, found: Facts) -> None:
    """`D(x‖x⁺) ≤ (η²/2) ‖g‖²_{x,*}` for the mirror step `∇ψ(x⁺) = ∇ψ(x) − ηg`.

    The divergence is written with the dual that the step keeps, `ψ(x) + ψ*(p⁺) − ⟨p⁺, x⟩`: at a
    kink `to_dual(x⁺)` may be another element of the subdifferential.
    """
    lost = found.x_potential + found.pushed_conjugate - _pairing(found.pushed, sample.x)
    slack = _slack(case, found.x_potential, found.pushed_conjugate)
    slack += _slack(case, _abs_dot(found.pushed, sample.x))
    assert lost <= float(sample.rate) ** 2 / 2 * found.local + slack


def local_below_dual(case: Case, sample: Sample, found: Facts) -> None:
    """`‖g‖²_{x,*} ≤ κ ‖g‖_*²/λ`, with `κ = 1` but where a case declares more."""
    limit = case.local_over_dual * found.dual_norm_squared / found.strong_convexity
    assert 0 <= found.local <= limit * (1 + _slack(case, 1.0))


def inverse_hessian(case: Case, sample: Sample, found: Facts) -> None:
    """`∇²ψ(x) [∇²ψ(x)]⁻¹ g = g`."""
    _close(case, found.hessian_of_it, jax.tree.map(np.asarray, sample.gradient))


ALGEBRAIC = (
    nonnegative,
    zero_at_itself,
    is_bregman,
    quadratic,
    three_points,
    fenchel_young,
    round_trip,
    dual_is_gradient,
    primal_is_gradient,
    symmetric_jacobian,
    jacobian_bounds,
    strong_convexity,
    dual_norms,
    step_bound,
    local_below_dual,
    inverse_hessian,
)


# --- derivatives ------------------------------------------------------------------------------

STEP = 1e-5
"""Central differences err by `STEP²` times third derivatives, and round by `EPS/STEP`."""


@functools.cache
def _differentiator(methods: tuple[str, ...]) -> Any:
    """Values, forward and reverse derivatives and central differences of every method."""
    function = functools.partial(everything, methods)

    def differentiate(sample: Sample, tangent: Sample, weights: dict[str, Any]) -> Any:
        values, push = jax.linearize(function, sample)
        (pulled,) = jax.linear_transpose(push, sample)(weights)
        shifts = jnp.array([STEP, -STEP, 0.0])
        moved = jax.tree.map(lambda a, b: jax.vmap(lambda h: a + h * b)(shifts), sample, tangent)
        batch = jax.vmap(function)(moved)
        return values, push(tangent), dot(pulled, tangent), batch

    return jax.jit(differentiate, compiler_options=COMPILER)


class Derivatives(NamedTuple):
    """Derivatives of every method along one random direction of everything at once."""

    values: dict[str, Any]
    forward: dict[str, Any]
    reverse: float
    """`Σ ⟨weights, derivative⟩` over all methods, by one reverse pass."""
    weights: dict[str, Any]
    batch: dict[str, Any]
    """Values at `+STEP`, `−STEP` and 0 along the direction, by vmap."""


@functools.cache
def _outputs(case: Case) -> dict[str, Any]:
    return jax.eval_shape(functools.partial(everything, offered(case)), draw(case, 0))


def differentiate(case: Case, sample: Sample, seed: int) -> Derivatives:
    """Moves the meta-parameters and all points at once along one random direction."""
    rng = np.random.default_rng(seed)

    def noise(leaf: Any) -> Any:
        return jnp.asarray(rng.normal(size=jnp.shape(leaf)))

    tangent = jax.tree.map(noise, sample)
    weights = jax.tree.map(noise, _outputs(case))
    found = _differentiator(offered(case))(sample, tangent, weights)
    values, forward, reverse, batch = jax.tree.map(np.asarray, found)
    return Derivatives(values, forward, float(reverse), weights, batch)


def _size(*trees: Any) -> float:
    return max(float(np.max(np.abs(_flat(tree)))) for tree in trees)


def derivatives(case: Case, sample: Sample, seed: int) -> None:
    """Forward mode = central differences, method by method, and reverse mode = forward mode.

    A draw within `STEP` of a kink (where two entries compete for a minimum, say) is rejected: the
    slopes on its two sides differ by much more than `STEP`. Wrong derivatives do not show so.
    """
    found = differentiate(case, sample, seed)
    for name, forward in found.forward.items():
        ahead, behind, here = (
            _flat(jax.tree.map(lambda end: end[i], found.batch[name]))  # noqa: B023
            for i in range(3)
        )
        scale = 1 + _size(forward, found.values[name])
        bend = np.max(np.abs(ahead + behind - 2 * here)) / STEP
        assume(bend <= 1e-2 * scale)
        error = np.max(np.abs(_flat(forward) - (ahead - behind) / (2 * STEP)))
        assert error <= 1e-7 * scale, (name, error)
    pairs = [(found.weights[name], forward) for name, forward in found.forward.items()]
    total = sum(_pairing(*pair) for pair in pairs)
    # The shares of the many inputs, which reverse mode adds up last, can cancel in the total.
    slack = 1e3 * _slack(case, *(_abs_dot(*pair) for pair in pairs))
    assert abs(found.reverse - total) <= slack, (found.reverse, total)


def vmap_is_loop(case: Case, sample: Sample, seed: int) -> None:
    """Every method under vmap, over meta-parameters and points, as without it."""
    found = differentiate(case, sample, seed)
    for name, value in found.values.items():
        same = jax.tree.map(lambda leaf: leaf[2], found.batch[name])
        slack = _slack(case, _size(value))
        np.testing.assert_allclose(_flat(same), _flat(value), rtol=0, atol=slack, err_msg=name)


def jit_is_eager(case: Case, sample: Sample, seed: int) -> None:
    """Every method compiled, as operation by operation."""
    eager = everything(offered(case), sample)
    for name, value in differentiate(case, sample, seed).values.items():
        slack = _slack(case, _size(value))
        np.testing.assert_allclose(
            _flat(eager[name]), _flat(value), rtol=0, atol=slack, err_msg=name
        )


def dtype_is_kept(case: Case, sample: Sample) -> None:
    """Every method of float32 arguments gives float32, under strict promotion and x64."""
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), sample)
    for name in offered(case):
        output = jax.eval_shape(functools.partial(everything, (name,)), single)
        for leaf in jax.tree.leaves(output):
            # A Python number, such as the modulus 1, is weak: it takes the type of what it meets.
            assert leaf.dtype == jnp.float32 or leaf.weak_type, name


DIFFERENTIAL = (derivatives, vmap_is_loop)
