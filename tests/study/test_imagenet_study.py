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
from mirrax.study import _online_stream
from mirrax.study._baselines import Method, find_baseline
from mirrax.study._folder import RunFolder
from mirrax.study._online_protocol import Measured, summarise_online
from mirrax.study._online_stream import StreamedNetworkStudy
from mirrax.study._streamed_runs import Pace, run_streamed, sight
from mirrax.study._streams import META, stream
from mirrax.tasks import StreamedTask, imagenet
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


def test_the_unit_of_meta_rates_is_written_down(data, finished, as_in_life):
    """Against the gradient of a first batch."""
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    (((images,), (labels,)),) = task.batches(4, 1, seed=(0,))
    pixels = jnp.asarray(images, jnp.float32) / 255
    params = model.init(stream(0, META))
    grads = jax.grad(lambda p: cross_entropy(model.apply(p, pixels), labels))(params)
    expected = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) ** 2
    summary, stored = (
        json.loads((finished / name).read_text()) for name in ("summary.json", "unit.json")
    )
    # A gradient in 32 bits, compiled apart. Found: equal.
    np.testing.assert_allclose(summary["unit"], expected, rtol=1e-6)
    assert stored == {"unit": summary["unit"]}


@pytest.fixture
def stop_after(monkeypatch):
    """Has a run stop, as by Ctrl-C, behind the checkpoint that follows so many."""
    save = RunFolder.save_checkpoint

    def stop_after(saved):
        left = iter(range(saved))

        def stopping(folder, *arguments, **keywords):
            save(folder, *arguments, **keywords)
            if next(left, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "save_checkpoint", stopping)

    return stop_after


def test_a_run_that_was_stopped_goes_on_to_the_bit(
    data, finished, tmp_path, monkeypatch, stop_after, capsys, as_in_life
):
    """While tuning, and then again in the middle of a training run, whose checkpoint is damaged."""
    save, words = RunFolder.save_checkpoint, ["--seeds", "2"]
    command = [*WORDS, *FAST, *words, "--data", str(data), "--out", str(tmp_path / "run")]
    stop_after(30)
    assert cli.main(command) == 130
    assert not (tmp_path / "run" / "training").exists()
    monkeypatch.setattr(_online_stream, "largest_square", None)  # it is written down
    stop_after(2 * 36 - 30 + 4)
    assert cli.main([*command, "--resume"]) == 130
    newest = max((tmp_path / "run" / "training").glob("*/checkpoints/*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    monkeypatch.setattr(RunFolder, "save_checkpoint", save)
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 0
    assert f"{newest} is damaged" in capsys.readouterr().err
    found, expected = ((p / "summary.json").read_bytes() for p in (tmp_path / "run", finished))
    assert found == expected


def test_a_tuning_run_goes_on_too(data, tmp_path, monkeypatch, stop_after, as_in_life):
    """Stopped behind its second measurement, at step 2 of 4."""
    words = [*WORDS, *FAST, "--tune-steps", "4", "--data", str(data)]
    command = [*words, "--out", str(tmp_path / "run")]
    stop_after(1)
    assert cli.main(command) == 130
    first, batches = [], StreamedTask.batches

    def noted(task, size, steps, **keywords):
        first.append((steps, keywords.get("first")))
        return batches(task, size, steps, **keywords)

    monkeypatch.setattr(StreamedTask, "batches", noted)
    stop_after(0)
    assert cli.main([*command, "--resume"]) == 130
    assert first == [(4, 2)]


@pytest.mark.parametrize(
    ("stride", "tune_steps", "chunk", "expected"),
    [
        *((2500, 5000, 10, 2500), (5000, 25_000, 10, 5000), (2500, 7500, 10, 2500)),
        *((4, 2, 2, 2), (2, 2, 2, 2), (4, 12, 2, 4), (8, 12, 2, 12), (4, 30, 2, 6)),
    ],
)
def test_tuning_runs_are_measured_at_equal_parts(stride, tune_steps, chunk, expected):
    study = StreamedNetworkStudy(
        steps=10 * stride, stride=stride, tune_steps=tune_steps, chunk=chunk
    )
    assert study.tune_stride == expected


def sgd(values, context):
    del context
    return optax.sgd(values["rate"])


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 3])
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
    words = {"task": "t", "model": "m", "unit": 1.0, "tuned_on": "u", "notes": ["n"]}
    summary = summarise_online([method], measured, **words)
    assert summary["notes"] == [
        "SGD diverged in 1 of 1 runs: their training loss is not finite at the end, and at step 2 "
        "in the first of them.",
        "n",
    ]
    assert summary["methods"][0]["final_loss"]["mean"] is None


def test_checkpoints_of_a_run_killed_at_its_end_go_too(data, tmp_path, monkeypatch, as_in_life):
    """Behind its result, before they were dropped."""
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    folder, place = RunFolder.create(tmp_path / "run", {}), sight(task, model, 8)
    run = (Method("SGD", sgd, ()), {"rate": 0.1}, task, place, Pace(4, 4, 2, 2), folder)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "drop_checkpoints", lambda folder: None)
        found = run_streamed(*run, key=jax.random.key(0))
    assert list(folder.path.rglob("*.safetensors"))
    np.testing.assert_array_equal(run_streamed(*run, key=jax.random.key(0)), found)
    assert not list(folder.path.rglob("*.safetensors"))


def test_methods_that_average_are_refused(data, tmp_path, as_in_life):
    """Their state is that of one array, and what they read from it would not be parameters."""
    task, model = imagenet(data, side=8, classes=4), build("mlp-4", (8, 8, 3), 4)
    folder, place = RunFolder.create(tmp_path / "run", {}), sight(task, model, 8)
    method = find_baseline("AdamW, schedule-free")
    run = (method, method.grid[0], task, place, Pace(4, 4, 2, 2), folder)
    with pytest.raises(ValueError, match="run_streamed.method: expected .* 'AdamW, schedule-free'"):
        run_streamed(*run, key=jax.random.key(0))


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
