"""Every public name stands on its API page, and every page names only what exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parent.parent / "docs" / "api").glob("*.md"))


def public_names(package: str) -> set[str]:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or vars(module)
    listed = {name for name in names if not name.startswith("_")}
    return {name for name in listed if not isinstance(getattr(module, name), type(re))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_lists_every_public_name(page):
    package = f"mirrax.{page.stem}"
    listed = set(re.findall(rf"^::: {re.escape(package)}\.(\w+)$", page.read_text(), re.MULTILINE))
    assert listed == public_names(package)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_public_names_are_documented(page):
    module = importlib.import_module(f"mirrax.{page.stem}")
    for name in public_names(module.__name__):
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert (thing.__doc__ or "").strip(), name
