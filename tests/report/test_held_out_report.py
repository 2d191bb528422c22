"""Leave-one-out tables: standings against baselines, and steps task by task."""

from mirrax.report import standing_table, steps_by_task_table


def steps(**targets):
    """Steps to each target by run; `None` where a run did not get there."""

    def entry(values):
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if len(known) == len(values) else None
        return {"mean": mean, "se": None if mean is None else 5.0, "values": values}

    return {"steps_to": {f"0.{name[1:]}": entry(values) for name, values in targets.items()}}


CELLS = {
    "easy": {
        "MetaMD": steps(t5=[10, 20], t1=[40, 60]),
        "SGD": steps(t5=[30, 30], t1=[90, 110]),
        "Adam": steps(t5=[20, 20], t1=[None, 70]),
    },
    "hard": {
        "MetaMD": steps(t5=[200, 220], t1=[None, None]),
        "SGD": steps(t5=[400, 420], t1=[None, 490]),
        "Adam": steps(t5=[None, 300], t1=[None, None]),
    },
    "hopeless": {
        "MetaMD": steps(t5=[1, 1], t1=[1, 1]),
        "SGD": steps(t5=[None, 2], t1=[None, None]),
        "Adam": steps(t5=[1, 1], t1=[1, 1]),
    },
}


def texts(table, column):
    position = [c.key for c in table.columns].index(column)
    return [row[position].text for row in table.rows]


def test_each_task_has_the_lowest_target_that_the_yardsticks_reached_in_every_run():
    table = steps_by_task_table({"cells": CELLS}, ["SGD", "SGD-M"])
    assert [column.label for column in table.columns] == [
        "Optimiser",
        "easy, to 0.1",
        "hard, to 0.5",
    ]
    assert texts(table, "easy") == ["50 ± 5", "100 ± 5", "in 1 of 2 runs"]
    assert texts(table, "hard") == ["210 ± 5", "410 ± 5", "in 1 of 2 runs"]
    best = [[cell.best for cell in row] for row in table.rows]
    assert best == [[False, True, True], [False] * 3, [False] * 3]
    assert "that SGD reached in every run" in table.notes[0]


def test_no_table_where_no_yardstick_got_anywhere():
    assert steps_by_task_table({"cells": {"hopeless": CELLS["hopeless"]}}, ["SGD"]) is None
    assert steps_by_task_table({"cells": CELLS}, ["Muon"]) is None


def test_standings_name_their_rivals_and_say_what_was_not_reached():
    def standing(gain, ratio, to):
        return {
            "accuracy": {"rival": "Adam", "gain": gain, "paired_se": 0.0005},
            "final_loss": {"rival": "SGD-M", "ratio": ratio},
            "steps_to": {"0.3": to and {"rival": "SGD-M", "ratio": to}, "0.1": None},
        }

    result = {
        "against_best_baseline": {
            "MetaMD": standing(0.0102, 0.5, 0.75),
            "MetaMD, averaged": standing(-0.003, 1.25, None),
        }
    }
    table = standing_table(result)
    assert [column.label for column in table.columns] == [
        "Geometry",
        "Test accuracy (points)",
        "Final training loss",
        "Steps to loss 0.3",
    ]
    assert texts(table, "accuracy") == ["+1.02 ± 0.05 to Adam", "−0.30 ± 0.05 to Adam"]
    assert texts(table, "final training loss") == ["0.50 of SGD-M's", "1.25 of SGD-M's"]
    assert texts(table, "steps to loss 0.3")[0] == "0.75 of SGD-M's"
    assert texts(table, "steps to loss 0.3")[1] not in ("", "0.75 of SGD-M's")
