"""Numbers of things are whole, wherever they are given."""

import pytest

from mirrax.hypergradient import Evolution, Implicit, Reverse, Truncated
from mirrax.inner import PreconditionedDescent
from mirrax.meta import Alternating, ManyShot
from mirrax.objective import ConditionPenalty


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (Reverse, "Reverse.steps"),
        (lambda n: Evolution(4, n, 0.1), "Evolution.pairs"),
        (lambda n: Evolution(4, 2, 0.1, window=n), "Evolution.window"),
        (lambda n: Truncated(4, n), "Truncated.window"),
        (lambda n: Implicit(4, linear_steps=n), "Implicit.linear_steps"),
        (lambda n: ConditionPenalty(lambda *_: None, n), "ConditionPenalty.steps"),
        (lambda n: Alternating(0.1, n), "Alternating.steps"),
        (
            lambda n: ManyShot(PreconditionedDescent(0.1), Alternating(0.1, 2), lambda k: k, n),
            "ManyShot.visits",
        ),
    ],
)
@pytest.mark.parametrize("value", [2.5, True, "2", 0])
def test_what_is_no_number_of_things_is_refused(make, field, value):
    said = "at least 1, got 0" if value == 0 else "a whole number, got "
    with pytest.raises(ValueError, match=f"^{field}: expected {said}"):
        make(value)
