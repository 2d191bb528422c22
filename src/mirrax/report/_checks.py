"""What a file of a run folder must hold, each check one sentence on the first fault it finds.

A check returns `None` where the content can be used. Fields that are missing are not faults unless
nothing can be shown without them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ._format import clean, finite
from ._labels import method_label

_ADAPTATION = ("support_loss", "support_loss_ci95", "gradient_norm", "gradient_norm_ci95")


def numbers(value: object) -> bool:
    """Whether `value` is a list of numbers, where `null` stands for one that does not exist."""
    return isinstance(value, list) and all(
        entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool))
        for entry in value
    )


def check_config(config: Mapping[str, Any]) -> str | None:
    """What is wrong with `config.json`."""
    return None if isinstance(config.get("recipe"), str) else "it does not name its recipe"


def check_summary(summary: Mapping[str, Any]) -> str | None:
    """What is wrong with `summary.json`; one without a kind is a comparison of optimisers."""
    notes = summary.get("notes") or []
    if not isinstance(notes, list):
        return "'notes' is not a list of sentences"
    certificate = summary.get("certificate") or {}
    if not isinstance(certificate, Mapping):
        return "'certificate' is not an object"
    check = _CHECKS.get(kind_of(summary), _check_comparison)
    return check(summary) or _check_certificate(certificate)


def kind_of(summary: Mapping[str, Any] | None) -> str:
    """The word by which checks, tables and figures of a run are found; of many kinds none."""
    return str((summary or {}).get("kind", ""))


def known_kind(summary: Mapping[str, Any]) -> bool:
    """Whether this version can show runs of its kind."""
    return kind_of(summary) in ("", *_CHECKS)


def has_rounds(summary: Mapping[str, Any] | None) -> bool:
    """Whether such a run writes a line for every meta-round into its own folder."""
    return kind_of(summary) not in _CHECKS and not (summary or {}).get("cells")


def _check_comparison(summary: Mapping[str, Any]) -> str | None:
    rows = summary.get("comparison", [])
    fault = _check_named(rows, "comparison", "optimiser", "optimisers")
    if fault:
        return fault
    for row in rows:
        for key in ("hyperparameters", "steps_to", "seconds_to", "tuning"):
            if not isinstance(row.get(key) or {}, Mapping):
                return f"'{key}' of {clean(row['optimiser'])} is not an object"
        for entry in (row.get("steps_to") or {}).values():
            if isinstance(entry, Mapping) and not numbers(entry.get("values") or []):
                return f"'steps_to' of {clean(row['optimiser'])} has values that are no numbers"
        fault = _check_fraction(row, "test_accuracy", row["optimiser"])
        if fault:
            return fault
    cells = summary.get("cells") or {}
    if not isinstance(cells, Mapping) or not all(_all(Mapping, v) for v in cells.values()):
        return "'cells' is not an object of the entries of each task"
    return None


def _check_certificate(certificate: Mapping[str, Any]) -> str | None:
    for key in ("bounds", "satisfied", "by_step"):
        if not isinstance(certificate.get(key) or {}, Mapping):
            return f"'{key}' of 'certificate' is not an object"
    if not isinstance(certificate.get("notes") or [], list):
        return "'notes' of 'certificate' is not a list of sentences"
    by_step = certificate.get("by_step") or {}
    if not by_step:
        return None
    bounds = by_step.get("bounds") or {}
    if by_step.get("regret") is None or not isinstance(bounds, Mapping) or None in bounds.values():
        return "'by_step' of 'certificate' is not the regret and an object of bounds by step"
    what = "'by_step' of 'certificate'"
    return _check_series(by_step, ("regret",), what) or _check_series(
        {**bounds, "steps": by_step["steps"]}, tuple(bounds), what
    )


def _all(kind: type, values: object) -> bool:
    """Whether `values` is an object with values of one kind."""
    return isinstance(values, Mapping) and all(isinstance(v, kind) for v in values.values())


def _check_online_network(summary: Mapping[str, Any]) -> str | None:
    rows = summary.get("methods")
    fault = _check_named(rows, "methods", "optimiser", "optimisers")
    if fault or not isinstance(rows, list):
        return fault or "'methods' is not a list of objects"
    for row in rows:
        found, name = row.get("curve"), clean(row["optimiser"])
        curve: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        steps = curve.get("steps")
        if not isinstance(steps, list) or not numbers(steps) or None in steps or not steps:
            return f"'curve' of {name} has no list of steps"
        for key in ("train", "test"):
            points = curve.get(key)
            if (
                not isinstance(points, list)
                or len(points) != len(steps)
                or not all(isinstance(point, Mapping) for point in points)
            ):
                return f"'curve' of {name} has not one entry of {key} for each step"
    return None


def _check_online_bounds(summary: Mapping[str, Any]) -> str | None:
    rows = summary.get("bounds")
    fault = _check_named(rows, "bounds", "bound", "bounds")
    if fault or not isinstance(rows, list):
        return fault
    for row in rows:
        values = [row.get(key, "") for key in ("median", "largest", "count", "violated")]
        if not numbers(values) or None in values[2:]:
            return f"an entry of 'bounds', {clean(row['bound'])}, lacks one of its four numbers"
        if not all(isinstance(row.get(key), str) for key in ("what", "kind")):
            return f"an entry of 'bounds', {clean(row['bound'])}, does not say of what it is"
    return None


def _check_online(summary: Mapping[str, Any]) -> str | None:
    settings, steps = summary.get("settings"), summary.get("curve_steps")
    fault = _check_named(settings, "settings", "minimiser", "settings")
    if fault or not isinstance(settings, list):
        return fault
    if not isinstance(steps, list) or not numbers(steps) or None in steps:
        return "'curve_steps' is not a list of numbers"
    for setting in settings:
        problems = setting.get("problems")
        if not isinstance(problems, list) or not all(isinstance(p, Mapping) for p in problems):
            return "'problems' of a setting is not a list of objects"
        fault = _check_named(setting.get("methods"), "methods", "method", "methods")
        for row in () if fault else setting["methods"]:
            fault = fault or _check_online_method(row, len(problems), len(steps))
        if fault:
            return fault
    return None


def _check_online_method(row: Mapping[str, Any], problems: int, steps: int) -> str | None:
    name = clean(row["method"])
    if not _is_table([row.get("final")], 1, problems):
        return f"'final' of {name} is not a list of {problems} numbers, one a problem"
    if not _is_table(row.get("loss"), problems, steps):
        return f"'loss' of {name} is not {problems} lists of {steps} numbers"
    for key in ("sensitivity", *(["meta_sensitivity"] if "meta_sensitivity" in row else [])):
        found = row.get(key)
        rates = found.get("rates") if isinstance(found, Mapping) else None
        if not isinstance(rates, list) or not numbers(rates) or None in rates:
            return f"'{key}' of {name} has no list of rates"
        if not _is_table((found or {}).get("cumulative"), problems, len(rates)):
            return f"'{key}' of {name} is not {problems} lists of {len(rates)} numbers"
    return None


def _is_table(rows: object, count: int, width: int) -> bool:
    """Whether there are `count` lists of `width` numbers."""
    return (
        isinstance(rows, list)
        and len(rows) == count
        and all(isinstance(row, list) and numbers(row) and len(row) == width for row in rows)
    )


def _check_few_shot(summary: Mapping[str, Any]) -> str | None:
    rows = summary.get("methods")
    fault = _check_named(rows, "methods", "method", "methods")
    if fault or not isinstance(rows, list):
        return fault
    if not isinstance(summary.get("protocol") or {}, Mapping):
        return "'protocol' is not an object"
    seen = set()
    for row in rows:
        name = method_label(row["method"])
        if name in seen:
            return f"two entries of 'methods' are named {name}"
        seen.add(name)
        fault = _check_method(row, clean(row["method"]))
        if fault:
            return fault
    return None


def _check_method(row: Mapping[str, Any], name: str) -> str | None:
    for key in ("test_accuracy", "validation_accuracy", "behind", "query_loss", "train_loss"):
        entry = row.get(key)
        if entry is not None and not isinstance(entry, Mapping):
            return f"'{key}' of {name} is not an object with 'mean' and 'ci95'"
        width = finite((entry or {}).get("ci95"))
        if width is not None and width < 0:
            return f"the interval of '{key}' of {name} has the negative half-width {width:g}"
    for key in ("learned", "seconds_per_step"):
        if row.get(key) is not None and not numbers([row[key]]):
            return f"'{key}' of {name} is not a number"
    for key, series in (("adaptation", _ADAPTATION), ("training", ("loss",))):
        traced = row.get(key)
        if traced is None:
            continue
        if not isinstance(traced, Mapping):
            return f"'{key}' of {name} is not an object of lists"
        fault = _check_series(traced, series, f"'{key}' of {name}")
        if fault:
            return fault
    return _check_fraction(row, "test_accuracy", name) or _check_fraction(
        row, "validation_accuracy", name
    )


def _check_named(rows: object, field: str, key: str, what: str) -> str | None:
    """What is wrong with a list of objects that are each to have a name."""
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        return f"'{field}' is not a list of {what}"
    for i, row in enumerate(rows, 1):
        if not isinstance(row.get(key), str):
            return f"entry {i} of '{field}' does not name its {key}"
    return None


def _check_fraction(row: Mapping[str, Any], key: str, name: object) -> str | None:
    entry = row.get(key)
    mean = finite(entry.get("mean") if isinstance(entry, Mapping) else entry)
    if mean is None or 0 <= mean <= 1:
        return None
    return f"{key} of {clean(name)} is {mean:g} where a fraction between 0 and 1 is expected"


def _check_series(series: Mapping[str, Any], keys: Sequence[str], what: str) -> str | None:
    """What is wrong with lists that are each to have one number a step; any may be missing."""
    steps = series.get("steps")
    if not isinstance(steps, list) or not numbers(steps) or None in steps:
        return f"'steps' in {what} is not a list of numbers"
    for key in keys:
        values = series.get(key)
        if values is not None and (not numbers(values) or len(values) != len(steps)):
            return f"'{key}' in {what} is not a list of {len(steps)} numbers, one a step"
    return None


def check_record(record: Mapping[str, Any]) -> str | None:
    """What is wrong with `record.json`."""
    parts = record.get("made_by")
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        return "'made_by' is not a list of objects"
    for one in (record, *parts):
        if not isinstance(one.get("command"), str | None):
            return "'command' is not a text"
        if not isinstance(one.get("versions") or {}, Mapping):
            return "'versions' is not an object"
    return None


def check_curves(curves: Mapping[str, Any]) -> str | None:
    """What is wrong with `curves.json`."""
    steps = curves.get("steps")
    if not numbers(steps) or not isinstance(steps, list) or None in steps:
        return "'steps' is not a list of numbers"
    if "tasks" not in curves:
        return _check_named_curves(curves.get("curves"), steps)
    if not isinstance(curves["tasks"], Mapping):
        return "'tasks' is not an object of curves, task by task"
    faults = [_check_named_curves(named, steps) for named in curves["tasks"].values()]
    return next(filter(None, faults), None)


def _check_named_curves(named: object, steps: Sequence[Any]) -> str | None:
    if not isinstance(named, Mapping):
        return "'curves' is not an object of one curve an optimiser"
    for name, curve in named.items():
        if not isinstance(curve, Mapping) or "mean" not in curve:
            return f"the curve of {clean(name)} has no 'mean'"
        for key in ("mean", "low", "high"):
            values = curve.get(key)
            if values is None and key != "mean":
                continue
            if not isinstance(values, list) or not numbers(values) or len(values) != len(steps):
                return f"'{key}' of {clean(name)} is not a list of {len(steps)} numbers, one a step"
    return None


def check_geometry(geometry: Mapping[str, Any]) -> str | None:
    """What is wrong with `geometry.json`."""
    leaves = geometry.get("leaves")
    if not isinstance(leaves, list) or not all(isinstance(leaf, Mapping) for leaf in leaves):
        return "'leaves' is not a list of parameters"
    for i, leaf in enumerate(leaves, 1):
        if not isinstance(leaf.get("name"), str):
            return f"entry {i} of 'leaves' has no name"
        for key in ("shape", "roles"):
            if not isinstance(leaf.get(key) or [], list):
                return f"'{key}' of {clean(leaf['name'])} is not a list"
        spectrum = leaf.get("spectrum")
        if spectrum is not None and not numbers(spectrum):
            return f"the spectrum of {clean(leaf['name'])} is not a list of numbers"
        if any(value is not None and value < 0 for value in spectrum or ()):
            return f"the spectrum of {clean(leaf['name'])} has a negative rate"
        histogram = leaf.get("histogram")
        if histogram is None:
            continue
        both = (
            [histogram.get(k) for k in ("edges", "counts")]
            if isinstance(histogram, Mapping)
            else []
        )
        sizes = [len(values) for values in both if isinstance(values, list) and numbers(values)]
        if len(sizes) != 2 or sizes[0] != sizes[1] + 1:
            return f"the histogram of {clean(leaf['name'])} needs one more edge than counts"
    return None


def check_trajectories(found: Mapping[str, Any]) -> str | None:
    """What is wrong with `trajectories.json`."""
    for key in ("matrix", "metric"):
        if (key in found or key == "matrix") and not _is_definite(found.get(key)):
            return f"'{key}' is not a 2 by 2 matrix of numbers that is positive definite"
    if not _is_point(found.get("vector")):
        return "'vector' is not two numbers"
    if not isinstance(found.get("steps") or {}, Mapping):
        return "'steps' is not an object of one number an optimiser"
    paths = found.get("trajectories")
    if not isinstance(paths, Mapping) or not paths:
        return "'trajectories' is not an object of one path an optimiser"
    for name, path in paths.items():
        if not isinstance(path, list) or not path or not _is_table(path, len(path), 2):
            return f"the path of {clean(name)} is not a list of points"
        if not _is_point(path[0]):
            return f"the path of {clean(name)} has no first point"
    return None


def _is_point(value: object) -> bool:
    """Whether `value` is two finite numbers."""
    return isinstance(value, list) and len(value) == 2 and None not in map(finite, value)


def _is_definite(rows: object) -> bool:
    """Whether the symmetric part of a 2 by 2 matrix is positive definite, by Sylvester."""
    if not isinstance(rows, list) or len(rows) != 2 or not all(map(_is_point, rows)):
        return False
    (a, b), (c, d) = rows
    return a > 0 and a * d > ((b + c) / 2) ** 2


def _check_hypergradients(summary: Mapping[str, Any]) -> str | None:
    rows = summary.get("rows")
    fault = _check_named(rows, "rows", "geometry", "geometries")
    if fault or not isinstance(rows, list):
        return fault or "'rows' is not a list of objects"
    if not isinstance(summary.get("about"), Mapping):
        return "'about' is not an object"
    for row in rows:
        name = clean(row["geometry"])
        if not isinstance(row.get("learned"), int) or not isinstance(row.get("inner"), str):
            return f"an entry of 'rows', {name}, does not say how much it learns, and where"
        fault = _check_named(row.get("entries"), f"entries of {name}", "estimator", "estimators")
        if fault:
            return fault
        for entry in row["entries"]:
            if not _complete(entry):
                return f"'entries' of {name}: {clean(entry['estimator'])} is not complete"
    return None


def _complete(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the matrix has what its kind shows; a number may be `null`."""
    kind = str(entry.get("kind"))
    if kind in ("refused", "flagged"):
        return isinstance(entry.get("reason"), str)
    wanted = {"approximate": ("error", "cosine"), "random": ("mean_square", "largest")}
    found = [entry[key] for key in ("differences", "closed_form", "others") if key in entry]
    return kind in ("exact", *wanted) and numbers(
        found + [entry.get(key, "") for key in wanted.get(kind, ())]
    )


_CHECKS = {
    "few-shot": _check_few_shot,
    "online": _check_online,
    "online-network": _check_online_network,
    "online-bounds": _check_online_bounds,
    "hypergradients": _check_hypergradients,
}
