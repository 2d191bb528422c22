"""The command line, `mirrax`: thin verbs over `mirrax.study` and `mirrax.report`.

Heavy packages are imported by the verb that needs them, so that `mirrax --help` is immediate.
Errors are one line that says what to do: exit code 2 for what was asked or given, 3 for numerical
failure; `--debug` shows the traceback.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from ._errors import ConfigError, MirraxError, nearest
from ._files import explain
from ._json import to_json
from ._secrets import masked
from ._xla import keep_programs, set_devices, set_flags

_VERBS = {
    "list": "recipes, reproductions and data sets, and which data are present",
    "train": "meta-train a geometry and compare it on a held-out task",
    "compare": "tune optimisers against the geometry of a run",
    "inspect": "what a run or an artifact has learned",
    "certify": "regret bounds beside the measured regret of a run",
    "report": "tables and figures of runs, and one HTML page",
    "reproduce": "one table or figure of a paper",
    "data": "where a data set is looked for, its checksums and licence",
}

_OPEN = ("train", "reproduce")  # their recipes' fields are options too
_LESS = "try a smaller --model or --batch, fewer --tasks, or --in-turn true"
_SEED = "0 if left out; a run that goes on keeps its own"
_BUDGET = "smoke, default (if left out) or paper; a run that goes on keeps its own"
_SWITCHES = ("--debug", "--distributed", "--json", "--resume")  # options without a value


def _seed(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"expected 0 to {2**32 - 1}, got {text!r}")
    return value


def _folder(text: str) -> Path | None:
    """A folder; none where a variable of the shell that names it is not set."""
    return Path(text) if text else None


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mirrax",
        description="Learn the geometry of an optimiser from a family of tasks; use it anywhere.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mirrax {__version__}")
    shared = _Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shared.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    data = _Parser(add_help=False)
    data.add_argument("--data", type=_folder, metavar="DIR", help="data sets; or set MIRRAX_DATA")
    log = _Parser(add_help=False)
    kinds = ("tensorboard", "wandb", "both")
    log.add_argument("--log", choices=kinds, help="copy metrics to DIR/logs; W&B offline")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=_Parser)

    def verb(name: str, *parents: _Parser) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=_VERBS[name],
            description=_VERBS[name],
            parents=[shared, *parents],
            allow_abbrev=False,
        )

    verb("list", data)
    train = verb("train", data, log)
    train.add_argument("recipe", metavar="RECIPE", help="see mirrax list")
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (runs/RECIPE)")
    train.add_argument("--seed", type=_seed, help=_SEED)
    train.add_argument("--budget", help=_BUDGET)
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    train.add_argument(
        "--distributed", action="store_true", help="one of several processes that make one run"
    )
    train.epilog = "Any field of the recipe is an option; mirrax train RECIPE --help shows them."
    compare = verb("compare", data)
    compare.add_argument("run", type=Path, metavar="DIR")
    compare.add_argument("--tune", metavar="HOW", help="grid or bayes; as the run by default")
    compare.add_argument("--trials", type=int, metavar="N", help="of each method, for bayes")
    compare.add_argument(
        "--storage", metavar="FILE", help="where bayes keeps its trials; workers may share it"
    )
    compare.add_argument("--baselines", nargs="+", metavar="NAME", help="or all")
    inspect = verb("inspect")
    inspect.add_argument("artifact", type=Path, metavar="ARTIFACT", help="a run or .safetensors")
    certify = verb("certify", data)
    certify.add_argument("run", type=Path, metavar="DIR")
    report = verb("report")
    report.add_argument("runs", type=Path, nargs="+", metavar="DIR")
    report.add_argument("--html", type=Path, metavar="F", help="write one self-contained page")
    report.add_argument("--markdown", type=Path, metavar="F", help="write the tables in Markdown")
    reproduce = verb("reproduce", data, log)
    reproduce.add_argument("name", metavar="NAME", help="see mirrax list")
    reproduce.add_argument("--out", type=Path, metavar="DIR", help="folder (runs/NAME)")
    reproduce.add_argument("--seed", type=_seed, help=_SEED)
    reproduce.add_argument("--budget", help=_BUDGET)
    reproduce.add_argument("--resume", action="store_true", help="continue in --out")
    reproduce.epilog = "Its fields are options; mirrax reproduce NAME --help shows them."
    fetch = verb("data", data)
    fetch.add_argument("name", nargs="?", metavar="NAME")
    fetch.add_argument("--fetch", action="store_true", help="download what is missing")
    return parser


def _name_first(words: Sequence[str]) -> list[str]:
    """Moves the name behind `train` or `reproduce` in front of the options.

    argparse does not know a recipe's fields, and would take the first of their values for it. The
    name is a word that no option can claim; else the last word, where an option may claim several.
    """
    verb, rest = words[0], list(words[1:])
    free, loose = [], []
    for position, word in enumerate(rest):
        before = rest[position - 1] if position else ""
        if word.startswith("-"):
            continue
        if not position or before in _SWITCHES or (before.startswith("--") and "=" in before):
            free.append(position)
        elif not before.startswith("-"):
            loose.append(position)
    if not free and not loose:
        if {"-h", "--help"} & set(rest):
            return [verb, *rest]
        raise ConfigError(f"mirrax {verb} needs a name; see mirrax list for those there are.")
    return [verb, rest.pop(free[0] if free else loose[-1]), *rest]


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    first = arguments[0] if arguments else "--help"
    if first.startswith("-") and first not in ("-h", "--help", "--version"):
        verb = next((word for word in arguments if word in _VERBS), "list")
        raise ConfigError(
            f"{first}: options stand behind the command, such as mirrax {verb} {first}."
        )
    if not first.startswith("-") and first not in _VERBS:
        raise ConfigError(
            f"no command {first!r}; known are {', '.join(_VERBS)}.{nearest(first, _VERBS)}"
        )
    if first in _OPEN:
        arguments = _name_first(arguments)
        if {"-h", "--help"} & set(arguments) and not arguments[1].startswith("-"):
            options, _ = _parser().parse_known_args(arguments[:2])
            return argparse.Namespace(**{**vars(options), "verb": "fields"}), []
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.verb not in _OPEN:
        raise ConfigError(f"mirrax {options.verb} has no option {rest[0]!r}; see --help.")
    return options, rest


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python or XLA found no memory, without importing either's errors."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _wanted(error: Exception) -> str:
    """The size that was asked for in vain, where the error has one."""
    found = re.search(r"\d[\d.,]* ?(?:[KMGT]i?B|bytes)", str(error))
    return f" ({found[0]} were asked for)" if found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    **Arguments:**

    - `arguments`: the words behind `mirrax`; the process's by default.

    **Returns:**

    The exit code: 0, 2 for a usage or data error, 3 for a numerical failure, 4 where another
    process of a distributed run was lost, 130 on Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, again = "--debug" in words, "add --resume to continue"
    try:
        options, rest = _parse(words)
        if options.verb is None:
            _parser().print_help()
            return 0
        if options.verb == "compare":
            again = "the same command continues"
        set_flags()
        if not getattr(options, "distributed", False):
            set_devices()  # where there are several processes, each is told what it has
        keep_programs()
        from .study import commands

        command = masked("mirrax " + shlex.join(word for word in words if word != "--debug"))
        run = getattr(commands, f"run_{options.verb}")
        result: Any = run(options, rest, command)
        if options.json:
            print(to_json(result))
        return 0
    except MirraxError as error:
        if debug:
            raise
        print(f"mirrax: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"mirrax: stopped; {again}.", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if debug or not _is_out_of_memory(error):
            raise
        print(f"mirrax: out of memory{_wanted(error)}; {_LESS}; {again}.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"mirrax: {where}{explain(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
