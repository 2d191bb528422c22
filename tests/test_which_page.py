"""The page of what to use when names commands that parse, and classes and functions that exist."""

import re
import shlex

import pytest

from mirrax import cli
from mirrax.study._config import override
from mirrax.study._recipes import RECIPES, find_recipe
from mirrax.study._reproduce import find_reproduction
from pages import DOCS, unknown_names

PAGE = (DOCS / "which.md").read_text()
COMMANDS = sorted(set(re.findall(r"`(mirrax [^`]+)`", PAGE)))


@pytest.mark.parametrize("command", [c for c in COMMANDS if len(c.split()) > 2])
def test_commands_parse(command):
    options, rest = cli._parse(shlex.split(command)[1:])
    if options.verb == "train":
        override(find_recipe(options.recipe).at("default"), rest)
    elif options.verb == "reproduce":
        assert find_reproduction(options.name) and rest == []
    else:
        run = {"inspect": "artifact", "certify": "run"}[options.verb]
        assert getattr(options, run).name in RECIPES and rest == []


def test_verbs_exist():
    assert len(COMMANDS) >= 10
    assert {command.split()[1] for command in COMMANDS} <= set(cli._VERBS)


def test_names_exist():
    assert unknown_names(PAGE) == []


def test_names_that_do_not_exist_are_found():
    text = "`deploy.to_optix(x)`, `mirrax.geometry.Diagonal`, `deploy.torch.Nothing`, `optax.sgdd`"
    assert unknown_names(text) == ["deploy.to_optix", "deploy.torch.Nothing"]
