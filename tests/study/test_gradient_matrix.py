"""The matrix of hypergradients: what it must say, and that it sees an estimator that is wrong."""

import equinox as eqx
import jax
import pytest

from mirrax._errors import ConfigError
from mirrax.hypergradient import AbstractHypergradient, Reverse
from mirrax.study._gradient_cases import ALL_PARTS, GEOMETRIES, STEPWISE, Column, estimators
from mirrax.study._gradient_matrix import GradientStudy, entries
from repeats import slow

EXACT, DIFFERENCES, FORMULA = 1e-9, 1e-6, 1e-9


NO_POTENTIAL = ("BlockIAF", "ModeProducts", "KroneckerUpdate", "RandomMask")
LINEAR = ("Euclidean", "Diagonal", "Kronecker", "Transformed(Diagonal)", "ModeProducts")
LINEAR = (*LINEAR, "Blockwise(Kronecker, Scaled(Diagonal))", "KroneckerUpdate")


def refusal(geometry, inner, estimator):
    """Part of the reason for which an entry is refused; `None` for all others."""
    if inner == "solution" and geometry in NO_POTENTIAL:
        return "must have a potential"
    if inner == "run" and estimator.startswith("Implicit"):
        return "expected a stationary inner problem"
    return None


def assert_entries(found, geometry, inner):
    """What every entry owes, whatever the geometry; nothing else is refused, nothing flagged."""
    for row in found:
        name = row["estimator"]
        reason = refusal(geometry, inner, name)
        if reason is not None:
            assert row["kind"] == "refused" and reason in row["reason"], name
            continue
        known = estimators(2).get(name)
        assert known is None or row["kind"] == known.kind, row
        if row["kind"] == "exact":
            assert row["others"] is None or row["others"] < EXACT, name
            assert row.get("differences", 0) < DIFFERENCES, name
            assert ("differences" in row) == (geometry not in STEPWISE)
            assert ("closed_form" in row) == (geometry in LINEAR)
            assert row.get("closed_form", 0) < FORMULA, name
        elif row["kind"] == "random":
            assert 0.5 < row["mean_square"] < 1.5, name
            assert row["largest"] < 3.5, name
        else:
            # Of a run it were exact else; of a solution late steps have all of the derivative.
            assert inner == "solution" or row["error"] > 1e-3, name


def columns(*names):
    return {name: estimators(512)[name] for name in names}


def by_name(found):
    return {row["estimator"]: row for row in found}


@pytest.mark.slow
def test_a_run():
    found = entries(
        "Diagonal", "run", columns("Reverse", "Forward", "Implicit, CG", "Direct", "Evolution")
    )
    assert_entries(found, "Diagonal", "run")
    rows = by_name(found)
    assert rows["Reverse"]["closed_form"] < 1e-13
    assert rows["Implicit, CG"]["kind"] == "refused"
    assert "use Direct" in rows["Implicit, CG"]["reason"]
    assert 0 < rows["Direct"]["cosine"] < 1


@pytest.mark.slow
def test_a_solution():
    found = entries("Diagonal", "solution", columns("Implicit, CG", "Reverse"))
    assert_entries(found, "Diagonal", "solution")
    assert by_name(found)["Implicit, CG"]["closed_form"] < FORMULA


def test_without_a_potential_there_is_no_solution():
    (row,) = entries("KroneckerUpdate", "solution", columns("Implicit, CG"))
    assert row["kind"] == "refused"
    assert "KroneckerUpdate" in row["reason"]


@pytest.mark.slow
def test_without_an_exact_estimator_reverse_is_what_others_are_compared_with():
    (alone,) = entries("Diagonal", "run", columns("Direct"))
    beside = by_name(entries("Diagonal", "run", columns("Reverse", "Direct")))["Direct"]
    assert alone == beside
    (other,) = entries("Diagonal", "run", columns("Direct"), seed=1)
    assert other["error"] != alone["error"]


class Altered(AbstractHypergradient):
    """The exact derivative, but for a hundred-thousandth of one part."""

    steps: int
    part: str
    wrt: tuple = ALL_PARTS

    def estimate(self, objective, inner, prior, problem, state, *, key):
        exact = Reverse(self.steps, wrt=self.wrt)
        value, slope, after = exact.estimate(objective, inner, prior, problem, state, key=key)
        wrong = jax.tree.map(lambda leaf: leaf * (1 + 1e-5), getattr(slope, self.part))
        return value, eqx.tree_at(lambda s: getattr(s, self.part), slope, wrong), after


@pytest.mark.parametrize("part", ["geometry", slow("start"), slow("shared")])
def test_it_sees_an_estimator_that_is_wrong(part):
    wrong = Column("exact", lambda steps: Altered(steps, part))
    rows = by_name(entries("Diagonal", "run", {"Altered": wrong, **columns("Reverse")}))
    for row in rows.values():
        assert row["others"] > 10 * EXACT
    assert rows["Altered"]["closed_form"] > 10 * FORMULA > 1e4 * rows["Reverse"]["closed_form"]
    assert rows["Altered"]["differences"] > 1e3 * rows["Reverse"]["differences"]


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["run", "solution"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_pair(geometry, inner):
    assert_entries(entries(geometry, inner, estimators(512)), geometry, inner)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"geometries": ("Diagonl",)}, "--geometries: no 'Diagonl'"),
        ({"estimators": ("Reverse", "Backward")}, "--estimators: no 'Backward'"),
        ({"pairs": 1}, "--pairs: expected 2 to"),
    ],
)
def test_unknown_rows_and_columns_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        GradientStudy(**fields)
