"""The verbs of the command line; each takes parsed options and returns what `--json` prints."""

import argparse
import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import report
from .._errors import ConfigError, nearest
from ._listing import print_data, print_fields, print_list
from ._progress import say, show
from ._use import lines_to_use

if TYPE_CHECKING:
    from rich.console import Console

    from ._recipes import Recipe

Options = argparse.Namespace


def _console(options: Options) -> "Console":
    """Standard output for people; standard error when standard output is for JSON."""
    from rich.console import Console

    silent = getattr(options, "silent", False)  # one process of several speaks
    return Console(stderr=options.json, quiet=silent, highlight=False, markup=False)


def _no_fields(rest: Sequence[str]) -> None:
    if rest:
        raise ConfigError(f"this command has no option {rest[0]!r}.")


def run_list(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Lists recipes, reproductions and data sets."""
    del rest, command
    from ..tasks import SOURCES, missing
    from ._recipes import RECIPES
    from ._reproduce import REPRODUCTIONS

    absent = missing(options.data, None) if _has_data(options) else dict.fromkeys(SOURCES, "")
    recipes = [
        {
            "name": name,
            "about": recipe.about,
            "ready": _is_ready(recipe, absent),
            "needs": list(recipe.needs),
        }
        for name, recipe in RECIPES.items()
    ]
    reproductions = [{"name": n, "about": r.about} for n, r in REPRODUCTIONS.items()]
    data = [{"name": name, "present": name not in absent} for name in SOURCES]
    if not options.json:
        print_list(_console(options), recipes, reproductions, data)
    return {"recipes": recipes, "reproductions": reproductions, "data": data}


def _is_ready(recipe: "Recipe", absent: Collection[str]) -> bool:
    """Whether there are the data sets that a recipe needs."""
    there = [need not in absent for need in recipe.needs]
    return not there or (any(there) if recipe.some else all(there))


def _has_data(options: Options) -> bool:
    import os

    return options.data is not None or bool(os.environ.get("MIRRAX_DATA"))


def run_fields(options: Options, rest: Sequence[str], command: str) -> list[dict[str, Any]]:
    """Lists the fields of a recipe or reproduction, which are options of its command."""
    del rest, command
    from ._fields import described
    from ._recipes import find_recipe
    from ._reproduce import find_reproduction

    if hasattr(options, "recipe"):
        name, verb, varies = options.recipe, "train", frozenset[str]()
        config = find_recipe(name).config
    else:
        name, verb = options.name, "reproduce"
        reproduction = find_reproduction(name)
        config, varies = reproduction.configure("default"), reproduction.varies
    fields = [row for row in described(config) if not varies.intersection(row["names"])]
    if not options.json:
        print_fields(_console(options), f"{verb} {name}", fields)
    return fields


def run_train(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Runs a recipe in its folder, alone or with other processes."""
    options.out = options.out or Path("runs") / options.recipe
    if not options.distributed:
        return _train(options, rest, command)
    from ._distributed import leads, together
    from ._kinds import kind_of
    from ._recipes import find_recipe

    if not kind_of(find_recipe(options.recipe).config).spreads:
        raise ConfigError(f"--distributed: nothing of {options.recipe} is spread over devices.")
    names, result = ("recipe", "seed", "budget"), {}
    asked = {"command": [*(getattr(options, name) for name in names), *rest]}
    with together(options.out, asked, resume=options.resume) as options.out:
        options.silent = not leads()
        result = _train(options, rest, command)
    options.json &= leads()
    return result


def _train(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    from ._config import from_record, override
    from ._distributed import override_over_all
    from ._folder import RunFolder
    from ._kinds import kind_of
    from ._logging import log_kinds, logging_to
    from ._progress import Progress
    from ._provenance import asked_for, recorded
    from ._recipes import find_recipe
    from ._train import record_of, revise

    recipe, kinds = find_recipe(options.recipe), log_kinds(options.log)
    read = override_over_all if options.distributed else override
    path, name = options.out, f"train {options.recipe}"
    given = {"seed": options.seed, "budget": options.budget, "resume": options.resume}
    if options.resume:
        folder, record = RunFolder.open(path)
        if record.get("recipe") != options.recipe:
            raise ConfigError(
                f"{path} is a run of {record.get('recipe')!r}, not of {options.recipe!r}; "
                "name that recipe, or another --out."
            )
        asked_for(path, name, **given)
        config = read(from_record(type(recipe.config), record["fields"]), rest)
        seed, budget, kind = record["seed"], record.get("budget"), kind_of(config)
        setting = kind.prepare(config, options.data)
        revise(folder, record, config)
    else:
        seed, budget = asked_for(path, name, **given).values()
        config = read(recipe.at(budget), rest)
        kind = kind_of(config)
        RunFolder.check_new(path)
        # Data first: where they are missing, no folder is left behind.
        setting = kind.prepare(config, options.data)
        folder = RunFolder.create(
            path,
            record_of(config, recipe=options.recipe, seed=seed, budget=budget, command=command),
        )
    console = _console(options)
    told: dict[str, Any] = {"name": name, "command": command}
    told |= {"seed": seed, "budget": budget}
    logging = logging_to(path, kinds, functools.partial(say, console))
    try:
        with logging as log, recorded(path, config, **told) as recorder:
            summary = kind.train(setting, folder, seed, Progress(console, recorder.keep))
            tables = kind.tables(summary)
            log(tables)
    except ConfigError:
        if not (options.resume or options.distributed):
            folder.withdraw()  # so that the command as mended is not told that it exists
        raise
    result = _tell(console, path, summary, tables, recorder.read())
    lines = lines_to_use(path / "geometry.safetensors", summary)
    if lines:
        console.print("Use the geometry in your own loop:\n")
        console.print("\n".join(f"  {line}" for line in lines), style="bold", soft_wrap=True)
    return result


def _tell(
    console: "Console",
    path: Path,
    summary: dict[str, Any],
    tables: Sequence[report.Table],
    record: dict[str, Any] | None,
) -> dict[str, Any]:
    """Shows what a command found, and leaves it in its folder in the form to publish."""
    result = report.write_result(path, summary, tables, record)
    show(console, tables)
    say(console, f"Results are in {path}.")
    return result


def run_compare(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Compares a run's geometry with other baselines, or tuned in another way."""
    del rest
    import dataclasses

    from .. import deploy
    from ..geometry import AbstractMirrorMap
    from ._config import from_record
    from ._folder import RunFolder
    from ._images import ImageStudy, check_tuner, prepare
    from ._progress import Progress
    from ._provenance import beside, recorded, with_that_of
    from ._recipes import find_recipe
    from ._train import compare_images

    if options.tune not in (None, "grid", "bayes"):
        raise ConfigError(f"--tune: expected grid or bayes, got {options.tune!r}.")
    folder, record = RunFolder.open(options.run)
    recipe = find_recipe(record["recipe"])
    config = from_record(type(recipe.config), record["fields"])
    if not isinstance(config, ImageStudy):
        raise ConfigError(f"{options.run}: compare needs a run of an image recipe.")
    changes = {
        "tuner": options.tune,
        "trials": options.trials,
        "storage": options.storage,
        "baselines": options.baselines and tuple(options.baselines),
    }
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    if config.tuner == "grid" and (options.trials, options.storage) != (None, None):
        raise ConfigError("--trials and --storage are of --tune bayes; a grid has neither.")
    check_tuner(config)
    setting = prepare(config, options.data, learns=False)
    artifact = deploy.load(folder / "geometry.safetensors")
    deploy.check_fits(artifact, setting.template)
    assert isinstance(artifact.geometry, AbstractMirrorMap)  # image studies learn nothing else
    console, seed = _console(options), record["seed"]
    told: dict[str, Any] = {"name": f"compare {record['recipe']}", "command": command}
    told |= {"seed": seed, "budget": record.get("budget")}
    with beside(folder, f"compared-{config.tuner}") as path:
        with recorded(path, config, **told) as recorder:
            progress = Progress(console, recorder.keep)
            rows, _, notes = compare_images(setting, artifact.geometry, folder, seed, progress)
            if recorder.read() is None:  # nothing had to be run
                recorder.keep(least=0.0)
        result = {
            "recipe": record["recipe"],
            "held_out": setting.tasks[setting.held_out].name,
            "seeds": config.seeds,
            "comparison": rows,
            "notes": notes,
        }
        tables = report.summary_tables(result)
        return _tell(console, path, result, tables, with_that_of(folder, path))


def run_inspect(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Shows what an artifact holds."""
    del rest, command
    from .. import deploy
    from ._describe import describe_geometry

    path = options.artifact
    if path.is_dir():
        path = path / "geometry.safetensors"
    artifact = deploy.load(path)
    rate, shapes = float(artifact.rate), artifact.shapes
    described = describe_geometry(artifact.geometry, rate, artifact.roles, shapes)
    if not options.json:
        _console(options).print(report.inspect_text(described))
    return described


def run_certify(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Prints what theory says of a run: bounds beside regret, or what its maps are like."""
    del rest, command
    from ._config import from_record
    from ._folder import RunFolder
    from ._kinds import kind_of
    from ._recipes import find_recipe

    folder, record = RunFolder.open(options.run)
    recipe = find_recipe(record["recipe"])
    config = from_record(type(recipe.config), record["fields"])
    kind = kind_of(config)
    certificate = kind.certify(config, folder, record["seed"], options.data)
    if not options.json:
        show(_console(options), kind.certified(certificate))
    return certificate


def run_report(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Makes tables, figures and a page from run folders."""
    del rest, command
    runs = [report.Run.read(path) for path in options.runs]
    console = _console(options)
    drawn = [report.figures_of(run) for run in runs]
    figures = [
        str(path)
        for run, own in zip(runs, drawn, strict=True)
        for path in report.write_figures(run, figures=own)
    ]
    for run, own in zip(runs, drawn, strict=True):
        for figure in own:
            if figure.fault:
                console.print(f"{run.folder}: {figure.fault}", markup=False)
        if not options.json:
            show(console, report.summary_tables(run.summary or {}))
    if options.html:
        report.html(runs, options.html, figures=drawn)
        say(console, f"Page: {options.html}")
    if options.markdown:
        report.write_markdown(runs, options.markdown)
        say(console, f"Tables: {options.markdown}")
    console.print(f"{len(figures)} figure files in the run folders.")
    files = {key: getattr(options, key) for key in ("html", "markdown")}
    return {"figures": figures, **{key: str(file) if file else None for key, file in files.items()}}


def run_reproduce(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Re-makes one table or figure of a paper."""
    from ._config import override
    from ._folder import RunFolder
    from ._logging import log_kinds, logging_to
    from ._progress import Progress
    from ._provenance import asked_for, recorded
    from ._reproduce import Request, find_reproduction

    reproduction, kinds = find_reproduction(options.name), log_kinds(options.log)
    path, name = options.out or Path("runs") / options.name, f"reproduce {options.name}"
    given = {"seed": options.seed, "budget": options.budget, "resume": options.resume}
    asked = asked_for(path, name, **given)
    config = override(reproduction.configure(asked["budget"]), rest, reproduction.varies)
    console = _console(options)
    if not options.resume:
        RunFolder.check_new(path)
    told: dict[str, Any] = {"name": name, "command": command, "varies": reproduction.varies}
    told |= asked
    logging = logging_to(path, kinds, functools.partial(say, console))
    with logging as log, recorded(path, config, **told) as recorder:
        summary = reproduction.make(
            Request(
                path,
                asked["budget"],
                asked["seed"],
                options.data,
                options.resume,
                Progress(console, recorder.keep),
                command,
            ),
            config,
        )
        tables = reproduction.tables(summary)
        log(tables)
    return _tell(console, path, summary, tables, recorder.read())


def run_data(options: Options, rest: Sequence[str], command: str) -> dict[str, Any]:
    """Says where data sets are looked for, and fetches them on request."""
    del rest, command
    from ..tasks import SOURCES, fetch, find_source, missing

    if options.name is not None and options.name not in SOURCES:
        raise ConfigError(
            f"no data set {options.name!r}; known are {', '.join(SOURCES)}."
            f"{nearest(options.name, SOURCES)}"
        )
    names = [options.name] if options.name else list(SOURCES)
    if options.fetch:
        if options.name is None:
            raise ConfigError("--fetch: name one data set, such as mirrax data mnist --fetch.")
        fetch(options.name, options.data)
    absent = missing(options.data, names) if _has_data(options) else dict.fromkeys(names, "")
    found = []
    for name in names:
        source = find_source(name)
        found.append(
            {
                "name": name,
                "present": name not in absent,
                "problem": absent.get(name) or None,
                "licence": source.licence,
                "editions": [
                    [
                        {"name": file.name, "sha256": file.sha256, "md5": file.md5}
                        for file in edition.files
                    ]
                    for edition in source.editions
                ],
            }
        )
    if not options.json:
        print_data(_console(options), found, sought=_has_data(options))
    return {"folder": str(options.data) if options.data else None, "data": found}
