r"""A learned geometry as an optax optimiser: `∇ψ(x⁺) = ∇ψ((1 − η λ) x) − η d`.

Where `∇ψ` is linear with matrix `M` the step is `x⁺ = (1 − η λ) x − η M⁻¹ d`: one rate a parameter
where `M` is diagonal, triangular solves or products where it is made of factors.
Elsewhere the dual point `z = ∇ψ(x)` is the state, because the parameters alone do not determine it
(on a tie of `MaxOfDiagonals`) or determine it badly (entropies near the boundary). The state also
remembers the parameters it led to: if they are not those of the next call, to rounding, somebody
else moved them, and `z` is derived from them anew. Momentum `v⁺ = g + μ v` acts on gradients, that
is in the dual, before the step. Sources: S000 eq. 1 and appendix A.1; Sutskever et al. 2013;
weight decay: Loshchilov & Hutter 2019, algorithm 1.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import optax
from jaxtyping import Array, Int, PyTree

from ..geometry import AbstractMirrorMap
from ._align import Table, align
from ._artifact import Artifact, load
from ._checks import check_decay, check_learning_rate, check_momentum
from ._decay import Decay
from ._encoding import derived_from
from ._fit import expected_shapes, flattened, whole_table
from ._match import report
from ._momentum import momentum_trace
from ._state import stands_for_params
from ._steps import step_for

Source: TypeAlias = str | os.PathLike[str] | Artifact | AbstractMirrorMap
LearningRate: TypeAlias = float | Array | Callable[[Int[Array, ""]], Any]


def to_optax(
    source: Source,
    learning_rate: LearningRate | None = None,
    *,
    momentum: float | Array | None = None,
    nesterov: bool = False,
    weight_decay: float | Array | None = None,
    decay_mask: PyTree[bool] | Callable[[PyTree], PyTree[bool]] | None = None,
    names: Mapping[str, str] | None = None,
    axes: Mapping[str, Sequence[int]] | None = None,
    flatten: Mapping[str, int] | None = None,
    verbose: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Makes an optax optimiser of a geometry: mirror descent `∇ψ(x⁺) = ∇ψ((1 − η λ) x) − η d`.

    `d` is the gradient `g`, or with momentum `v⁺ = g + μ v`, or with Nesterov's `g + μ v⁺`. Weights
    decay before the step and in the parameters themselves, so that they shrink alike whatever their
    learned rate; on a simplex, where only proportions count, decay does nothing.

    It chains like any other: clipping goes before it in `optax.chain`. Its `update` needs the
    parameters, as weight decay does. They are matched with those of the geometry by the names of
    their leaves, whatever the containers, else layer by layer, in the layout of this library and
    Flax (outputs last) or of Equinox (outputs first). Arrays of the state are placed on devices as
    the parameters are; where `init` is compiled, the compiler places them. Where rates are a
    diagonal, parameters whose gradient is `None` stay where they are, and their update is `None`.

    **Arguments:**

    - `source`: the file of a geometry, an artifact, or a geometry.
    - `learning_rate`: `η`, a positive number or an optax schedule; by default the artifact's.
    - `momentum`: `μ` in `v⁺ = g + μ v`, at least 0 and below 1; none by default.
    - `nesterov`: step along `g + μ v⁺` instead of `v⁺`.
    - `weight_decay`: `λ`, at least 0; none by default.
    - `decay_mask`: what decays: `True` or `False` for each parameter or branch of them, or a
        function of the parameters that says so; by default everything. As for `optax.adamw`,
        `lambda params: jax.tree.map(lambda x: x.ndim > 1, params)` leaves vectors out; biases of
        Equinox's convolutions have as many axes as kernels and are to be named. In
        `optax.inject_hyperparams` a function goes into `static_args`, or it is taken for a
        schedule and nothing decays.
    - `names`: which parameter is which, `{"name in the geometry": "name in the model"}`, names of
        leaves joined with `/`. What is not listed is matched by name, else by layers in order.
    - `axes`: for each axis of an array of the geometry which axis of the parameter it is, such as
        `{"dense_0/weight": (1, 0)}`; by default from the roles in the file and the shapes.
    - `flatten`: for models with channels before rows and columns, those of the images that a dense
        layer sees flattened, `{"dense_0/weight": 16}`, 1 for one that does not; by default those of
        the convolution in front.
    - `verbose`: print at `init` the table of the match if more was needed than names and roles.

    **Returns:**

    An optax gradient transformation; its state holds arrays only.

    **Raises:**

    - `ValueError`: an option out of range; a geometry without learning rate; a parameter that is
        not a floating-point array, a match that would be a guess, or a mask that does not fit or
        divides what the geometry mixes (at `init`); no parameters, or no gradient of one where
        the geometry is no diagonal (at `update`).
    - `RuntimeError`: at a step where the dual is kept, a schedule led to `η λ ≥ 1`.
    - `ArtifactError`: the file cannot be used; or, at `init`, the parameters are not those the
        geometry was learned for, with both tables.

    >>> import tempfile, jax.numpy as jnp
    >>> from mirrax.deploy import save, to_optax
    >>> from mirrax.geometry import Diagonal
    >>> params, grads = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([4.0, 4.0])}
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/geometry.safetensors"
    >>> save(path, Diagonal({"w": jnp.log(jnp.array([1.0, 2.0]))}), rate=0.125)

    >>> optimiser = to_optax(path); state = optimiser.init(params)
    >>> updates, state = optimiser.update(grads, state, params)
    >>> params = optax.apply_updates(params, updates)

    >>> params["w"].tolist()
    [0.5, 0.875]
    >>> folder.cleanup()
    """
    geometry, artifact = _opened(source)
    rate = artifact.rate if artifact and learning_rate is None else learning_rate
    check_learning_rate(rate)
    check_momentum(momentum, nesterov)
    check_decay(weight_decay, rate)
    if weight_decay is None and decay_mask is not None:
        raise ValueError("to_optax.decay_mask: nothing decays; pass a weight_decay as well.")
    decay = None if weight_decay is None else Decay(weight_decay, decay_mask)
    expected = artifact.expected if artifact else expected_shapes(geometry)
    leaves = (artifact and artifact.leaves) or whole_table(geometry)
    given = {"names": names or {}, "axes": axes or {}, "flatten": flatten or {}}
    table = Table(expected, leaves, given)
    step = step_for(flattened(geometry), table, rate, decay)
    step = _announced(step, table) if verbose else step
    if momentum is None:
        return step
    chained = optax.chain(momentum_trace(momentum, nesterov), step)
    return optax.with_extra_args_support(chained)


def _opened(source: Source) -> tuple[AbstractMirrorMap, Artifact | None]:
    if isinstance(source, str | os.PathLike):
        source = load(source)
    found = source.geometry if isinstance(source, Artifact) else source
    if not isinstance(found, AbstractMirrorMap):
        raise ValueError(
            "to_optax.source: expected a file name, an Artifact or a geometry, got "
            f"{type(found).__name__}."
        )
    for part in jax.tree.leaves(found, is_leaf=lambda node: derived_from(type(node)) is not None):
        if base := derived_from(type(part)):
            raise ValueError(
                f"to_optax.source: {type(part).__name__} is derived from {base}, whose steps it "
                "would be given; derive it from AbstractGeometry or AbstractMirrorMap."
            )
    return found, (source if isinstance(source, Artifact) else None)


def _announced(
    step: optax.GradientTransformationExtraArgs, table: Table
) -> optax.GradientTransformationExtraArgs:
    """The same, saying what had to be inferred to match its first parameters."""

    def init(params: PyTree) -> Any:
        state = step.init(params)
        rows = [] if stands_for_params(params) else align(table, params).rows
        if any(row.is_inferred for row in rows):
            print(report(rows))
        return state

    return optax.GradientTransformationExtraArgs(init, step.update)
