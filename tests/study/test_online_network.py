"""S002's Fig. 1 as a user runs it, and the accuracies it is made of."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mirrax import cli, report
from mirrax._errors import MirraxError
from mirrax.meta import classification
from mirrax.models import build
from mirrax.study._baselines import Method
from mirrax.study._online_protocol import online_methods, reached
from mirrax.study._trials import arena, run_trials
from mirrax.tasks import rotated_digits

WORDS = ["reproduce", "s002-fig1", "--budget", "smoke", "--steps", "20", "--json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, as_in_life):
    path = tmp_path_factory.mktemp("online") / "run"
    assert cli.main([*WORDS, "--out", str(path)]) == 0
    return path


def test_a_run_leaves_a_summary_and_a_figure(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert [row["optimiser"] for row in summary["methods"]] == [
        *("SGD", "Online", "Online, optimistic"),
    ]
    assert summary["configurations"] == 12 and summary["task"] == "rotated-digits/0"
    assert summary["unit"] > 0
    for row in summary["methods"]:
        assert row["curve"]["steps"] == [0, 10, 20]
        last = row["curve"]["test"][-1]
        assert last["values"] == row["test_accuracy"]["values"] and len(last["values"]) == 2
    assert summary["methods"][0]["against_sgd"]["values"] == [0.0, 0.0]
    assert (finished / "figures" / "accuracy.svg").stat().st_size > 1000
    text = report.online_network_table(summary).text()
    assert "each method tuned over 12 configurations" in text.replace("\n", " ")


def test_a_report_shows_the_run(finished, tmp_path):
    run = report.Run.read(finished)
    assert not run.notes
    page = report.html([run], tmp_path / "report.html").read_text()
    assert "Online, optimistic" in page and "each method tuned over 12 configurations" in page


def test_a_damaged_summary_is_named(finished, tmp_path):
    """A curve that does not fit its steps."""
    summary = json.loads((finished / "summary.json").read_text())
    summary["methods"][1]["curve"]["test"].pop()
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(MirraxError, match="'curve' of Online has not one entry of test for each"):
        report.Run.read(tmp_path)


def test_resuming_a_finished_run_changes_nothing(finished, as_in_life):
    before = (finished / "summary.json").read_bytes()
    assert cli.main([*WORDS, "--out", str(finished), "--resume"]) == 0
    assert (finished / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", "7"], "--stride: expected a divisor of --steps (20), got 7."),
        (["--batch", "0"], "--batch: expected a positive number, got 0."),
        (["--model", "lenet"], "unknown model 'lenet'. Did you mean 'lenet5' or 'resnet50'?"),
    ],
)
def test_bad_requests_are_one_clear_line(words, message, tmp_path, capsys):
    assert cli.main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data_leave_no_folder_behind(tmp_path, capsys):
    words = [*WORDS, "--family", "mnist", "--data", str(tmp_path / "nowhere")]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) != 0
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_all_methods_have_grids_of_one_size():
    assert {len(method.grid) for method in online_methods(1.0, (0.1, 1.0), (1.0, 2.0, 3.0))} == {6}


def test_accuracies_along_a_run_are_those_of_its_parameters(as_in_life):
    """Watched and unwatched runs agree, and the ends with a plain loop."""
    tasks = rotated_digits(angles=(0,))
    model = build("mlp-8", tasks[0].image_shape, tasks[0].classes)
    place = arena(tasks, classification(tasks, model, 32), model, 200)
    methods = [Method("SGD", lambda values, _: optax.sgd(values["rate"]), ({"rate": 0.5},))]
    options = {"steps": 10, "stride": 5, "seeds": 2, "key": jax.random.key(3)}
    jobs = [(0, {"rate": 0.5})]
    plain = run_trials(methods, jobs, place, **options)
    watched = run_trials(methods, jobs, place, watch=True, **options)
    assert plain.accuracies is None and watched.accuracies.shape == (1, 1, 2, 3, 2)
    np.testing.assert_array_equal(watched.train_loss, plain.train_loss)
    np.testing.assert_array_equal(watched.accuracies[..., -1, 1], plain.test_accuracy)

    keys = jax.random.split(jax.random.fold_in(jax.random.split(jax.random.key(3))[0], 0), 2)
    for seed, key in enumerate(keys):
        logits = model.apply(model.init(key), jnp.asarray(tasks[0].train_images[:200]) / 16)
        share = np.mean(np.argmax(logits, -1) == tasks[0].train_labels[:200])
        np.testing.assert_allclose(watched.accuracies[0, 0, seed, 0, 0], share, rtol=1e-6)


def test_a_share_that_is_never_reached_has_no_step():
    assert reached(np.array([0.1, 0.2]), 1.0, [0, 10]) is None
