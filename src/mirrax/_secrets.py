"""Passwords in the addresses of databases: needed in memory, never written down or shown."""

import re

_HIDDEN = "***"
_FIELD = r"[?&][a-z_]*(?:password|passwd|pwd)="  # each driver has a word of its own
_PLACES = (
    re.compile(r"(://[^\s:/@]*:)\S+(?=@)"),
    re.compile(rf"({_FIELD})[^\s&'\"]+", re.IGNORECASE),
)
_LOST = re.compile(rf":{re.escape(_HIDDEN)}@|{_FIELD}{re.escape(_HIDDEN)}", re.IGNORECASE)


def masked(text: str) -> str:
    """A text with the passwords of its addresses replaced by stars.

    **Arguments:**

    - `text`: an address such as Optuna takes, or a command that has one.

    >>> masked("--storage postgresql://ada:s@cret@host/trials --trials 5")
    '--storage postgresql://ada:***@host/trials --trials 5'
    >>> masked("mysql://host/trials?user=ada&passwd=secret&ssl=1")
    'mysql://host/trials?user=ada&passwd=***&ssl=1'
    >>> masked("sqlite:///runs/a@b.db")
    'sqlite:///runs/a@b.db'
    """
    for place in _PLACES:
        text = place.sub(rf"\g<1>{_HIDDEN}", text)
    return text


def is_masked(text: str) -> bool:
    """Whether a text has lost a password.

    >>> is_masked(masked("mysql://ada:secret@host")), is_masked("mysql://ada@host")
    (True, False)
    """
    return _LOST.search(text) is not None
