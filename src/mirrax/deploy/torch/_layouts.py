"""PyTorch's tensors in the layout of an artifact, and back; `mirrax.deploy._reorder` says how."""

from torch import Tensor

from .._reorder import Reorder


def to_array(reorder: Reorder, tensor: Tensor) -> Tensor:
    """The tensor with the axes of the artifact.

    >>> import torch
    >>> to_array(Reorder((1, 2), (1, 0)), torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0], [2.0]]
    """
    return tensor.reshape(reorder.split).permute(reorder.order).reshape(reorder.shape)


def to_tensor(reorder: Reorder, array: Tensor) -> Tensor:
    """The inverse of `to_array`.

    >>> import torch
    >>> to_tensor(Reorder((1, 2), (1, 0)), torch.tensor([[1.0], [2.0]])).tolist()
    [[1.0, 2.0]]
    """
    return array.reshape(reorder.ordered).permute(reorder.back).reshape(reorder.own)
