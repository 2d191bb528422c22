r"""A learned geometry as a `torch.optim.Optimizer`: `∇ψ(x⁺) = ∇ψ(x) − η d`.

The same steps as `mirrax.deploy.to_optax`, with decoupled weight decay before them. Where `∇ψ` is a
diagonal the step is one pass over the parameters in place, and the rates are all that is kept;
linear maps keep nothing beside their factors; other maps keep a dual point. What does not change
(rates and factors) is not in `state_dict`, which holds a fingerprint of the geometry instead.
Sources: S000 eq. 1 and appendix A.1; weight decay: Loshchilov & Hutter 2019, algorithm 1.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._errors import ArtifactError
from .._match import Row, report
from .._ranges import check_kept, check_nesterov, check_rate, check_share, check_weight_decay
from .._record import check_reach
from ._by_map import PRIMAL, PlacedPart, check_shared, is_moved, place, step_by_map
from ._by_rates import step_by_rates
from ._directions import check_gradients, working_dtype
from ._maps import Rates
from ._source import Source, fingerprint, opened, read


class MirrorDescent(torch.optim.Optimizer):
    r"""Mirror descent in a learned geometry, `∇ψ(x⁺) = ∇ψ((1 − η λ) x) − η d`.

    `d` is the gradient `g`, or with momentum `v⁺ = g + μ v`, or with Nesterov's `g + μ v⁺`. For
    the learned diagonal this is `x⁺ = (1 − η λ) x − η d/m²`.

    Weights decay before the step and in the parameters themselves, so that they shrink alike
    whatever their learned rate; in the dual, which the step starts from, it is the point of the
    shrunk parameters. On a simplex, where only proportions count, decay therefore does nothing.

    Parameters without a gradient (frozen ones) stay where they are and do not decay. Geometries
    that mix several parameters move all of them or none, and need one rate and decay for them.

    **Arguments:**

    - `params`: `model.named_parameters()`, or groups of them; each group may have its own `lr`,
        `momentum`, `nesterov`, `weight_decay`, `maximize` and `foreach`.
    - `source`: the file of a geometry.
    - `lr`: `η`, a number or a scalar tensor; by default the rate the geometry was learned for.
    - `momentum`: `μ`, at least 0 and below 1.
    - `nesterov`: step along `g + μ v⁺` instead of `v⁺`.
    - `weight_decay`: `λ`, at least 0.
    - `maximize`: climb instead of descend.
    - `foreach`: `False` steps array by array where rates are a diagonal; by default all together.
    - `names`: which parameter is which, `{"name in the geometry": "name in the model"}`, or the
        parameters themselves. What is not listed is matched by name, else by layers in order.
    - `axes`: for each axis of an array of the geometry which axis of the parameter it is, such as
        `{"dense_0/weight": (1, 0)}`. By default from the roles in the file and PyTorch's layers:
        `(out, in)` and `(out, in, height, width)`.
    - `flatten`: the channels of the images that a dense layer sees flattened,
        `{"dense_0/weight": 16}`, 1 for one that does not; by default those of the convolution in
        front. A network without convolutions does not tell: say 3 where it flattens colour images.
    - `verbose`: print `report` if more was needed to match than names and roles.

    Where the file holds a learned start, `restart` puts the parameters there, for each new task.

    **Raises:**

    - `ArtifactError`: the file cannot be used, or the parameters are not those the geometry was
        learned for; both tables are shown.
    - `ValueError`: an option out of range, or a match that would be a guess.
    - `RuntimeError`: at a step, a sparse gradient, one that is missing where parameters mix, or
        parameters that have more bits than when the optimiser was made.

    Source: S000 eq. 1 and appendix A.1.

    >>> import tempfile, jax.numpy as jnp
    >>> from mirrax.deploy import save
    >>> from mirrax.geometry import Diagonal
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/geometry.safetensors"
    >>> geometry = Diagonal({"dense_0": {"weight": jnp.log(jnp.array([[1.0], [2.0]]))}})
    >>> save(path, geometry, rate=0.5, roles={"dense_0": {"weight": ("in", "out")}})

    >>> optimiser = MirrorDescent(model.named_parameters(), path)
    geometry        shape   model   shape   axes  matched by
    dense_0/weight  (2, 1)  weight  (1, 2)  1 0   order
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> model(torch.tensor([4.0, 4.0])).backward()
    >>> optimiser.step()
    >>> model.weight.tolist()
    [[-1.0, 0.5]]
    >>> folder.cleanup()
    """

    _start: list[np.ndarray] | None = None

    def __init__(
        self,
        params: Any,
        source: str | os.PathLike[str],
        lr: float | Tensor | None = None,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        names: Mapping[str, str | Tensor] | None = None,
        axes: Mapping[str, Sequence[int]] | None = None,
        flatten: Mapping[str, int] | None = None,
        verbose: bool = True,
    ):
        record = read(source)
        defaults = {
            "lr": record.rate if lr is None else lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "geometry": fingerprint(record),
        }
        self._complete = False
        super().__init__(params, defaults)
        given = {"names": names or {}, "axes": axes or {}, "flatten": flatten or {}}
        named = self._named(record.leaves is None, given["names"])
        self._names = list(named)
        found = opened(source, record, named, given, len(self.param_groups) == 1)
        self._dtypes = [param.dtype for param in named.values()]
        self._rows = found.rows
        self._rates: list[list[Tensor | None]] = []
        self._parts: list[PlacedPart] = []
        self._place(found, named)
        if record.start is not None:
            # As numbers of the file: parameters may change their type or place before `restart`.
            self._start = [_laid_out(record.start, row) for row in _ordered(found.rows, named)]
        self._complete = True
        if verbose and any(row.is_inferred for row in found.rows):
            print(self.report)

    @property
    def report(self) -> str:
        """The table of the match: the geometry's parameters beside the model's."""
        return report(self._rows)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Takes a group while the optimiser is made; afterwards the geometry has no place for it.

        **Arguments:**

        - `param_group`: parameters and their options.

        **Raises:**

        - `ValueError`: an option out of range, a parameter given twice, or a complete optimiser.
        """
        if self._complete:
            raise ValueError(
                "MirrorDescent.add_param_group: a geometry is one of all its parameters; make the "
                "optimiser with all groups."
            )
        if not isinstance(param_group["params"], Tensor | set):  # PyTorch refuses sets itself
            param_group["params"] = list(param_group["params"])
            _check_once(param_group["params"])
        super().add_param_group(param_group)
        _check_options(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Makes one step.

        **Arguments:**

        - `closure`: computes the loss and its gradients anew.

        **Returns:**

        What the closure returned, or `None`.

        **Raises:**

        - `RuntimeError`: a sparse gradient, or one that is missing where parameters mix.
        - `ValueError`: a scheduler led to a rate at which all of the weights would decay.

        Nothing has then been moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        params = [param for group in self.param_groups for param in group["params"]]
        check_gradients(self._names, params, self._dtypes)
        parts = [part for part in self._parts if is_moved(part, self.param_groups)]
        for part in parts:
            check_shared(part, self.param_groups)
        for group in self.param_groups:
            _check_decay(group)
        for group, rates in zip(self.param_groups, self._rates, strict=True):
            step_by_rates(group, rates, self.state)
        for part in parts:
            step_by_map(part, self.param_groups, self.state)  # pyright: ignore[reportCallIssue]
        return loss

    @torch.no_grad()
    def restart(self) -> None:
        """Puts the parameters where the learned start is; momentum and duals are forgotten.

        Few-shot learning learns a geometry and a start; each new task begins with this. Rates stay
        as they are, and so do the buffers of the model, such as running statistics.

        **Raises:**

        - `ArtifactError`: the file holds no start, or a number of it would be infinite in the type
            of its parameter. Nothing has then been moved.
        """
        if self._start is None:
            raise ArtifactError(
                "MirrorDescent.restart: the geometry was saved without a start; start where the "
                "model does, or use the geometry of a run that learned one, such as "
                "few-shot-glyphs"
            )
        params = [param for group in self.param_groups for param in group["params"]]
        for name, param, start in zip(self._names, params, self._start, strict=True):
            largest = torch.finfo(param.dtype).max
            check_reach(name, start, largest, str(param.dtype).removeprefix("torch."))
        for param, start in zip(params, self._start, strict=True):
            param.copy_(torch.tensor(start))
        self.state.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where another optimiser with the same geometry stood, to the bit.

        **Arguments:**

        - `state_dict`: as from `state_dict`.

        **Raises:**

        - `ArtifactError`: it belongs to another geometry.
        """
        for group in state_dict["param_groups"]:
            if group.get("geometry") != self.defaults["geometry"]:
                raise ArtifactError(
                    "the state belongs to another geometry; make the optimiser from the file it "
                    "was made from"
                )
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        # PyTorch gives state the parameters' own type, which may have fewer bits.
        for number, param in zip(numbers, params, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                wide = isinstance(value, Tensor) and key != PRIMAL
                if wide and value.dtype != self.state[param][key].dtype:
                    self.state[param][key] = value.to(param.device, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_complete", "_names", "_dtypes", "_rows", "_rates", "_parts", "_start")
        return super().__getstate__() | {name: getattr(self, name) for name in own}

    def _named(self, free: bool, given: Mapping[str, str | Tensor]) -> dict[str, Tensor]:
        """All parameters by name, in order; by number where they came without names."""
        params = [param for group in self.param_groups for param in group["params"]]
        if "param_names" in self.param_groups[0]:
            names = [name for group in self.param_groups for name in group["param_names"]]
        else:
            names = [str(number) for number in range(len(params))]
            listed = sum(any(p is value for value in given.values()) for p in params)
            if not free and listed < len(params):
                raise ValueError(
                    "MirrorDescent.params: parameters without names; pass "
                    "model.named_parameters(), or names={'name in the geometry': parameter} for "
                    "all of them."
                )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"MirrorDescent.params: two parameters are named {twice[0]!r}; pass names that "
                "tell groups apart, such as those of the whole model."
            )
        for name, param in zip(names, params, strict=True):
            if not param.is_floating_point():
                raise ValueError(
                    f"MirrorDescent.params: expected floating-point parameters, got {name!r} of "
                    f"type {param.dtype}."
                )
        return dict(zip(names, params, strict=True))

    def _place(self, found: Source, named: Mapping[str, Tensor]) -> None:
        """Puts rates and parts beside the parameters they move."""
        rows: dict[str, Row] = {row.leaf.name: row for row in found.rows}
        places = {
            id(param): (number, index)
            for number, group in enumerate(self.param_groups)
            for index, param in enumerate(group["params"])
        }
        self._rates = [[None] * len(group["params"]) for group in self.param_groups]
        for part in found.parts:
            own = [rows[name] for name in part.names]
            params = [named[row.name] for row in own]
            where = [places[id(param)] for param in params]
            if isinstance(part, Rates):
                number, index = where[0]
                self._rates[number][index] = _rate_like(params[0], part, own[0])
            else:
                self._parts.append(place(part, own, where, params))
                check_shared(self._parts[-1], self.param_groups)


def _rate_like(param: Tensor, part: Rates, row: Row) -> Tensor:
    """Rates laid out in memory as the parameter is; one number where all are equal."""
    dtype = working_dtype(param.dtype)
    if part.rate.ndim == 0:
        return part.rate.to(param.device, dtype)
    rates = torch.empty_like(param, dtype=dtype, requires_grad=False)
    return rates.copy_(row.reorder.from_array(part.rate, torch.permute))


def _ordered(rows: Sequence[Row], named: Mapping[str, Tensor]) -> list[Row]:
    """The match of each parameter, in their order."""
    by_name = {row.name: row for row in rows}
    return [by_name[name] for name in named]


def _laid_out(start: Mapping[str, np.ndarray], row: Row) -> np.ndarray:
    """The learned start with the axes of a parameter."""
    return row.reorder.from_array(start[row.leaf.name], np.transpose)


def _check_once(params: Sequence[Any]) -> None:
    """Refuses a tensor that is listed under two names."""
    seen: dict[int, Any] = {}
    for number, entry in enumerate(params):
        name, param = entry if isinstance(entry, tuple) else (str(number), entry)
        if id(param) in seen:
            raise ValueError(
                f"MirrorDescent.params: {seen[id(param)]!r} and {name!r} are one tied parameter; "
                "list it once, as model.named_parameters() does."
            )
        seen[id(param)] = name


def _check_options(group: Mapping[str, Any]) -> None:
    """Refuses options that are out of range."""
    if isinstance(group["lr"], Tensor) and group["lr"].ndim:
        raise ValueError(
            f"MirrorDescent.lr: expected a number, or a tensor without axes, got {group['lr']!r}."
        )
    check_rate("MirrorDescent.lr", group["lr"], rests=True)
    check_share("MirrorDescent.momentum", group["momentum"])
    if group["nesterov"]:
        check_nesterov("MirrorDescent.nesterov", group["momentum"])
    check_weight_decay("MirrorDescent.weight_decay", group["weight_decay"])
    _check_decay(group)


def _check_decay(group: Mapping[str, Any]) -> None:
    """Refuses a decay that takes all of the weights, also after a scheduler has set the rate."""
    if group["weight_decay"]:
        check_kept("MirrorDescent.weight_decay", group["weight_decay"], group["lr"])
