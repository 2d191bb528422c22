r"""A linear map and its transpose, both written by hand: `⟨A x, y⟩ = ⟨x, Aᵀ y⟩`.

JAX derives the transpose of a map from its operations, which for one that cuts an array into
overlapping pieces is a sum of as many padded arrays. Where a better program is known, both maps
become primitives, each the transpose of the other. They can be differentiated any number of times,
in either mode, and vectorised.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

Map = Callable[..., list[Array]]


def linear_pair(name: str, forward: Map, backward: Map, constants: int = 0) -> tuple[Map, Map]:
    """Makes primitives of two maps that are each other's transposes.

    Both must take any number of leading axes, which vectorisation adds.

    **Arguments:**

    - `name`: names the primitives in a program's text.
    - `forward`, `backward`: functions `(*constants, *xs, **static) → [y, …]`, linear in all `xs`
      together. The constants (indices, say) are not differentiated.
    - `constants`: how many constants there are.

    **Returns:**

    The two maps, to be called as the functions given.

    >>> double, halve = linear_pair("double", lambda x: [2 * x], lambda y: [2 * y])
    >>> float(jax.grad(lambda x: double(x)[0] ** 2)(3.0))
    24.0
    """
    one, other = (
        _primitive(name + suffix, function, constants)
        for suffix, function in (("", forward), ("_transpose", backward))
    )
    for primitive, transpose in ((one, other), (other, one)):
        rule = functools.partial(_transpose, transpose, constants)
        ad.primitive_transposes[primitive] = rule
    return one.bind, other.bind


def _primitive(name: str, function: Map, constants: int) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(function)
    primitive.def_abstract_eval(functools.partial(_abstract, function))
    ad.primitive_jvps[primitive] = functools.partial(_jvp, primitive, constants)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=True))
    return primitive


def _abstract(function: Map, *arguments: Any, **static: Any) -> list[ShapedArray]:
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments]
    results = jax.eval_shape(functools.partial(function, **static), *shapes)
    return [ShapedArray(result.shape, result.dtype) for result in results]


def _jvp(
    primitive: Primitive, constants: int, primals: Any, tangents: Any, **static: Any
) -> tuple[Any, Any]:
    """The map of the tangents, at the same constants."""
    moved = map(ad.instantiate_zeros, tangents[constants:])
    return (
        primitive.bind(*primals, **static),
        primitive.bind(*primals[:constants], *moved, **static),
    )


def _transpose(
    primitive: Primitive, constants: int, cotangents: Sequence[Any], *arguments: Any, **static: Any
) -> list[Any]:
    moved = map(ad.instantiate_zeros, cotangents)
    return [None] * constants + primitive.bind(*arguments[:constants], *moved, **static)


def _batch(primitive: Primitive, arguments: Any, axes: Any, **static: Any) -> tuple[Any, Any]:
    """A vectorised axis becomes the first of the leading axes, of all arguments."""
    size = next(a.shape[k] for a, k in zip(arguments, axes, strict=True) if k is not None)
    moved = [
        jnp.broadcast_to(a, (size, *a.shape)) if k is None else jnp.moveaxis(a, k, 0)
        for a, k in zip(arguments, axes, strict=True)
    ]
    results = primitive.bind(*moved, **static)
    return results, [0] * len(results)
