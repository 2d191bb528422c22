"""The Bayesian tuner: its formula, what it finds, and trials that several workers share."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from optuna.exceptions import StorageInternalError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sqlalchemy.exc import OperationalError
from toys import MODEL

from mirrax._errors import ConfigError, MirraxError
from mirrax.study import _surrogate
from mirrax.study._baselines import BASELINES
from mirrax.study._compare import control_methods, learned_methods
from mirrax.study._images import ImageStudy, check_tuner
from mirrax.study._ranges import Range, around, point_of, values_at
from mirrax.study._search import Search, guarded, open_storage
from mirrax.study._surrogate import FIRST, level, posterior, propose

SOURCE = Path(__file__).parents[2] / "src"
SPACE = {"learning_rate": Range(1e-3, 1.0), "momentum": Range(0.5, 0.99, "complement")}


def test_a_range_is_even_in_what_is_log_uniform():
    rates, momenta = SPACE["learning_rate"], SPACE["momentum"]
    np.testing.assert_allclose([rates.at(u) for u in (0, 1 / 3, 1)], [1e-3, 1e-2, 1.0])
    np.testing.assert_allclose([momenta.at(u) for u in (0, 0.5, 1)], [0.5, 1 - 0.005**0.5, 0.99])
    for found in (rates, momenta):
        for share in (0.0, 0.3, 1.0):
            assert found.low <= found.at(share) <= found.high
            np.testing.assert_allclose(found.share(found.at(share)), share, rtol=0, atol=1e-12)
    point = np.array([0.2, 0.7])
    np.testing.assert_allclose(point_of(SPACE, values_at(SPACE, point)), point)
    assert around((0.1, 0.02), 2) == Range(0.01, 0.2)


def test_every_method_searches_two_ranges_around_its_widened_grid():

    params = MODEL.init(jax.random.key(0))
    geometry = control_methods(params, False)[0].context[0]
    ours = [*learned_methods(geometry, 0.1, True), *control_methods(params, True)]
    for method in (*ours, *BASELINES.values()):
        assert len(method.space) == 2
        for row in (*method.grid, *method.wide):
            for name, found in method.space.items():
                assert found.low < row[name] < found.high


def by_hand(points, scores, awaited, candidates, variance, lengths, noise):
    """Posterior mean and latent deviation by the textbook (Rasmussen & Williams, eq. 2.25-26)."""

    def kernel(first, second):
        gaps = (first[:, None] - second[None]) / lengths
        return variance * np.exp(-0.5 * (gaps**2).sum(-1))

    gram = kernel(points, points) + noise * np.eye(len(points))
    mean = kernel(candidates, points) @ np.linalg.solve(gram, scores)
    seen = np.concatenate([points, awaited])
    gram = kernel(seen, seen) + noise * np.eye(len(seen))
    cross = kernel(candidates, seen)
    left = variance - np.einsum("ij,ji->i", cross, np.linalg.solve(gram, cross.T))
    return mean, np.sqrt(left)


@pytest.mark.parametrize("waiting", [0, 2])
def test_the_next_point_minimises_the_confidence_bound_of_the_posterior(waiting, monkeypatch):
    rng = np.random.default_rng(3)
    points, awaited = rng.uniform(size=(9, 2)), rng.uniform(size=(waiting, 2))
    candidates, scores = rng.uniform(size=(40, 2)), level(rng.normal(size=9))
    fixed = ConstantKernel(1.7) * RBF([0.4, 0.2]) + WhiteKernel(0.01)
    process = GaussianProcessRegressor(fixed, optimizer=None).fit(points, scores)
    found = posterior(process, points, scores, awaited, candidates)
    expected = by_hand(points, scores, awaited, candidates, 1.7, np.array([0.4, 0.2]), 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    monkeypatch.setattr(_surrogate, "_fitted", lambda *_: process)
    monkeypatch.setattr(_surrogate, "_candidates", lambda *_: candidates)
    for kappa in (0.1, 1.0, 10.0):
        best = np.argmin(expected[0] - kappa * expected[1])
        chosen = propose(points, scores, awaited, kappa=kappa, seed=0)
        np.testing.assert_array_equal(chosen, candidates[best])


def test_scores_are_levelled_without_any_that_is_not_finite():
    found = level(np.array([1.0, 2.0, 3.0, 1e9, np.inf]))
    # The median of what is finite is 2.5, the best 1: nothing counts more than 4.
    expected = np.array([1.0, 2.0, 3.0, 4.0, 4.0])
    np.testing.assert_allclose(found, (expected - expected.mean()) / expected.std())
    np.testing.assert_array_equal(level(np.full(3, np.inf)), np.zeros(3))
    np.testing.assert_array_equal(level(np.full(3, 0.5)), np.zeros(3))


def searched(function, seed, trials=25):
    """All scores of a search on its own."""
    points, scores = np.empty((0, 2)), np.empty(0)
    for _ in range(trials):
        point = propose(points, scores, np.empty((0, 2)), kappa=1.0, seed=seed)
        points, scores = np.vstack([points, point]), np.append(scores, function(point))
    return scores


def at_random(function, seed, trials=25):
    """The best of as many points at random."""
    return min(map(function, np.random.default_rng(seed).uniform(size=(trials, 2))))


def quadratic(point):
    """In the logarithm of a rate and a decay; the upper half of the rates diverges."""
    if point[0] > 0.8:
        return np.inf
    return ((point[0] - 0.63) / 0.3) ** 2 + ((point[1] - 0.41) / 0.5) ** 2


def branin(point):
    """Above its minimum, 0.397887."""
    x, y = 15 * point[0] - 5, 15 * point[1]
    bowl = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10 - 0.397887


def beats_random(function, seeds, share):
    best = [searched(function, seed).min() for seed in seeds]
    others = np.sort([at_random(function, seed) for seed in range(200)])
    return max(best) < others[int(share * len(others))]


def test_a_search_beats_random_points_on_a_quadratic():
    assert beats_random(quadratic, range(2), 0.05)


@pytest.mark.slow
def test_a_search_beats_random_points_on_branins_function():
    assert beats_random(branin, range(8), 0.25)


def test_a_search_in_which_all_fails_goes_on_exploring():
    points = np.random.default_rng(0).uniform(size=(FIRST, 2))
    found = propose(points, np.full(FIRST, np.inf), np.empty((0, 2)), kappa=1.0, seed=0)
    assert np.isfinite(found).all() and np.abs(points - found).max(axis=1).min() > 0.05
    # With nothing known and many awaited, points keep filling the space.
    filled = propose(np.empty((0, 2)), np.empty(0), points, kappa=1.0, seed=0)
    assert np.isfinite(filled).all()


def evenly(points, scores, awaited):
    """A cheap proposal that depends on what is known."""
    rng = np.random.default_rng([len(points), len(awaited)])
    best = points[np.argmin(scores)] if len(points) else np.full(2, 0.5)
    return np.clip(0.5 * best + 0.5 * rng.uniform(size=2), 0, 1)


def search(path, limit=6, worker=None, propose=evenly, name="SGD 1", shared=True):
    storage = open_storage(str(path))
    return Search(storage, name, SPACE, limit, propose, {"seed": 0}, worker, shared)


def cost(values):
    return abs(np.log(values["learning_rate"] / 0.1)) + values["momentum"]


def finish(one):
    while asked := one.ask() or one.help():
        one.tell(asked, cost(asked.values))
    return one.done


def test_a_search_that_was_stopped_goes_on_to_the_same_trials(tmp_path):
    whole = finish(search(tmp_path / "whole"))
    stopped = search(tmp_path / "stopped")
    for _ in range(3):
        asked = stopped.ask()
        stopped.tell(asked, cost(asked.values))
    left = stopped.ask()  # and the process ends here
    again = search(tmp_path / "stopped")
    assert again.ask() == left
    assert finish(search(tmp_path / "stopped")) == whole and len(whole) == 6
    assert search(tmp_path / "stopped").ask() is None
    assert len(finish(search(tmp_path / "stopped", 8))) == 8


def test_of_two_workers_that_choose_at_once_the_second_chooses_again(tmp_path):
    first = search(tmp_path / "a", worker="first:1")
    raced = []

    def beaten(points, scores, awaited):
        if not raced:
            raced.append(first.ask())  # before this choice is written down
        return evenly(points, scores, awaited)

    second = search(tmp_path / "a", worker="second:1", propose=beaten)
    asked = second.ask()
    assert raced[0].values != asked.values and asked.number == 2
    first.tell(raced[0], 1.0)
    second.tell(asked, 2.0)
    assert first.done == second.done == [(raced[0].values, 1.0), (asked.values, 2.0)]
    states = [trial.state.name for trial in first._study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]  # the one in between was void


def test_a_worker_with_nothing_else_to_do_finishes_what_others_began(tmp_path):
    first = search(tmp_path / "a", limit=2, worker="first:1")
    second = search(tmp_path / "a", limit=2, worker="second:1")
    theirs, own = first.ask(), second.ask()
    second.tell(own, 2.0)
    assert second.ask() is None and second.help() == theirs
    second.tell(theirs, 1.0)
    first.tell(theirs, 1.0)  # told already, by the other
    assert first.ask() is None and first.help() is None
    assert [score for _, score in first.done] == [1.0, 2.0]


def test_a_trial_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = os.uname().nodename
    left = search(tmp_path / "a", worker=f"{host}:{ended.pid}").ask()
    alive = search(tmp_path / "a", worker=f"{host}:{os.getppid()}").ask()
    elsewhere = search(tmp_path / "a", worker=f"not-{host}:{ended.pid}").ask()
    one = search(tmp_path / "a", limit=4)
    assert one.ask() == left
    one.tell(left, 1.0)
    assert one.ask().number not in (alive.number, elsewhere.number)


def test_of_a_storage_that_nobody_shares_other_machines_are_gone(tmp_path):
    """Continued in a new container, a run does not wait for the one that was before."""
    host = os.uname().nodename
    elsewhere = search(tmp_path / "a", worker=f"not-{host}:1").ask()
    alive = search(tmp_path / "a", worker=f"{host}:{os.getppid()}").ask()
    one = search(tmp_path / "a", limit=3, shared=False)
    assert one.ask() == elsewhere
    one.tell(elsewhere, 1.0)
    assert one.ask().number not in (alive.number, elsewhere.number)


def test_what_failed_is_infinitely_bad_and_counts(tmp_path):
    one = search(tmp_path / "a", limit=3)
    for score in (np.nan, np.inf, 0.5):
        one.tell(one.ask(), score)
    assert [score for _, score in search(tmp_path / "a").done] == [np.inf, np.inf, 0.5]


def test_studies_of_one_storage_are_kept_apart_by_name(tmp_path):
    finish(search(tmp_path / "a"))
    assert search(tmp_path / "a", name="SGD 2").done == []


WORKER = """
import sys, time
import numpy as np
from mirrax.study._ranges import Range
from mirrax.study._search import Search, open_storage

def propose(points, scores, awaited):
    return np.random.default_rng(len(points) + len(awaited)).uniform(size=1)

space = {"rate": Range(0.01, 1.0)}
one = Search(open_storage(sys.argv[1]), "SGD", space, 20, propose, {"seed": 0})
while asked := one.ask() or one.help():
    time.sleep(0.02)
    one.tell(asked, 2 * asked.values["rate"])
values = [values["rate"] for values, _ in one.done]
assert [score for _, score in one.done] == [2 * value for value in values]
print(len(set(values)))
"""


def test_two_processes_share_the_trials_of_one_journal(tmp_path):
    """Equal knowledge makes equal choices here, so a trial chosen without the last is seen."""
    command = [sys.executable, "-c", WORKER, str(tmp_path / "shared.journal")]
    there = {**os.environ, "PYTHONPATH": str(SOURCE)}
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=there) for _ in range(2)
    ]
    assert [worker.communicate(timeout=120)[0].strip() for worker in workers] == ["20", "20"]


def test_a_journal_cut_short_by_a_crash_goes_on(tmp_path):
    path = tmp_path / "a"
    before = finish(search(path, 3))
    with open(path, "ab") as file:
        file.write(b'{"op_code":4,"worker_id"')
    assert search(path, 3).done == before and len(finish(search(path, 5))) == 5


@pytest.mark.parametrize("length", [0, 1, 9, 10, 40])
def test_a_journal_whose_first_line_was_cut_short_is_empty(tmp_path, length):
    path = tmp_path / "a"
    search(path)
    path.write_bytes(path.read_bytes()[:length])
    assert search(path, 3).done == [] and len(finish(search(path, 3))) == 3


@pytest.mark.parametrize("error", [StorageInternalError, OperationalError("x", {}, OSError())])
def test_a_storage_that_fails_while_it_is_used_is_one_line(error):
    with pytest.raises(MirraxError, match="finished trials are kept") as caught:
        with guarded("mysql://ada:secret@host/trials"):
            raise error
    told = str(caught.value)
    assert "mysql://ada:***@host/trials" in told and "\n" not in told


def test_a_password_that_was_not_written_down_is_asked_for_again():
    with pytest.raises(ConfigError, match=r"password of mysql://ada:\*\*\*@host .* give the whole"):
        check_tuner(ImageStudy(tuner="bayes", storage="mysql://ada:***@host"))


@pytest.mark.slow
def test_a_database_is_a_storage_too(tmp_path):
    address = f"sqlite:///{tmp_path / 'a.db'}"
    assert len(finish(search(address, 3))) == 3
    assert len(search(address, 3).done) == 3


def test_a_database_that_cannot_be_opened_is_named_without_its_password():
    with pytest.raises(ConfigError, match="cannot open the nothing database") as caught:
        open_storage("nothing://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"learning_rate,score\n0.1,0.2\n", "is not a journal of trials"),
        (b"[1, 2]\n", "is not a journal of trials"),
        (b"no line of a journal", "is not a journal of trials"),
        (b'{"op_code":0}\n{"op_code":0}\n', "is damaged"),
        (
            b'{"op_code":0,"worker_id":"a","study_name":"b","directions":[1]}\n{"op_\n{}\n',
            "damaged",
        ),
    ],
)
def test_a_file_that_is_no_sound_journal_is_left_as_it_is(tmp_path, content, message):
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        open_storage(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(MirraxError, match="its folder does not exist"):
        open_storage(str(tmp_path / "nowhere" / "a"))
    with pytest.raises(MirraxError, match="a folder of that name exists"):
        open_storage(str(tmp_path))
