"""What the online optimisers refuse, in one line that names function, field and value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trajectories import make_params

from mirrax.online import online_adagrad, online_sgd


def refused(call, message):
    """The call raises exactly this line."""
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


RATES = "online_sgd.learning_rate: expected positive finite rates, got "


@pytest.mark.parametrize(
    ("rate", "end"),
    [
        (0, "0."),
        (-0.1, "-0.1."),
        (float("nan"), "nan."),
        (float("inf"), "inf."),
        ("0.1", "'0.1'."),
        (None, "None."),
        (1j, "1j."),
        (np.float32(-2), "np.float32(-2.0)."),
        ({"a": 0.1, "b": [0.1, -1.0]}, "-1.0 for 'b/1'."),
        ({"a": jnp.array([0.1, -0.5])}, "-0.5 for 'a'."),
    ],
)
def test_rates_are_positive_numbers(rate, end):
    refused(lambda: online_sgd(rate, 1.0), RATES + end)


def test_rates_are_no_schedules():
    refused(
        lambda: online_sgd(lambda count: 0.1, 1.0),
        "online_sgd.learning_rate: expected a number or one rate for each parameter, got a "
        "function; for a schedule put optax.scale_by_schedule after it in optax.chain.",
    )


@pytest.mark.parametrize("rate", [0, 0.0, -1e-3, float("nan"), float("inf"), "slow", None])
@pytest.mark.parametrize("make", [online_sgd, online_adagrad])
def test_meta_rates_are_positive_numbers(make, rate):
    refused(
        lambda: make(0.1, rate),
        f"{make.__name__}.meta_rate: expected a positive finite number or a schedule, got "
        f"{rate!r}.",
    )


def test_meta_rates_are_single_numbers():
    with pytest.raises(ValueError, match=r"^online_sgd.meta_rate: expected a positive .*, got Arr"):
        online_sgd(0.1, jnp.array([0.1, 0.2]))


@pytest.mark.parametrize(
    ("field", "word", "known"),
    [
        ("per", "layer", "'element', 'leaf', 'all'"),
        ("clipping", "never", "'greedy', 'lazy'"),
        ("first_hint", None, "'given', 'zero'"),
    ],
)
def test_words_are_known(field, word, known):
    refused(
        lambda: online_sgd(0.1, 1.0, optimistic=True, **{field: word}),
        f"online_sgd.{field}: expected one of {known}, got {word!r}.",
    )
    if field == "per":
        with pytest.raises(ValueError, match="^online_adagrad.per: "):
            online_adagrad(0.1, 1.0, per=word)


def test_hints_are_of_the_optimistic_form():
    refused(
        lambda: online_sgd(0.1, 1.0, first_hint="zero"),
        "online_sgd.first_hint: only the optimistic form has hints, got 'zero'.",
    )


@pytest.mark.parametrize(
    "bounds", [(1.0, 0.5), (float("nan"), 1.0), (0.0, float("nan")), ("a", 1.0), (jnp.inf, None)]
)
def test_bounds_are_in_order(bounds):
    lower, upper = bounds
    refused(
        lambda: online_sgd(0.1, 1.0, lower=lower, upper=upper),
        f"online_sgd.lower: expected lower <= upper, got lower={lower}, "
        f"upper={jnp.inf if upper is None else upper}.",
    )


def test_first_rates_are_within_bounds():
    start = "online_sgd.learning_rate: expected rates from "
    refused(
        lambda: online_sgd(0.1, 1.0, upper=0.05),
        start + "0.0 to 0.05, the bounds, got 0.1.",
    )
    refused(
        lambda: online_sgd({"a": 0.1, "b": 0.3}, 1.0, lower=0.2),
        start + "0.2 to inf, the bounds, got 0.1 for 'a'.",
    )
    refused(
        lambda: online_adagrad(0.1, 1.0, floor=0.2),
        "online_adagrad.accumulator: expected rates from 0.2 to inf, the bounds, got 0.1.",
    )


@pytest.mark.parametrize("floor", [0.0, -1.0, float("nan"), 1e-30])
def test_floors_keep_slopes_finite(floor):
    refused(
        lambda: online_adagrad(0.1, 1.0, floor=floor),
        "online_adagrad.floor: expected a number of at least 1e-20, below which w^(-3/2) may "
        f"overflow, got {floor!r}.",
    )


def test_parameters_are_floating_point():
    for wrap in (lambda f: f, jax.jit):
        refused(
            lambda wrap=wrap: wrap(online_sgd(0.1, 1.0).init)({"n": jnp.arange(3)}),
            "online_sgd: expected floating-point parameters, got 'n' of type int64; leave it out "
            "with optax.masked.",
        )


def test_rates_are_named_and_shaped_like_parameters():
    field = "online_sgd.learning_rate: "
    refused(
        lambda: online_sgd({"dense": 0.1, "other": 0.1}, 1.0).init(make_params()),
        field + "expected one number or rates named like the parameters, got dense, other for "
        "dense/bias, dense/weight, scales/0.",
    )
    refused(
        lambda: online_sgd(jnp.full((2, 3), 0.1), 1.0).init(jnp.ones((3, 2))),
        field + "expected a rate of shape () or (3, 2), got (2, 3).",
    )
    for per in ("leaf", "all"):
        refused(
            lambda per=per: online_sgd(jnp.full(2, 0.1), 1.0, per=per).init(jnp.ones(2)),
            field + "expected a rate of shape (), got (2,).",
        )
    refused(
        lambda: online_sgd({"a": 0.1}, 1.0, per="all").init({"a": jnp.ones(2)}),
        field + "expected one number for all parameters, got a dict.",
    )


def test_gradients_are_like_the_parameters():
    optimiser, params = online_sgd(0.1, 1.0), make_params()
    state = optimiser.init(params)
    start = "online_sgd.update: expected gradients like the parameters of init, got "
    refused(
        lambda: optimiser.update({**params, "extra": jnp.ones(3)}, state),
        start + "extra (3,).",
    )
    refused(lambda: optimiser.update({"dense": params["dense"]}, state), start + "scales/0 absent.")
    dense = {**params["dense"], "bias": jnp.ones(1)}
    refused(lambda: optimiser.update({**params, "dense": dense}, state), start + "dense/bias (1,).")
    refused(
        lambda: optimiser.update({**params, "scales": tuple(params["scales"])}, state),
        "online_sgd.update: expected gradients in the containers of the parameters, got "
        "PyTreeDef({'dense': {'bias': *, 'weight': *}, 'scales': (*,)}).",
    )
