"""Passwords of database addresses are masked wherever a driver takes them, and nothing else is."""

import pytest

from mirrax._secrets import is_masked, masked


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ada:{}@host/trials",
        "postgresql://host/trials?password={}",
        "mysql://host/trials?user=ada&passwd={}",
        "mysql+pyodbc://host/trials?PWD={}&driver=x",
        "postgresql://host/trials?sslmode=require&sslpassword={}&sslcert=a",
        "--storage 'mysql://host/trials?pwd={}' --trials 5",
    ],
)
def test_a_password_is_masked_wherever_it_stands(address):
    whole = address.format("s3cr3t")
    assert masked(whole) == address.format("***") == masked(masked(whole))
    assert is_masked(masked(whole)) and not is_masked(whole)


@pytest.mark.parametrize(
    "text", ["sqlite:///runs/a@b.db", "mysql://host/trials?user=ada&ssl=1", "--out pwd=***"]
)
def test_what_is_no_password_stays(text):
    assert masked(text) == text and not is_masked(text)
