"""Passwords in the addresses of databases: needed in memory, never written down or shown."""

import re

_HIDDEN = "***"
_PLACES = (re.compile(r"(://[^\s:/@]*:)\S+(?=@)"), re.compile(r"([?&]password=)[^\s&'\"]+"))


def masked(text: str) -> str:
    """A text with the passwords of its addresses replaced by stars.

    **Arguments:**

    - `text`: an address such as Optuna takes, or a command that has one.

    >>> masked("--storage postgresql://ada:s@cret@host/trials --trials 5")
    '--storage postgresql://ada:***@host/trials --trials 5'
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
    return f":{_HIDDEN}@" in text or f"password={_HIDDEN}" in text
