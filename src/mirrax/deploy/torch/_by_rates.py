r"""The step of a diagonal geometry, `x⁺ = (1 − η λ) x − η r ⊙ d`, in place.

Many arrays go at once: one pass over the parameters for each term of the direction `d`, and one
more where weights decay.
"""

# pyright: reportPrivateImportUsage=false
# PyTorch's operations on lists of tensors have no public names.

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._directions import Terms, terms_of


def step_by_rates(
    group: Mapping[str, Any],
    rates: Sequence[Tensor | None],
    state: Mapping[Tensor, dict[str, Any]],
) -> None:
    """Moves those parameters of a group that have a gradient and rates.

    **Arguments:**

    - `group`: parameters and their options.
    - `rates`: `r` of each, or `None` for those that another map moves.
    - `state`: the optimiser's, by parameter.
    """
    moved = [
        (param, rate)
        for param, rate in zip(group["params"], rates, strict=True)
        if rate is not None and param.grad is not None
    ]
    together = [moved] if group["foreach"] is not False else [[pair] for pair in moved]
    for pairs in together:
        if pairs:
            params, chosen = [param for param, _ in pairs], [rate for _, rate in pairs]
            _move(params, chosen, terms_of(params, state, group), group)


def _move(
    params: list[Tensor], rates: list[Tensor], terms: Terms, group: Mapping[str, Any]
) -> None:
    lr, decay = group["lr"], group["weight_decay"]
    narrow = any(p.dtype != r.dtype for p, r in zip(params, rates, strict=True))
    # Of fewer bits than the rates: computed as these are, rounded once.
    wide = [p.to(r.dtype) for p, r in zip(params, rates, strict=True)] if narrow else params
    if decay:
        torch._foreach_mul_(wide, 1 - lr * decay)
    for arrays, weight in terms:
        if narrow:
            arrays = [a.to(r.dtype) for a, r in zip(arrays, rates, strict=True)]
        if isinstance(lr, Tensor):
            torch._foreach_addcmul_(wide, rates, torch._foreach_mul(arrays, lr), value=-weight)
        else:
            torch._foreach_addcmul_(wide, rates, arrays, value=-lr * weight)
    if narrow:
        torch._foreach_copy_(params, wide)
