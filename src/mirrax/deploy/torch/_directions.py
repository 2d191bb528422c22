r"""What is stepped along: `g`, `v⁺ = g + μ v`, or `g + μ v⁺` with Nesterov's momentum.

Momentum acts on gradients, that is in the dual, before the step, and is kept in at least 32 bits.
Source: Sutskever et al. 2013.
"""

# pyright: reportPrivateImportUsage=false
# PyTorch's operations on lists of tensors have no public names.

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Terms = list[tuple[list[Tensor], float]]
"""A direction as a weighted sum, so that Nesterov's needs no array of its own."""

TRACE = "momentum"
"""Where the state of a parameter keeps `v`."""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: 64 bits for parameters that have them, and 32 bits elsewhere.

    >>> working_dtype(torch.bfloat16)
    torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def terms_of(
    params: list[Tensor], state: Mapping[Tensor, dict[str, Any]], group: Mapping[str, Any]
) -> Terms:
    """The direction of some parameters, after their momentum has taken in the gradients.

    **Arguments:**

    - `params`: parameters that have gradients.
    - `state`: the optimiser's, by parameter; momentum is changed in place.
    - `group`: the options of their group.

    **Returns:**

    Lists like `params` with weights; their sum is the direction.
    """
    grads = [param.grad for param in params if param.grad is not None]
    sign, momentum = -1.0 if group["maximize"] else 1.0, group["momentum"]
    if momentum == 0:
        return [(grads, sign)]
    for param in params:
        if TRACE not in state[param]:
            state[param][TRACE] = torch.zeros_like(param, dtype=working_dtype(param.dtype))
    traces = [state[param][TRACE] for param in params]
    torch._foreach_mul_(traces, momentum)
    torch._foreach_add_(traces, grads, alpha=sign)
    return [(grads, sign), (traces, momentum)] if group["nesterov"] else [(traces, 1.0)]


def check_gradients(
    names: Sequence[str], params: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> None:
    """Refuses what no step can be made with, before anything is moved.

    **Arguments:**

    - `names`, `params`: all parameters.
    - `dtypes`: their types when rates and factors were put beside them.

    **Raises:**

    - `RuntimeError`: a gradient is sparse, or a parameter needs more bits than its rates have.
    """
    for name, param, dtype in zip(names, params, dtypes, strict=True):
        if working_dtype(param.dtype).itemsize > working_dtype(dtype).itemsize:
            raise RuntimeError(
                f"MirrorDescent: {name!r} is of type {param.dtype} and was {dtype} when the "
                "optimiser was made; make it after the model has its type."
            )
        if param.grad is not None and param.grad.layout != torch.strided:
            raise RuntimeError(
                f"MirrorDescent: the gradient of {name!r} is sparse, which no geometry takes; make "
                "it dense, such as nn.Embedding(…, sparse=False)."
            )
