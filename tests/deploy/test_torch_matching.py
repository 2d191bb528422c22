"""Which parameter is which, and which way its axes run: told, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch_models import MODELS, diagonal, lenet, saved, start, to_torch

from mirrax._errors import ArtifactError
from mirrax.deploy import save
from mirrax.deploy.torch import MirrorDescent
from mirrax.geometry import Diagonal, Euclidean, NegativeEntropy

ROUNDING = 2e-15
"""Rates are read off as differences of points in 64 bits. Found: 6e-16."""


def rates_of(module, optimiser):
    """The rates by the names of the module, read off a step."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for param in module.parameters():
        param.grad = torch.ones_like(param)
    optimiser.step()
    return {name: before[name] - p.detach() for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_the_library_are_matched(tmp_path, capsys, name):
    params, module = start(name, "float64")
    geometry = diagonal(params)
    path = saved(tmp_path / "g", name, geometry, params)
    optimiser = MirrorDescent(module.named_parameters(), path, 1.0)
    found = rates_of(module, optimiser)
    layers = MODELS[name][3]
    for layer, arrays in geometry.log_diagonal.items():
        for word, log in arrays.items():
            rate = to_torch(name, layer, jnp.exp(-2 * log))
            key = f"{layers[layer]}.{'weight' if word == 'gain' else word}"
            np.testing.assert_allclose(found[key], rate, rtol=ROUNDING)
    printed = capsys.readouterr().out.strip()
    # The perceptron's names are the same; nothing had to be inferred.
    assert printed == ("" if name == "mlp" else optimiser.report)


def test_the_report_shows_all(tmp_path):
    params, module = start("lenet", "float64")
    path = saved(tmp_path / "g", "lenet", diagonal(params), params)
    optimiser = MirrorDescent(module.named_parameters(), path, verbose=False)
    lines = [" ".join(line.split()) for line in optimiser.report.splitlines()]
    assert lines[0] == "geometry shape model shape axes matched by"
    assert "conv_0/weight (5, 5, 1, 6) 0.weight (6, 1, 5, 5) 2 3 1 0 order" in lines
    dense = "dense_0/weight (64, 120) 7.weight (120, 64) 1 0, inputs of 16 channels"
    assert f"{dense} order, channels in front" in lines
    assert len(lines) == 11


def test_wrappers_leave_names_alone(tmp_path):
    params, module = start("mlp", "float64")
    path = saved(tmp_path / "g", "mlp", diagonal(params), params)
    wrapped = [(f"module._orig_mod.{name}", p) for name, p in module.named_parameters()]
    report = MirrorDescent(wrapped, path, verbose=False).report
    assert all(line.endswith("name") for line in report.splitlines()[1:])


TREE = {"first": {"weight": (3, 3), "bias": (3,)}, "second": {"weight": (3, 3), "bias": (3,)}}


def two_squares(tmp_path, roles=True, tree=None):
    """Two layers that only their names tell apart."""
    rng = np.random.default_rng(0)
    shapes = tree or TREE
    logs = {
        layer: {word: jnp.asarray(rng.normal(size=shape)) for word, shape in arrays.items()}
        for layer, arrays in shapes.items()
    }
    axes = {layer: {"weight": ("in", "out"), "bias": ("out",)} for layer in logs}
    save(tmp_path / "g", Diagonal(logs), rate=1.0, roles=axes if roles else None)
    return tmp_path / "g", logs, nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double()


NAMES = {
    "first/weight": "1.weight",
    "first/bias": "1.bias",
    "second/weight": "0.weight",
    "second/bias": "0.bias",
}


def test_equal_layers_without_an_order_are_refused(tmp_path):
    path, _, model = two_squares(tmp_path)
    with pytest.raises(
        ValueError, match="'first' and 'second' have equal shapes and no order; say"
    ):
        MirrorDescent(model.named_parameters(), path)


@pytest.mark.parametrize("by_tensor", [False, True])
def test_an_explicit_map(tmp_path, by_tensor, capsys):
    path, logs, model = two_squares(tmp_path)
    names = (
        {ours: model.get_parameter(name) for ours, name in NAMES.items()} if by_tensor else NAMES
    )
    params = model.parameters() if by_tensor else model.named_parameters()
    found = rates_of(model, MirrorDescent(params, path, names=names))
    assert capsys.readouterr().out == ""
    np.testing.assert_allclose(found["1.weight"], np.exp(-2 * logs["first"]["weight"]).T)
    np.testing.assert_allclose(found["0.bias"], np.exp(-2 * logs["second"]["bias"]))


def test_square_axes_without_roles_are_refused_or_said(tmp_path):
    path, logs, model = two_squares(tmp_path, roles=False)
    with pytest.raises(ValueError, match=r"pass axes=\{'first/weight': \(1, 0\)\} or \(0, 1\)"):
        MirrorDescent(model.named_parameters(), path, names=NAMES)
    axes = {"first/weight": (0, 1), "second/weight": (1, 0)}
    found = rates_of(model, MirrorDescent(model.named_parameters(), path, names=NAMES, axes=axes))
    np.testing.assert_allclose(found["1.weight"], np.exp(-2 * logs["first"]["weight"]))
    np.testing.assert_allclose(found["0.weight"], np.exp(-2 * logs["second"]["weight"]).T)


def test_axes_without_roles_are_found_by_shape(tmp_path):
    tree = {"a": {"weight": (3, 4)}, "b": {"weight": (2, 4)}}
    path, logs, _ = two_squares(tmp_path, roles=False, tree=tree)
    model = nn.ParameterDict({"x": torch.ones(4, 3), "y": torch.ones(2, 4)}).double()
    optimiser = MirrorDescent(model.named_parameters(), path, verbose=False)
    assert optimiser.report.count("shape, axes by shape") == 2
    found = rates_of(model, optimiser)
    np.testing.assert_allclose(found["x"], np.exp(-2 * logs["a"]["weight"]).T)
    np.testing.assert_allclose(found["y"], np.exp(-2 * logs["b"]["weight"]))


def refused(module, path, *words, **options):
    with pytest.raises(ArtifactError) as caught:
        MirrorDescent(module.named_parameters(), path, **options)
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert lines[1] == "geometry shape model shape"
    for word in words:
        assert word in lines
    return lines


def test_other_models_are_refused_with_both_tables(tmp_path):
    params, module = start("lenet", "float64")
    path = saved(tmp_path / "g", "lenet", diagonal(params), params)
    refused(nn.Sequential(*module, nn.Linear(5, 5)), path, "! absent - 12.weight (5, 5)")
    refused(module[:-1], path, "! dense_2/weight (84, 5) absent -")
    wider = lenet()
    wider[7] = nn.Linear(64, 121)
    lines = refused(
        wider, path, "! dense_0/weight (64, 120) absent -", "! absent - 7.weight (121, 64)"
    )
    assert any(line.startswith("conv_0/weight") for line in lines)


def test_equal_names_of_other_shapes_are_refused(tmp_path):
    params, _ = start("mlp", "float64")
    path = saved(tmp_path / "g", "mlp", diagonal(params), params)
    other = MODELS["mlp"][1]()
    other.dense_1 = nn.Linear(12, 6)
    refused(other, path, "! dense_1/weight (12, 5) dense_1.weight (6, 12)")


def test_arguments_that_name_nothing(tmp_path):
    path, _, model = two_squares(tmp_path)

    def refuses(match, **options):
        with pytest.raises(ValueError, match=match):
            MirrorDescent(model.named_parameters(), path, **options)

    refuses("no parameter 'frist/weight'. Did you mean 'first/weight'", names={"frist/weight": "0"})
    refuses("the model has no parameter '0.wieght'", names={"first/weight": "0.wieght"})
    refuses("two names lead to one", names={**NAMES, "first/bias": "0.bias"})
    refuses("a tensor that is not among", names={"first/weight": torch.ones(3, 3)})
    refuses("expected an order of 2 axes", names=NAMES, axes={"first/weight": (0, 0)})
    refuses("no inputs that are images of 2 channels", names=NAMES, flatten={"first/weight": 2})
    with pytest.raises(ValueError, match="parameters without names; pass model.named_parameters"):
        MirrorDescent(model.parameters(), path)


def heads(tmp_path, channels_last=True):
    """A convolution and two heads that both see its images."""
    shapes = {"conv_0": (3, 3, 1, 2), "dense_0": (8, 3), "dense_1": (8, 5)}
    roles = ("height", "width", "in", "out")
    if not channels_last:
        shapes["conv_0"], roles = (2, 1, 3, 3), ("out", "in", "height", "width")
    logs = {name: {"weight": jnp.zeros(shape)} for name, shape in shapes.items()}
    axes = jax.tree.map(lambda x: ("in", "out") if x.ndim == 2 else roles, logs)
    save(tmp_path / "h", Diagonal(logs), rate=1.0, roles=axes)
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 2, 3, bias=False),
            "first": nn.Linear(8, 3, bias=False),
            "second": nn.Linear(8, 5, bias=False),
        }
    )
    return tmp_path / "h", model


def test_flattened_images_that_are_not_sure_are_asked_for(tmp_path):
    path, model = heads(tmp_path)
    with pytest.raises(ValueError, match=r"'dense_1/weight' are flattened images; pass flatten="):
        MirrorDescent(model.named_parameters(), path)
    flatten = {"dense_1/weight": 2}
    optimiser = MirrorDescent(model.named_parameters(), path, flatten=flatten, verbose=False)
    assert optimiser.report.count("inputs of 2 channels") == 2
    flatten = {"dense_0/weight": 1, "dense_1/weight": 1}
    optimiser = MirrorDescent(model.named_parameters(), path, flatten=flatten, verbose=False)
    assert "channels" not in optimiser.report


def test_channels_first_on_both_sides_need_no_reordering(tmp_path):
    path, model = heads(tmp_path, channels_last=False)
    assert "channels" not in MirrorDescent(model.named_parameters(), path, verbose=False).report


def test_groups_in_another_order_lead_to_the_same_layers(tmp_path):
    """The head before the convolutions, each with a rate of its own, as in fine-tuning."""
    params, module = start("lenet", "float64")
    path = saved(tmp_path / "g", "lenet", diagonal(params), params)
    wanted = rates_of(module, MirrorDescent(module.named_parameters(), path, 1.0, verbose=False))
    listed = list(module.named_parameters())
    groups = [{"params": listed[4:]}, {"params": listed[2:4]}, {"params": listed[:2]}]
    optimiser = MirrorDescent(groups, path, 1.0, verbose=False)
    assert optimiser.report.count("inputs of 16 channels") == 1
    for name, rate in rates_of(module, optimiser).items():
        np.testing.assert_allclose(rate, wanted[name], rtol=ROUNDING)


def test_layers_listed_against_their_numbers_are_refused(tmp_path):
    """Three equal kernels in groups that turn them round, and whose names could be anything."""
    params, module = start("conv4", "float64")
    path = saved(tmp_path / "g", "conv4", diagonal(params), params)
    listed = list(module.named_parameters())
    groups = [{"params": listed[8:]}, {"params": listed[:8]}]
    with pytest.raises(ValueError, match="stand in no sure order; say which is which"):
        MirrorDescent(groups, path)


def test_a_head_in_front_of_convolutions_is_asked_about(tmp_path):
    params, module = start("lenet", "float64")
    path = saved(tmp_path / "g", "lenet", diagonal(params), params)
    listed = list(module.named_parameters())
    first = [*listed[4:], *listed[:4]]
    with pytest.raises(ValueError, match="cannot be told whether the 64 inputs of 'dense_0/weight"):
        MirrorDescent(first, path)
    flatten = {"dense_0/weight": 16, "dense_1/weight": 1, "dense_2/weight": 1}
    found = MirrorDescent(first, path, 1.0, flatten=flatten, verbose=False)
    assert found.report.count("inputs of 16 channels") == 1


def test_numbers_from_zero_and_from_one_are_not_taken_for_each_other(tmp_path):
    """Names fit for three of four equal layers, and each of them would be the next one's."""
    layers = {f"norm_{i}": {"weight": jnp.full(3, float(i))} for i in range(4)}
    save(tmp_path / "g", Diagonal(layers), rate=1.0, params_like=layers)
    weight = lambda: nn.Parameter(torch.zeros(3))  # noqa: E731
    others = [(f"norm_{i}.weight", weight()) for i in range(1, 5)]
    with pytest.raises(ValueError, match="names and places in the model give them no one order"):
        MirrorDescent(others, tmp_path / "g")
    mixed = [("norm_0.weight", weight()), ("norm_1.weight", weight())]
    mixed += [("body.2.weight", weight()), ("body.3.weight", weight())]
    found = MirrorDescent(mixed, tmp_path / "g", verbose=False).report.splitlines()
    for number, (line, (name, _)) in enumerate(zip(found[1:], mixed, strict=True)):
        assert line.startswith(f"norm_{number}/weight") and name in line


def test_a_file_without_a_table_takes_no_words_about_parameters(tmp_path):
    save(tmp_path / "g", NegativeEntropy(), rate=0.1)
    model = nn.Linear(2, 2)
    for option in ({"names": {"w": "weight"}}, {"axes": {"w": (1, 0)}}, {"flatten": {"w": 2}}):
        with pytest.raises(ValueError, match="has no table of parameters to which it could refer"):
            MirrorDescent(model.named_parameters(), tmp_path / "g", **option)
    with pytest.raises(ArtifactError, match="along which axis the parameters are probabilities"):
        MirrorDescent(model.named_parameters(), tmp_path / "g")
    MirrorDescent([("w", nn.Parameter(torch.full((3,), 1 / 3)))], tmp_path / "g")


def test_a_geometry_without_a_table_takes_any_model(tmp_path):
    save(tmp_path / "g", Euclidean(), rate=0.25)
    model = nn.Linear(2, 2)
    for params in (model.named_parameters(), model.parameters()):
        found = rates_of(model, MirrorDescent(params, tmp_path / "g"))
        assert all(torch.allclose(rate, torch.tensor(0.25)) for rate in found.values())
