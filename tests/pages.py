"""What pages of the documentation name: classes and functions of mirrax."""

import importlib
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PACKAGES = {page.stem.split(".")[0] for page in (DOCS / "api").glob("*.md")}


def unknown_names(text: str) -> list[str]:
    """Those of `package.Name` in code spans, with or without `mirrax.`, that do not exist.

    A file `geometry.safetensors` is no name.
    """
    spans = " ".join(re.findall(r"`([^`]+)`", text))
    named = re.findall(r"(?<![\w./-])(?:mirrax\.)?((?:[a-z_]+\.)+[A-Za-z]\w*)", spans)
    named = [name for name in named if not name.endswith(".safetensors")]
    return [name for name in named if name.split(".")[0] in PACKAGES and not _exists(name)]


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(f"mirrax.{module}"), attribute)
    except ModuleNotFoundError:
        return False
