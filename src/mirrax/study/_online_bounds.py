r"""How far the bounds of S002 lie above what they bound, on random convex problems.

With 12 standard normal rows `a_i` in four dimensions, the columns of `A` scaled from 0.1 to 1, and
a standard normal `b`, the problems are

- quadratic: `½ ‖A x − b‖²`, of smoothness `λ_max(AᵀA)`;
- logistic: `Σ_i log(1 + exp(a_iᵀx + b_i)) + ½ ‖x‖²`, of smoothness `λ_max(AᵀA)/4 + 1`;
- soft maximum: `log Σ_i exp(a_iᵀx + b_i) + ½ ‖x‖²`, of smoothness at most `max_i ‖a_i‖² + 1`.

On each, Algorithms 2 and 4 run with a constant rule `Φ(x, w) = M w`, for which regret is preserved
and Theorem 1 and Corollary 1 promise rates, and with the rule `Φ(x, w) = x − w ⊙ ∇f(x)`, for which
Theorem 2 holds with the capacity as it was. The leader alone plays over the unit ball.
Sources: S002 eq. 5, Theorems 1 and 2, Corollary 1, corrected as in `certificate`; spec C3, C4.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from .. import report
from ..certificate import GapCertificate, gap_certificate, rate_with_hints, rate_without_hints
from ..online import FTRL, ConvexMeta, Hint, last_gradient, linear_weights, no_hint
from ._config import positive
from ._reproduction import Reproduction, Request, budgets

DIM = 4
_ROWS = 12
_SMOKE = {"problems": 4, "rounds": 10}
_COMPARATORS = (0.0, 1.0, 2.0)  # times `w_1`
_ROUNDING = 1e-12  # relative to the bound: eq. 5 is an equality after one round


@dataclasses.dataclass(frozen=True)
class BoundStudy:
    """Bounds beside what they bound.

    **Arguments:**

    - `problems`: how many of each of the three kinds.
    - `rounds`: the length of a run.
    """

    problems: int = 80
    rounds: int = 40

    def __post_init__(self):
        """Checks every number."""
        positive(self, "problems", "rounds")


def _quadratic(rows: Array, shift: Array, x: Array) -> Array:
    return jnp.sum((rows @ x - shift) ** 2) / 2


def _logistic(rows: Array, shift: Array, x: Array) -> Array:
    return jnp.sum(jax.nn.softplus(rows @ x + shift)) + jnp.sum(x**2) / 2


def _soft_maximum(rows: Array, shift: Array, x: Array) -> Array:
    return logsumexp(rows @ x + shift) + jnp.sum(x**2) / 2


def largest(matrix: Array) -> Array:
    """`λ_max(AᵀA)`."""
    return jnp.linalg.eigvalsh(matrix.T @ matrix)[-1]


LOSSES = {
    "quadratic": (_quadratic, largest),
    "logistic": (_logistic, lambda rows: largest(rows) / 4 + 1),
    "soft maximum": (_soft_maximum, lambda rows: jnp.max(jnp.sum(rows**2, axis=1)) + 1),
}
"""The kinds: the loss of rows, shift and point, and a constant no less than its smoothness."""


class ConvexProblem(NamedTuple):
    """A function to minimise, its smoothness `L`, and its minimiser."""

    loss: Callable[[Array], Array]
    smoothness: Array
    optimum: Float[Array, " 4"]


def draw_problem(kind: Array | int, key: PRNGKeyArray) -> ConvexProblem:
    """A random problem.

    **Arguments:**

    - `kind`: its place in `LOSSES`; may be traced, so that all kinds are one program.
    - `key`: a JAX random key.
    """
    losses, smoothness = zip(*LOSSES.values(), strict=True)
    rows_key, shift_key = jax.random.split(key)
    rows = jax.random.normal(rows_key, (_ROWS, DIM)) * jnp.geomspace(0.1, 1, DIM)
    shift = jax.random.normal(shift_key, (_ROWS,))

    def loss(x: Array) -> Array:
        return jnp.stack([one(rows, shift, x) for one in losses])[kind]

    return ConvexProblem(loss, jnp.stack([one(rows) for one in smoothness])[kind], newton(loss))


def newton(loss: Callable[[Array], Array]) -> Float[Array, " 4"]:
    """The minimiser, by Newton steps from the origin, damped so that the slope falls most."""
    slope, hessian = jax.grad(loss), jax.hessian(loss)

    def step(_: int, x: Array) -> Array:
        direction = jnp.linalg.solve(hessian(x), slope(x))
        points = x - 0.5 ** jnp.arange(20.0)[:, None] * direction
        return points[jnp.argmin(jnp.linalg.norm(jax.vmap(slope)(points), axis=1))]

    return jax.lax.fori_loop(0, 40, step, jnp.zeros(DIM))


class Promised(NamedTuple):
    """Runs of the constant rule, each without and with hints.

    **Arguments:**

    - `certificates`: of Theorem 2.
    - `rates`: what Theorem 1 and Corollary 1 promise.
    - `norm`: `‖M‖²`, which is `λ` and `λ̃` of this rule.
    - `slope`: `‖∇f(x*)‖` at the minimiser that was found.
    """

    certificates: tuple[GapCertificate, GapCertificate]
    rates: tuple[Array, Array]
    norm: Array
    slope: Array


def certify_constant_rule(problem: ConvexProblem, key: PRNGKeyArray, rounds: int) -> Promised:
    """Algorithms 2 and 4 with `Φ(x, w) = M w`; regret is preserved by `w* = M⁻¹ x*`.

    **Arguments:**

    - `problem`: what is minimised.
    - `key`: draws `M`, near the identity, and `w_1`.
    - `rounds`: the length of a run.
    """
    matrix_key, start_key = jax.random.split(key)
    matrix = jnp.eye(DIM) + 0.3 * jax.random.normal(matrix_key, (DIM, DIM))
    norm, start = largest(matrix), jax.random.normal(start_key, (DIM,))
    comparator = jnp.linalg.solve(matrix, problem.optimum)
    distance = jnp.linalg.norm(comparator - start)

    def found(leader: FTRL, hint: Hint) -> GapCertificate:
        method = ConvexMeta(lambda x, w: matrix @ w, leader, hint)
        state, made = method.run(problem.loss, method.init(jnp.zeros(DIM), start), rounds)
        known = {"optimum": problem.optimum, "smoothness": problem.smoothness}
        return gap_certificate(method, state, made, problem.loss, comparator=comparator, **known)

    rate = 1 / (norm * problem.smoothness)
    return Promised(
        (
            found(FTRL(rate), no_hint),
            found(FTRL(rate / 4, linear_weights), last_gradient),
        ),
        (
            rate_without_hints(norm, problem.smoothness, distance, rounds),
            rate_with_hints(norm, problem.smoothness, distance, rounds),
        ),
        norm,
        jnp.linalg.norm(jax.grad(problem.loss)(problem.optimum)),
    )


def certify_gradient_rule(
    problem: ConvexProblem, rounds: int
) -> tuple[GapCertificate, GapCertificate]:
    """Algorithms 2 and 4 with `Φ(x, w) = x − w ⊙ ∇f(x)`, from ones and `w_1 = 1/L`.

    **Arguments:**

    - `problem`: what is minimised.
    - `rounds`: the length of a run.

    **Returns:**

    Certificates without and with hints, along an axis of the comparators `0`, `w_1` and `2 w_1`.
    """
    slope, begin = jax.grad(problem.loss), jnp.ones(DIM)
    rate = 0.01 / (problem.smoothness * jnp.sum(slope(begin) ** 2))
    start = jnp.full(DIM, 1 / problem.smoothness)

    def found(hint: Hint) -> GapCertificate:
        method = ConvexMeta(lambda x, w: x - w * slope(x), FTRL(rate, linear_weights), hint)
        state, made = method.run(problem.loss, method.init(begin, start), rounds)

        def against(comparator: Array) -> GapCertificate:
            known = {"optimum": problem.optimum, "smoothness": problem.smoothness}
            return gap_certificate(
                method, state, made, problem.loss, comparator=comparator, **known
            )

        return jax.vmap(against)(jnp.array(_COMPARATORS)[:, None] * start)

    return found(no_hint), found(last_gradient)


def play_leader(problem: ConvexProblem, rounds: int, hinted: bool) -> tuple[Array, Array]:
    """The leader alone: it plays `w_t` of the unit ball from its middle and sees `∇f(w_t)`.

    **Arguments:**

    - `problem`: what is minimised.
    - `rounds`: the length of a run.
    - `hinted`: whether the last gradient is the hint of the next.

    **Returns:**

    The regret against the best point of the ball for these gradients, and its bound, eq. 5.
    """
    leader = FTRL(1 / problem.smoothness, 1.0, optax.projections.projection_l2_ball)
    slope = jax.grad(problem.loss)

    def step(state: Any, _: None) -> tuple[Any, None]:
        gradient = slope(state.point)
        return leader.step(state, gradient, gradient if hinted else None), None

    state = jax.lax.scan(step, leader.init(jnp.zeros(DIM)), None, length=rounds)[0]
    best = -state.gradients / jnp.linalg.norm(state.gradients)
    return state.regret(best), leader.regret_bound(state, best)


def draw_all(
    certify: Callable[[ConvexProblem, PRNGKeyArray], Any], problems: int, key: PRNGKeyArray
) -> Any:
    """Certifies as many problems of each kind, as one compiled program.

    **Arguments:**

    - `certify`: a function of a problem and of a key of its own.
    - `problems`: how many of each kind.
    - `key`: a JAX random key.

    **Returns:**

    What `certify` returns, with leading axes of kinds and problems.
    """

    def one(kind: Array, key: PRNGKeyArray) -> Any:
        problem_key, own_key = jax.random.split(key)
        return certify(draw_problem(kind, problem_key), own_key)

    kinds = jnp.arange(len(LOSSES))
    keys = jax.random.split(key, (len(LOSSES), problems))
    return jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0))))(kinds, keys)


def certify_bounds(config: BoundStudy, seed: int) -> dict[str, Any]:
    """Runs everything on every problem.

    **Arguments:**

    - `config`: the study.
    - `seed`: draws the problems.

    **Returns:**

    What `summary.json` holds.
    """

    def certify(problem: ConvexProblem, key: PRNGKeyArray) -> OrderedDict[tuple[str, str], Any]:
        """What was measured and what bounds it, by bound and algorithm."""
        promised = certify_constant_rule(problem, key, config.rounds)
        plain, hinted = promised.certificates
        steps, ahead = certify_gradient_rule(problem, config.rounds)
        rows = {
            ("Theorem 1", "Alg. 2, M w"): (plain.gap, promised.rates[0]),
            ("Corollary 1", "Alg. 4, M w"): (hinted.gap, promised.rates[1]),
            ("Theorem 2", "Alg. 2, M w"): (plain.gap, plain.bound),
            ("Theorem 2", "Alg. 4, M w"): (hinted.gap, hinted.bound),
            ("Theorem 2", "Alg. 2, x − w ⊙ ∇f"): (steps.gap[0], jnp.min(steps.bound)),
            ("Theorem 2", "Alg. 4, x − w ⊙ ∇f"): (ahead.gap[0], jnp.min(ahead.bound)),
            ("eq. 5", "FTRL, unit ball"): play_leader(problem, config.rounds, False),
            ("eq. 5", "FTRL, hints, unit ball"): play_leader(problem, config.rounds, True),
        }
        return OrderedDict(rows)  # of plain dictionaries JAX sorts the keys

    with jax.enable_x64(True):
        key = jax.random.key(seed)
        found = jax.tree.map(np.asarray, draw_all(certify, config.problems, key))
    rows = [
        {"bound": bound, "what": what, "kind": kind, **_ratios(*(part[k] for part in parts))}
        for (bound, what), parts in found.items()
        for k, kind in enumerate(LOSSES)
    ]
    return {
        "recipe": "s002-bounds",
        "kind": "online-bounds",
        "problems": config.problems,
        "rounds": config.rounds,
        "bounds": rows,
    }


def _ratios(gap: np.ndarray, bound: np.ndarray) -> dict[str, Any]:
    """Gap over bound; a bound is violated where the gap is above it by more than rounding.

    A negative bound of a positive gap is a violation too, whatever the sign of the ratio.
    """
    ratio = gap / bound
    return {
        "count": len(ratio),
        "median": float(np.median(ratio)),
        "largest": float(np.max(ratio)),
        "violated": int(np.sum(~(gap <= bound + _ROUNDING * np.abs(bound)))),
    }


def _bounds(request: Request, config: BoundStudy) -> dict[str, Any]:
    """All bounds."""

    def certify() -> dict[str, Any]:
        with request.progress.phase("bounds", 1) as phase:
            summary = certify_bounds(config, request.seed)
            phase.advance()
        return summary

    return request.once(config, "s002-bounds", lambda: certify)


ONLINE_BOUNDS = Reproduction(
    "gap and regret beside their bounds on random convex problems",
    budgets(BoundStudy(), _SMOKE),
    _bounds,
    lambda result: [report.online_bounds_table(result)],
)
