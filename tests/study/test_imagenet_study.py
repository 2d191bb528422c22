"""S002's Fig. 1 on a small ImageNet: as a user runs it, stops it and goes on; one run by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax import cli, report
from mirrax._errors import ConfigError
from mirrax.models import accuracy, build, cross_entropy
from mirrax.study._baselines import Method
from mirrax.study._folder import RunFolder
from mirrax.study._online_protocol import Measured, summarise_online
from mirrax.study._streamed_runs import Pace, run_streamed, sight
from mirrax.tasks import imagenet
from small_imagenet import write_small

WORDS = ["reproduce", "s002-fig1-imagenet", "--budget", "smoke", "--classes", "4", "--json"]
FAST = ["--model", "mlp-4", "--side", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("data"))


def made(data, path, *words):
    assert cli.main([*WORDS, *FAST, *words, "--data", str(data), "--out", str(path)]) == 0
    return json.loads((path / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory, as_in_life):
    path = tmp_path_factory.mktemp("imagenet") / "run"
    made(data, path, "--seeds", "2")
    return path


def test_a_run_leaves_a_summary_and_a_figure(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["recipe"], summary["task"]) == ("s002-fig1-imagenet", "imagenet")
    assert [row["optimiser"] for row in summary["methods"]] == [
        *("SGD", "Online", "Online, optimistic"),
    ]
    assert summary["configurations"] == 12 and summary["tuned_on"].endswith("after 2 steps")
    for row in summary["methods"]:
        assert row["curve"]["steps"] == [0, 2, 4]
        assert row["curve"]["test"][-1]["values"] == row["test_accuracy"]["values"]
        assert len(row["test_accuracy"]["values"]) == 2
    notes = " ".join(summary["notes"])
    assert "Tuned by runs of 2 steps, since runs of 4" in notes
    assert "Accuracies are those on 8 training and 8 test images." in notes
    assert "48 of the 1,281,167 training images" in notes
    assert (finished / "figures" / "accuracy.svg").stat().st_size > 1000
    assert not report.Run.read(finished).notes
    assert not list(finished.rglob("*.safetensors"))  # checkpoints of what is finished


def test_a_run_that_was_stopped_goes_on_to_the_bit(
    data, finished, tmp_path, monkeypatch, capsys, as_in_life
):
    """While tuning, and then again in the middle of a training run."""
    save, words = RunFolder.save_checkpoint, ["--seeds", "2"]

    def stop_after(saved):
        left = iter(range(saved))

        def stopping(folder, *arguments, **keywords):
            save(folder, *arguments, **keywords)
            if next(left, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "save_checkpoint", stopping)

    command = [*WORDS, *FAST, *words, "--data", str(data), "--out", str(tmp_path / "run")]
    stop_after(30)
    assert cli.main(command) == 130
    assert not (tmp_path / "run" / "training").exists()
    stop_after(2 * 36 - 30 + 4)
    assert cli.main([*command, "--resume"]) == 130
    assert len(list((tmp_path / "run" / "training").glob("*/checkpoints/*"))) > 0
    monkeypatch.setattr(RunFolder, "save_checkpoint", save)
    assert cli.main([*command, "--resume"]) == 0
    found, expected = ((p / "summary.json").read_bytes() for p in (tmp_path / "run", finished))
    assert found == expected


def sgd(values, context):
    del context
    return optax.sgd(values["rate"])


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_run_by_hand(data, tmp_path, as_in_life, chunk):
    """Step by step on the batches of its key, measured on the middles of images."""
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    folder, place = RunFolder.create(tmp_path / "run", {}), sight(task, model, 40)
    key, rate = jax.random.key(7), 0.3
    found = run_streamed(
        *(Method("SGD", sgd, ()), {"rate": rate}, task, place, Pace(5, 6, 3, chunk), folder),
        key=key,
    )

    start_key, order_key = jax.random.split(key)
    seed = tuple(np.asarray(jax.random.key_data(order_key)).tolist())
    params, expected = model.init(start_key), []

    def look():
        rows = []
        for part in ("train", "test"):
            images, labels = task.sample(part, 40)
            logits = model.apply(params, jnp.asarray(images, jnp.float32) / 255)
            rows.append((cross_entropy(logits, labels), accuracy(logits, labels)))
        expected.append((rows[0][0], rows[0][1], rows[1][1]))

    look()
    for number, ((images,), (labels,)) in enumerate(task.batches(5, 6, seed=seed), 1):
        pixels = jnp.asarray(images, jnp.float32) / 255
        grads = jax.grad(lambda p: cross_entropy(model.apply(p, pixels), labels))(params)  # noqa: B023
        params = jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, grads)
        if number % 3 == 0:
            look()
    np.testing.assert_allclose(found, np.array(expected, float), rtol=2e-5)
    assert found[-1, 0] != found[0, 0]


def test_a_run_that_diverges_is_recorded_and_ends(data, tmp_path, as_in_life):
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    folder, method = RunFolder.create(tmp_path / "run", {}), Method("SGD", sgd, ({"rate": 1e38},))
    place, values, pace = sight(task, model, 8), {"rate": 1e38}, Pace(4, 8, 2, 2)
    options = {"key": jax.random.key(0)}
    found = run_streamed(method, values, task, place, pace, folder, **options)
    assert np.isfinite(found[0]).all() and np.isnan(found[1:, 0]).all()
    assert np.isfinite(found[:, 1:]).all()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    again = run_streamed(method, values, task, place, pace, folder, **options)
    np.testing.assert_array_equal(found, again)
    measured = Measured([values], found[None, None, :, 1:], found[None, None, :, 0], 8, 2)
    summary = summarise_online([method], measured, task="t", model="m", tuned_on="u", notes=["n"])
    assert summary["notes"] == [
        "SGD diverged in 1 of 1 runs: their training loss is not finite at the end, and at step 2 "
        "in the first of them.",
        "n",
    ]
    assert summary["methods"][0]["final_loss"]["mean"] is None


def test_lost_measurements_are_named(data, tmp_path, monkeypatch, as_in_life):
    """A checkpoint whose curve is not there any more."""
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    folder, place = RunFolder.create(tmp_path / "run", {}), sight(task, model, 8)
    run = (Method("SGD", sgd, ()), {"rate": 0.1}, task, place, Pace(4, 4, 2, 2), folder)
    monkeypatch.setattr(RunFolder, "drop_checkpoints", lambda folder: None)
    run_streamed(*run, key=jax.random.key(0))
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="metrics.jsonl lacks lines; delete .*run and pass --res"):
        run_streamed(*run, key=jax.random.key(0))


def test_missing_data_are_one_line_and_leave_no_folder(tmp_path, capsys):
    words = [*WORDS, "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("mirrax: ImageNet is missing train/, val/ and") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chunk", "3"], "--chunk: expected a divisor of --stride (2), got 3."),
        (["--stride", "3"], "--stride: expected a divisor of --steps (4), got 3."),
        (["--tune-steps", "3"], "--chunk: expected a divisor of --tune-steps (3), got 2."),
        (["--classes", "1"], "--classes: expected 2 to 1000000, got 1."),
        (["--classes", "5"], "holds 4 classes and 5 are expected"),
        (["--side", "16"], "--model: resnet50.input_shape: needs images of at least 17 by 17"),
        (["--model", "resnet5"], "unknown model 'resnet5'. Did you mean 'resnet50'"),
    ],
)
def test_bad_requests_are_one_clear_line(data, tmp_path, capsys, words, message):
    command = [*WORDS, *words, "--data", str(data), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_smoke_budget_with_a_narrow_resnet50(data, tmp_path, as_in_life):
    words = [*WORDS, "--data", str(data), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["model"] == "resnet50-4"
    assert all(row["final_loss"]["mean"] is not None for row in summary["methods"])
