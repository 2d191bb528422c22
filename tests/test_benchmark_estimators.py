"""The pieces of the estimators' benchmark: its problem, its predictions and its marks."""

import jax
import numpy as np
import pytest


def _slope(side: str, steps: int) -> np.ndarray:
    from benchmarks import _estimator_sides as sides
    from benchmarks._estimator_problem import Numbers, Size

    function, arguments = sides.program(side, steps, Numbers.make(Size(3, 2)))
    slope = sides.result_of(jax.jit(function)(*arguments)).slope
    assert slope is not None
    return slope


@pytest.mark.parametrize(
    "sides, steps",
    [
        (("reverse", "reverse, checkpoints", "reverse, mixed", "forward"), 5),
        (("implicit, cg", "implicit, neumann", "implicit, gmres"), 200),
    ],
    ids=["run", "solution"],
)
def test_sides_that_must_agree_do(sides, steps):
    first, *rest = (_slope(side, steps) for side in sides)
    assert first.shape == (3, 1)  # one number for two parameters
    for slope in rest:
        np.testing.assert_allclose(slope, first, rtol=1e-3, atol=1e-5)


def test_sizes_are_read_as_they_are_written():
    from benchmarks._estimator_problem import Size

    assert Size.read("10x10000").parameters == 100_000
    assert [str(Size.read(text)) for text in ("10x10000", "1000")] == ["10x10000", "1000"]


def test_longer_runs_are_predicted_by_a_line():
    from benchmarks._estimator_case import predicted

    cases = [
        {"side": "higher", "steps": 10, "cpu": 2.0},
        {"side": "higher", "steps": 20},
        {"side": "higher", "steps": 100, "cpu": 11.0},
    ]
    assert predicted(cases, 1000, "cpu") == pytest.approx(101.0)
    assert predicted(cases[:1], 1000, "cpu") == 200.0
    assert predicted([cases[0] | {"side": "implicit, cg"}], 1000, "cpu") == 2.0
    assert predicted([], 1000, "cpu") == 0.0


def test_what_cannot_fit_is_not_compiled():
    from benchmarks._estimator_case import too_large
    from benchmarks._estimator_problem import Size

    grows = [{"steps": 10, "measured_bytes": 1e9}, {"steps": 20, "measured_bytes": 2e9}]
    assert too_large("forward", 10, Size(100_000), [], 6e9) == "160 GB of tangents"
    assert too_large("higher", 1000, Size(10), grows, 6e9) == "100 GB predicted"
    assert too_large("reverse", 1000, Size(10), grows, 6e9) == ""


def test_sides_that_compute_something_else_are_marked():
    from benchmarks._estimator_agreement import disagrees
    from benchmarks._estimator_tables import figure

    calm = {"load_before": 2.4, "own_load": 1.0}
    wrong = calm | {"side": "higher", "cpu": 0.5, "difference": 0.1}
    assert disagrees(wrong) and figure("cpu", 1e3, wrong) == "500*"
    assert not disagrees(wrong | {"side": "direct"})
    assert not disagrees(wrong | {"difference": 1e-5})
    flagged = wrong | {"flags": ["inner_unconverged"]}
    assert figure("cpu", 1e3, flagged) == "500†"
    assert figure("cpu", 1e3, wrong | {"load_before": 2.6}) == "500*‡"
    assert figure("cpu", 1e3, {"side": "forward", "predicted_cpu": 7.0}) == "(7,000)"
    assert figure("cpu", 1e3, {"side": "forward"}) == "–"
