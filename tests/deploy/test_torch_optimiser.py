"""What PyTorch expects of an optimiser: groups, schedules, closures, states, types, compilation."""

import copy
import io
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from deployed import BY_ROLES, GEOMETRIES, ROLES, make_params
from torch import nn

from mirrax._errors import ArtifactError
from mirrax.deploy import _artifact, save
from mirrax.deploy.torch import MirrorDescent
from mirrax.geometry import Diagonal, Euclidean, NegativeEntropy

torch.set_num_threads(1)
MAPS = GEOMETRIES | BY_ROLES
KINDS = ("diagonal", "kronecker", "max", "blockwise", "convex")
MIXING = ("max", "pnorm", "convex", "blockiaf")


class Small(nn.Module):
    """Weights where the geometries of `deployed` apply."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        start = make_params()
        self.dense_0 = nn.Linear(3, 2, dtype=dtype)
        self.mixture = nn.ParameterList([torch.tensor(np.asarray(start["mixture"][0])).to(dtype)])
        with torch.no_grad():
            self.dense_0.weight.copy_(torch.tensor(np.asarray(start["dense_0"]["weight"])).T)
            self.dense_0.bias.copy_(torch.tensor(np.asarray(start["dense_0"]["bias"])))

    def forward(self):
        return sum(((p - 0.3) ** 2).sum() for p in self.parameters())


def written(tmp_path, name, rate=0.1):
    path = tmp_path / f"{name}.safetensors"
    save(path, MAPS[name], rate=rate, params_like=make_params(), roles=ROLES)
    return path


def made(tmp_path, name="diagonal", model=None, **options):
    model = model or Small()
    path = written(tmp_path, name)
    return model, MirrorDescent(model.named_parameters(), path, verbose=False, **options)


def train(model, optimiser, steps, scheduler=None):
    for _ in range(steps):
        optimiser.zero_grad()
        model().backward()
        optimiser.step()
        if scheduler is not None:
            scheduler.step()
    return points(model)


def points(model):
    return [p.detach().clone() for p in model.parameters()]


def same_bits(left, right):
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_it_is_an_optimiser(tmp_path):
    _, optimiser = made(tmp_path, momentum=0.9, nesterov=True, weight_decay=0.01)
    assert isinstance(optimiser, torch.optim.Optimizer)
    group = optimiser.param_groups[0]
    assert group["lr"] == 0.1  # the artifact's
    assert group["param_names"] == ["dense_0.weight", "dense_0.bias", "mixture.0"]
    assert "momentum: 0.9" in repr(optimiser)


@pytest.mark.parametrize("name", KINDS)
def test_a_closure(tmp_path, name):
    model, optimiser = made(tmp_path, name)
    other, by_hand = made(tmp_path, name)

    def closure():
        optimiser.zero_grad()
        loss = model()
        loss.backward()
        return loss

    losses = [optimiser.step(closure).item() for _ in range(5)]
    train(other, by_hand, 5)
    assert same_bits(points(model), points(other)) and losses[-1] < losses[0]


@pytest.mark.parametrize("name", KINDS)
def test_schedules(tmp_path, name):
    model, optimiser = made(tmp_path, name, lr=0.2)
    last = train(model, optimiser, 6, torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5))
    other, by_hand = made(tmp_path, name)
    for rate in (0.2, 0.1, 0.05):
        by_hand.param_groups[0]["lr"] = rate
        train(other, by_hand, 2)
    assert same_bits(last, points(other))
    model, optimiser = made(tmp_path, name)
    train(model, optimiser, 3, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.0))
    stopped = points(model)
    assert all(map(torch.allclose, train(model, optimiser, 3), stopped))


def test_a_cycle_of_rate_and_momentum(tmp_path):
    path, model = tmp_path / "plain.safetensors", Small()
    save(path, Euclidean(), rate=0.1)
    optimiser = MirrorDescent(model.named_parameters(), path, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=10)
    train(model, optimiser, 9, cycle)
    rate, momentum = (optimiser.param_groups[0][name] for name in ("lr", "momentum"))
    assert momentum != 0.9
    # The step is made with what the schedule wrote.
    traces = {p: optimiser.state[p]["momentum"].clone() for p in model.parameters()}
    before = {p: p.detach().clone() for p in model.parameters()}
    optimiser.zero_grad()
    model().backward()
    optimiser.step()
    for param, old in before.items():
        trace = momentum * traces[param] + param.grad
        assert torch.equal(optimiser.state[param]["momentum"], trace)
        assert torch.equal(param.detach(), old - rate * trace)


def test_groups_have_their_own_options(tmp_path):
    path, model = written(tmp_path, "diagonal"), Small()
    weight, *rest = model.named_parameters()
    groups = [{"params": [weight], "lr": 0.0}, {"params": rest, "momentum": 0.5}]
    optimiser = MirrorDescent(groups, path, verbose=False)
    start, last = points(model), train(model, optimiser, 5)
    plain = train(*made(tmp_path, momentum=0.5), 5)
    assert same_bits(last, [start[0], *plain[1:]])
    with pytest.raises(ValueError, match="make the optimiser with all groups"):
        optimiser.add_param_group({"params": [("x", torch.ones(1))]})


@pytest.mark.parametrize("name", MIXING)
def test_parameters_that_mix_need_one_rate(tmp_path, name):
    path, model = written(tmp_path, name), Small()
    weight, *rest = model.named_parameters()
    with pytest.raises(ValueError, match=r"need one value, got \[0.1, 0.2\]; put them into one"):
        MirrorDescent([{"params": [weight], "lr": 0.2}, {"params": rest}], path, verbose=False)
    split = MirrorDescent([{"params": [weight]}, {"params": rest}], path, verbose=False)
    assert same_bits(train(model, split, 5), train(*made(tmp_path, name), 5))
    split.param_groups[0]["lr"] = 0.3
    with pytest.raises(ValueError, match="the geometry mixes 'dense_0"):
        train(model, split, 1)


@pytest.mark.parametrize("name", ["diagonal", "kronecker", "simplex"])
def test_frozen_parameters_stay(tmp_path, name):
    model, optimiser = made(tmp_path, name, momentum=0.5, weight_decay=0.1)
    model.dense_0.bias.requires_grad_(False)
    start, last = points(model), train(model, optimiser, 5)
    whole = train(*made(tmp_path, name, momentum=0.5, weight_decay=0.1), 5)
    assert same_bits(last, [whole[0], start[1], whole[2]])


@pytest.mark.parametrize("name", MIXING)
def test_frozen_parameters_that_mix_are_refused(tmp_path, name):
    model, optimiser = made(tmp_path, name)
    model.dense_0.bias.requires_grad_(False)
    start = points(model)
    with pytest.raises(RuntimeError, match="no gradient of 'dense_0.bias'; give those zeros"):
        train(model, optimiser, 1)
    assert same_bits(start, points(model))
    model.requires_grad_(False)
    optimiser.zero_grad()
    optimiser.step()
    assert same_bits(start, points(model))


def test_a_tied_parameter_is_listed_once(tmp_path):
    model = Small()
    twice = [*model.named_parameters(), ("again.bias", model.dense_0.bias)]
    with pytest.raises(ValueError, match="'dense_0.bias' and 'again.bias' are one tied parameter"):
        MirrorDescent(twice, written(tmp_path, "diagonal"))
    logs = {"a": {"weight": jnp.zeros((2, 2))}, "b": {"weight": jnp.zeros((2, 2))}}
    save(tmp_path / "g", Diagonal(logs), rate=0.1)
    tied = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(ArtifactError, match=r"! +b/weight +\(2, 2\) +absent"):
        MirrorDescent(tied.named_parameters(), tmp_path / "g", axes={"a/weight": (1, 0)})


def test_equal_names_in_two_groups_are_refused_at_once(tmp_path):
    path = tmp_path / "plain.safetensors"
    save(path, Euclidean(), rate=0.1)
    groups = [{"params": nn.Linear(2, 2).named_parameters()} for _ in range(2)]
    with pytest.raises(ValueError, match="two parameters are named 'bias'; pass names that tell"):
        MirrorDescent(groups, path)


def test_a_sparse_gradient_is_refused_before_anything_moves(tmp_path):
    save(tmp_path / "g", Euclidean(), rate=0.1)
    model = nn.Sequential(nn.Embedding(4, 2, sparse=True), nn.Linear(2, 1))
    optimiser = MirrorDescent(model.named_parameters(), tmp_path / "g")
    model(torch.tensor([1])).sum().backward()
    start = points(model)
    with pytest.raises(RuntimeError, match="gradient of '0.weight' is sparse"):
        optimiser.step()
    assert same_bits(start, points(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KINDS)
def test_half_precision_keeps_its_state_in_32_bits(tmp_path, name, dtype):
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "lr": 0.02}
    model, optimiser = made(tmp_path, name, Small(dtype), **options)
    last = train(model, optimiser, 10)
    assert all(p.dtype == dtype for p in last)
    kept = [x for state in optimiser.state.values() for k, x in state.items() if k != "primal"]
    assert kept and all(x.dtype == torch.float32 for x in kept)
    wide = train(*made(tmp_path, name, Small(torch.float32), **options), 10)
    resolution = torch.finfo(dtype).eps
    for left, right in zip(last, wide, strict=True):
        # Parameters are rounded at every step, by half of this at most. Found: 0.3 of it.
        torch.testing.assert_close(left.float(), right, rtol=resolution, atol=resolution)
    # PyTorch alone would give the state the parameters' type.
    twin, other = made(tmp_path, name, copy.deepcopy(model), **options)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert same_bits(train(model, optimiser, 3), train(twin, other, 3))


@pytest.mark.parametrize("name", [*KINDS, "blockiaf", "simplex"])
def test_a_state_goes_on_to_the_bit(tmp_path, name):
    options = {"momentum": 0.9, "weight_decay": 0.01, "lr": 0.02}
    model, optimiser = made(tmp_path, name, **options)
    train(model, optimiser, 7)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimiser.state_dict()], file)
    last = train(model, optimiser, 7)
    twin, other = made(tmp_path, name, **options | {"lr": 0.5})
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    twin.load_state_dict(weights)
    other.load_state_dict(state)
    assert same_bits(last, train(twin, other, 7))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies_go_on_to_the_bit(tmp_path, name, way):
    pair = made(tmp_path, name, momentum=0.9, lr=0.02)
    train(*pair, 3)
    twin = pickle.loads(pickle.dumps(pair)) if way == "pickle" else copy.deepcopy(pair)
    assert same_bits(train(*pair, 4), train(*twin, 4))
    assert twin[1].report == pair[1].report


def test_a_state_of_another_geometry_is_refused(tmp_path):
    _, optimiser = made(tmp_path, "diagonal")
    _, other = made(tmp_path, "kronecker")
    with pytest.raises(ArtifactError, match="the state belongs to another geometry"):
        other.load_state_dict(optimiser.state_dict())


@pytest.mark.parametrize("name", ["simplex", "max", "pnorm", "convex"])
def test_moved_parameters_restart_from_where_they_are(tmp_path, name):
    model, optimiser = made(tmp_path, name, lr=0.02)
    train(model, optimiser, 5)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(param.flip(-1))
    fresh, other = made(tmp_path, name, copy.deepcopy(model), lr=0.02)
    assert same_bits(train(model, optimiser, 5), train(fresh, other, 5))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_entry_below_the_smallest_number_returns(tmp_path, decay):
    """The dual remembers what a float32 cannot show, with decaying weights too."""
    save(tmp_path / "g", NegativeEntropy(), rate=1.0)
    param = nn.Parameter(torch.full((2,), 0.5))
    optimiser = MirrorDescent([("w", param)], tmp_path / "g", weight_decay=decay)
    for slope in (200.0, 0.0, -200.0):
        param.grad = torch.tensor([slope, 0.0])
        optimiser.step()
        lost = param[0].item()
        assert lost == 0 if slope >= 0 else abs(lost - 0.5) < 1e-4


@pytest.mark.parametrize("name", ["diagonal", "max", "kronecker"])
def test_parameters_that_have_grown_are_refused(tmp_path, name):
    model, optimiser = made(tmp_path, name, Small(torch.float32))
    train(model, optimiser, 2)
    before = points(model.double())
    with pytest.raises(RuntimeError, match="is of type torch.float64 and was torch.float32 when"):
        train(model, optimiser, 1)
    assert same_bits(points(model), before)


@pytest.mark.parametrize("name", ["max", "convex"])
def test_a_state_goes_on_in_fewer_bits(tmp_path, name):
    """With the dual of 32 bits; the point that it led to has the type of the parameters."""
    model, optimiser = made(tmp_path, name, Small(torch.float32))
    wanted = train(model, optimiser, 3)
    state = copy.deepcopy(optimiser.state_dict())
    other = Small(torch.float32)
    other.load_state_dict(model.state_dict())
    other, optimiser = made(tmp_path, name, other.bfloat16())
    optimiser.load_state_dict(state)
    duals = [entry["dual"] for entry in optimiser.state.values()]
    assert duals and {dual.dtype for dual in duals} == {torch.float32}
    for point, near in zip(train(other, optimiser, 1), wanted, strict=True):
        assert point.dtype == torch.bfloat16 and (point - near).abs().max() < 0.1


def test_all_together_is_one_by_one(tmp_path):
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    runs = [train(*made(tmp_path, foreach=way, **options), 10) for way in (None, True, False)]
    assert same_bits(runs[0], runs[1]) and same_bits(runs[0], runs[2])


@pytest.mark.parametrize("name", KINDS)
def test_a_tensor_as_rate(tmp_path, name):
    one = train(*made(tmp_path, name, lr=torch.tensor(0.125), weight_decay=0.25), 10)
    other = train(*made(tmp_path, name, lr=0.125, weight_decay=0.25), 10)
    for left, right in zip(one, other, strict=True):
        # The same products in 64 bits, in another order. Found: equal.
        torch.testing.assert_close(left, right, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ["diagonal", "kronecker", "simplex"])
def test_compiled(tmp_path, name):
    """By the tracer alone; the code that a backend makes is PyTorch's to test."""
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    model, optimiser = made(tmp_path, name, **options)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5)
    other, plain = made(tmp_path, name, **options)
    wanted = train(other, plain, 5, torch.optim.lr_scheduler.StepLR(plain, 2, 0.5))
    optimiser.step = torch.compile(optimiser.step, backend="eager")
    found = train(model, optimiser, 5, schedule)
    for left, right in zip(found, wanted, strict=True):
        # The same operations in 64 bits, which a compiler may fuse. Found: equal.
        torch.testing.assert_close(left, right, rtol=1e-14, atol=1e-15)


def test_what_is_kept(tmp_path):
    """Rates alone, as much as one momentum."""
    model, optimiser = made(tmp_path)
    train(model, optimiser, 2)
    assert not optimiser.state
    rates = [rate for group in optimiser._rates for rate in group]
    assert [rate.shape for rate in rates] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", torch.tensor([0.1])),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1.0),
        ("weight_decay", 11.0),
        ("nesterov", True),
    ],
)
def test_options_out_of_range(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"MirrorDescent.{option}: expected"):
        made(tmp_path, **{option: value})


@pytest.mark.parametrize("name", ["diagonal", "orthant"])
def test_a_rate_that_has_grown_too_large_for_the_decay(tmp_path, name):
    model, optimiser = made(tmp_path, name, weight_decay=0.6)
    train(model, optimiser, 1)
    before = points(model)
    optimiser.param_groups[0]["lr"] = 2.0
    with pytest.raises(ValueError, match="weight_decay: .* got 0.6 with the learning rate 2.0"):
        optimiser.step()
    assert same_bits(points(model), before)


def test_files_that_do_not_do(tmp_path, monkeypatch):
    model = Small()

    def refuses(path, match):
        with pytest.raises(ArtifactError, match=match):
            MirrorDescent(model.named_parameters(), path)

    refuses(tmp_path / "no", "there is no such file")
    path = written(tmp_path, "diagonal")
    path.write_bytes(path.read_bytes()[:-1])
    refuses(path, "is damaged")
    save(tmp_path / "p", MAPS["mode-products"], rate=0.1, params_like=make_params())
    refuses(tmp_path / "p", "a ModeProducts, which maps gradients and is no mirror map; PyTorch st")
    save(tmp_path / "b", MAPS["blockiaf"], rate=0.1)
    refuses(tmp_path / "b", "no table of parameters, which a BlockIAF needs here; save it again")
    monkeypatch.setattr(_artifact, "VERSION", 2)
    refuses(written(tmp_path, "max"), "of version 2, written by mirrax .* upgrade mirrax")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected the name of a file, got Diagonal"):
        MirrorDescent(model.named_parameters(), MAPS["diagonal"])
    with pytest.raises(ValueError, match="expected floating-point parameters, got 'x'"):
        MirrorDescent([("x", torch.ones(2, dtype=torch.int64))], path_of_any(tmp_path))


def test_a_set_has_no_order(tmp_path):
    with pytest.raises(TypeError, match="ordered collections"):
        MirrorDescent([{"params": set(Small().parameters())}], path_of_any(tmp_path))


def path_of_any(tmp_path):
    save(tmp_path / "any", Euclidean(), rate=0.1)
    return tmp_path / "any"
