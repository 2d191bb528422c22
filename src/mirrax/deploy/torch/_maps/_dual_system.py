r"""The inverse of a sum of ridge functions: `y = a ⊙ σ(q − K y)`, one unknown a unit.

It is the stationarity of the convex `½ yᵀK y + Σ a softplus(q − K y)`, so Newton's method with
backtracking converges from anywhere. Source: spec A8; `mirrax.geometry` derives it.
"""

import torch
from torch import Tensor

_MAX_STEPS = 64


def balance(amplitudes: Tensor, gram: Tensor, offset: Tensor) -> Tensor:
    """The solution of `y = a ⊙ σ(q − K y)`.

    **Arguments:**

    - `amplitudes`: `a ≥ 0`.
    - `gram`: `K`, symmetric and positive semi-definite.
    - `offset`: `q`.

    **Returns:**

    `y`, with `0 ≤ y ≤ a`.

    >>> balance(torch.tensor([2.0]), torch.tensor([[0.0]]), torch.tensor([0.0])).tolist()
    [1.0]
    """
    resolution = 4 * torch.finfo(gram.dtype).eps
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    largest, here = float(amplitudes.max()), amplitudes / 2
    for _ in range(_MAX_STEPS if largest > 0 else 0):
        share = torch.sigmoid(offset - gram @ here)
        miss = amplitudes * share - here
        curvature = amplitudes * share * (1 - share)
        move = torch.linalg.solve(eye + curvature[:, None] * gram, miss)
        length = _length(amplitudes, gram, offset, here, move, miss, resolution)
        here = here + length * move
        if not length * float(move.abs().max()) > resolution * largest:
            break
    return here


def _length(
    amplitudes: Tensor,
    gram: Tensor,
    offset: Tensor,
    here: Tensor,
    move: Tensor,
    miss: Tensor,
    resolution: float,
) -> float:
    """How much of a step lowers the objective enough."""

    def value(point: Tensor) -> float:
        inner = gram @ point
        return float(point @ inner / 2 + amplitudes @ softplus(offset - inner))

    now, descent, length = value(here), float(miss @ (gram @ move)), 1.0
    # The slack forgives rounding, so that the last, tiny Newton steps are accepted.
    while length > 1e-9:
        if value(here + length * move) <= now + resolution * abs(now) - 1e-4 * length * descent:
            break
        length /= 2
    return length


def softplus(x: Tensor) -> Tensor:
    """`log(1 + e^x)`, exact to rounding: PyTorch's own is `x` from 20 on, 2e-9 below.

    >>> round(float(softplus(torch.tensor(0.0))), 4)
    0.6931
    """
    return torch.logaddexp(x, torch.zeros_like(x))
