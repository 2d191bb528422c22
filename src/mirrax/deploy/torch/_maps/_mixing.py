r"""The mixing weights that invert the mirror map of a maximum of diagonal quadratics.

`ψ*(p) = min_w f(w)` over the simplex, `f(w) = ½ Σ_i p_i²/D_i(w)` with `D(w) = Σ_j w_j C_j`, and
`∇ψ*(p) = p/D(w)` at the minimiser. Projected Newton: each step minimises the quadratic model of
`f` over the simplex exactly, by looking at every face, and is halved until `f` falls. The gap
`⟨∇f, w⟩ − min_j ∂f/∂w_j` ends it. Source: spec B2, as `mirrax.geometry`.
"""

import dataclasses
import functools
import itertools

import torch
from torch import Tensor

_MAX_STEPS = 60


@dataclasses.dataclass(frozen=True, eq=False)
class _Point:
    """Weights, with the slope and the Hessian of `f` there."""

    weights: Tensor
    slope: Tensor
    hessian: Tensor

    @property
    def value(self) -> float:
        """`f`, by Euler's identity for homogeneous functions."""
        return -float(self.weights @ self.slope)

    @property
    def gap(self) -> float:
        """A bound on `f − min f`."""
        return float(self.weights @ self.slope - self.slope.min())


def mixing_weights(curvatures: Tensor, dual: Tensor) -> Tensor:
    """The minimiser of `f` over the simplex.

    **Arguments:**

    - `curvatures`: `C`, positive, one row a component.
    - `dual`: the dual point `p`.

    **Returns:**

    Weights `w ≥ 0` with sum 1.

    >>> rows = torch.tensor([[1.0, 4.0], [4.0, 1.0]])
    >>> mixing_weights(rows, torch.tensor([1.0, 1.0])).tolist()
    [0.5, 0.5]
    """
    largest = dual.abs().max()
    # f is homogeneous in p, so its minimiser is not changed by this scale, but overflow is.
    dual = dual / torch.where(largest > 0, largest, 1)
    resolution = 4 * torch.finfo(dual.dtype).eps
    here = _point(_best_start(curvatures, dual), curvatures, dual)
    for _ in range(_MAX_STEPS):
        if not here.gap > resolution * here.value:
            break
        here, moved = _newton_step(here, curvatures, dual, resolution)
        if not moved > resolution:
            break
    return here.weights


def _point(weights: Tensor, curvatures: Tensor, dual: Tensor) -> _Point:
    mixed = weights @ curvatures
    squares = (dual / mixed) ** 2
    hessian = (curvatures * (squares / mixed)) @ curvatures.mT
    return _Point(weights, -(curvatures @ squares) / 2, hessian)


def _best_start(curvatures: Tensor, dual: Tensor) -> Tensor:
    """The centre of the simplex or the vertex where `f` is smallest."""
    eye = torch.eye(len(curvatures), dtype=dual.dtype, device=dual.device)
    starts = torch.cat([eye.mean(0, keepdim=True), eye])
    mixed = torch.cat([curvatures.mean(0, keepdim=True), curvatures])
    return starts[(dual**2 / mixed).sum(1).argmin()]


def _newton_step(
    now: _Point, curvatures: Tensor, dual: Tensor, resolution: float
) -> tuple[_Point, float]:
    """One step, halved until `f` falls enough, and how far it went."""
    move = _model_minimiser(now) - now.weights
    descent, length = float(now.slope @ move), 1.0
    while True:
        there = _point((now.weights + length * move).clamp_min(0), curvatures, dual)
        # The slack forgives rounding, so that the last, tiny Newton steps are accepted.
        enough = there.value <= (1 + resolution) * now.value + 1e-4 * length * descent
        if enough or length <= 1e-9:
            return there, length * float(move.abs().max())
        length /= 2


def _model_minimiser(here: _Point) -> Tensor:
    """Minimises the quadratic model of `f` around a point over the whole simplex."""
    count, kind = len(here.weights), torch.finfo(here.weights.dtype)
    eye = torch.eye(count, dtype=here.weights.dtype, device=here.weights.device)
    # Equal components make the Hessian singular; a shift at the level of rounding moves no digit
    # that is determined.
    hessian = here.hessian + (8 * kind.eps * here.hessian.trace() + kind.tiny) * eye
    target = hessian @ here.weights - here.slope
    faces = torch.tensor(_faces(count), device=eye.device)
    points = torch.where(faces, _on_faces(hessian, target, faces.to(eye.dtype)), 0)
    feasible = (points >= 0).all(1) & points.isfinite().all(1)
    values = ((points @ hessian) * points).sum(1) / 2 - points @ target
    best = points[torch.where(feasible, values, torch.inf).argmin()]
    return best / best.sum()


def _on_faces(hessian: Tensor, target: Tensor, on: Tensor) -> Tensor:
    """The minimisers of the model on the affine hull of each face, by their KKT systems."""
    count, trace = len(target), hessian.trace()
    system = torch.zeros(len(on), count + 1, count + 1, dtype=on.dtype, device=on.device)
    system[:, :count, :count] = hessian * on[:, :, None] * on[:, None, :] + torch.diag_embed(1 - on)
    # The multiplier's column is scaled like the Hessian, which keeps pivots comparable.
    system[:, :count, count] = system[:, count, :count] = on * trace
    right = torch.cat([target * on, trace.expand(len(on), 1)], dim=1)
    return torch.linalg.solve_ex(system, right)[0][:, :count]


@functools.cache
def _faces(count: int) -> tuple[tuple[bool, ...], ...]:
    return tuple(itertools.product([False, True], repeat=count))[1:]
