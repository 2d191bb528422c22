r"""Meta-parameters that may not take every value, and the way back after an outer step.

Meta-parameters are stored unconstrained wherever a parameterisation allows it. Where it does not,
the outer loop projects: `M ← Π(M − ρ g)`, with `Π(M)` the nearest point that is allowed.
"""

import abc
from typing import Self

import equinox as eqx
import jax
from jaxtyping import PyTree


class AbstractConstrained(eqx.Module):
    """A geometry or preconditioner whose meta-parameters have a range that steps may leave."""

    @abc.abstractmethod
    def project(self) -> Self:
        """The nearest one whose meta-parameters are within their range."""


def project(tree: PyTree) -> PyTree:
    """Brings all meta-parameters within a tree back into their range, after an outer step.

    **Arguments:**

    - `tree`: a geometry, or anything that holds geometries.

    **Returns:**

    The same tree with every `AbstractConstrained` in it projected; nothing else has constraints.

    >>> from mirrax.geometry import Euclidean
    >>> project({"geometry": Euclidean()})
    {'geometry': Euclidean()}
    """
    is_constrained = lambda node: isinstance(node, AbstractConstrained)  # noqa: E731
    return jax.tree.map(
        lambda node: node.project() if is_constrained(node) else node, tree, is_leaf=is_constrained
    )
