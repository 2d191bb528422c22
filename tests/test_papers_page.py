"""The page of what the papers say: every statement keeps its place, its parts and its tests."""

import ast
import re

import pytest

from pages import DOCS, unknown_names

ROOT = DOCS.parent
PAGE = (DOCS / "papers.md").read_text()

# Others link to these; a statement may be added, but none renamed or lost.
ANCHORS = """
s000-factor-two s000-step s000-modulus s000-eq10 s000-eq10-last s000-theorem-3-1 s000-theorem-4-1
s000-appendix-c s000-law s001-implicit s004-theorem-1 s004-eq8b s004-heads s004-scales
s004-preconditioning s004-ideal s004-table1 s004-warpgrad s002-signs s002-parenthesis s002-rho
s002-centre s002-nesterov s002-eq6 s002-smoothness s002-corollary-1 s002-after-eq10 s002-theorem-3
s002-corollary-3 s002-additive
""".split()
BLOCKS = re.split(r'^<a id="([\w-]+)"></a>$', PAGE, flags=re.MULTILINE)[1:]
ENTRIES = {
    anchor: text.split("\n## ")[0] for anchor, text in zip(BLOCKS[::2], BLOCKS[1::2], strict=True)
}


def field(anchor: str, name: str) -> str:
    """What stands behind `- **Name:**`, up to the next field or the proof."""
    found = re.findall(rf"^- \*\*{name}:\*\* (.*?)(?=^- \*\*|^<)", ENTRIES[anchor], re.M | re.S)
    assert len(found) == 1, f"{anchor} has {len(found)} fields {name}"
    return found[0].strip()


def folded(anchor: str) -> tuple[str, str]:
    """The reason and the tests, which are folded away."""
    reason, tests = re.findall(
        r"^<summary>Why, and the tests</summary>\n\n(.+?)\n\nTests: (.+?)\n\n</details>$",
        ENTRIES[anchor],
        re.M | re.S,
    )[0]
    return reason, tests


def functions(path: str) -> set[str]:
    body = ast.parse((ROOT / path).read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_no_statement_is_lost():
    assert len(BLOCKS[::2]) == len(ENTRIES), "an anchor stands twice"
    assert list(ENTRIES) == ANCHORS


@pytest.mark.parametrize("anchor", ENTRIES)
def test_a_statement_is_complete(anchor):
    assert ENTRIES[anchor].startswith("\n### ")
    assert all(field(anchor, name) for name in ("Printed", "Holds", "Library"))
    assert len(folded(anchor)[0]) > 80


@pytest.mark.parametrize("anchor", ENTRIES)
def test_a_statement_names_tests_that_exist(anchor):
    named = re.findall(r"`([^`]+)`", folded(anchor)[1])
    assert named
    for name in named:
        path, function = name.split("::")
        assert function.startswith("test_") and function in functions(path), name


@pytest.mark.parametrize("anchor", ENTRIES)
def test_names_of_the_library_exist(anchor):
    assert unknown_names(field(anchor, "Library")) == []


def test_references_to_statements_lead_to_them():
    files = [*(ROOT / "src").rglob("*.py"), *DOCS.rglob("*.md"), ROOT / "README.md"]
    text = "\n".join(file.read_text() for file in files)
    named = set(re.findall(r"papers\.md#(s00[\w-]+)", text))
    assert len(named) > 10 and named <= set(ANCHORS)
