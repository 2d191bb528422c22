"""CIFAR-10 as a user trains and reproduces on it, on a small copy of its files."""

import json

import pytest

from mirrax import cli, report
from mirrax.models import build
from mirrax.study._exchangeable import exchangeable_axes
from small_cifar10 import expect_small, write_batches

TRAIN = ["train", "cifar-10", "--budget", "smoke", "--steps", "4", "--stride", "2", "--json"]
TRAIN += ["--timed", "false"]
FIGURE = ["reproduce", "s002-fig1-resnet", "--budget", "smoke", "--examples", "80", "--json"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    expect_small(monkeypatch)
    return write_batches(tmp_path / "data")


def trained(data, path, *words):
    assert cli.main([*TRAIN, *words, "--data", str(data), "--out", str(path)]) == 0
    return json.loads((path / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp-4", "resnet18-2"])
def test_a_geometry_learned_on_small_parts_is_tried_on_the_rest(data, tmp_path, as_in_life, model):
    summary = trained(data, tmp_path / "run", "--model", model)
    assert summary["held_out"] == "cifar-10/rest"
    names = [row["optimiser"] for row in summary["comparison"]]
    assert names[0] == "MetaMD" and "SGD" in names
    for row in summary["comparison"]:
        (accuracy,) = row["test_accuracy"]["values"]
        assert 0 <= accuracy <= 1
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["fields"]["in_turn"] and record["fields"]["model"] == model
    assert (tmp_path / "run" / "geometry.safetensors").exists()


@pytest.mark.parametrize("model", ["mlp-4", pytest.param("resnet18-2", marks=pytest.mark.slow)])
def test_online_rates(data, tmp_path, as_in_life, model):
    path = tmp_path / "run"
    words = [*FIGURE, "--model", model, "--data", str(data), "--out", str(path)]
    assert cli.main(words) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["recipe"], summary["task"]) == ("s002-fig1-resnet", "cifar-10")
    assert len(summary["methods"]) == 3 and summary["configurations"] == 24
    assert summary["methods"][0]["curve"]["steps"] == [0, 4]
    assert not report.Run.read(path).notes


@pytest.mark.parametrize("name", ["resnet18-2", "conv4-2", "lenet5"])
def test_hidden_channels_are_exchangeable_and_colours_and_classes_are_not(name):
    """Whatever order the model lists its layers in; normalisations and shortcuts included."""
    model = build(name, (32, 32, 3), 10)
    axes = dict(zip(model.leaf_shapes, exchangeable_axes(model), strict=True))
    assert axes["conv_0/weight"] == (3,) and axes["conv_1/weight"] == (2, 3)
    *_, (head, bias) = model.blocks
    assert axes[head] == (0,) and axes[bias] == ()
    assert {axes[leaf] for leaf in axes if "norm" in leaf} <= {(0,)}
    assert {axes[leaf] for leaf in axes if leaf.startswith("shortcut_") and "norm" not in leaf} <= {
        (2, 3)
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--devices", "3"], "--devices: expected a divisor of the 4 tasks of meta-training"),
        (["--devices", "0"], "--devices: expected a positive number, got 0."),
        (["--held-out", "5"], "--held-out: no task '5'; known are 1, 2, 3, 4, rest."),
        (["--model", "resnet18-0"], "unknown model 'resnet18-0'."),
    ],
)
def test_bad_requests_are_one_clear_line(data, tmp_path, capsys, words, message):
    path = tmp_path / "run"
    assert cli.main([*TRAIN, *words, "--data", str(data), "--out", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not path.exists()
