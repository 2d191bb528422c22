"""Folders of data sets that are not there, not ours to read, or not named: one line each."""

import os
from pathlib import Path

import pytest

from mirrax._errors import DataError
from mirrax.tasks import data_folder, diverse_digits, fetch, locate, missing


@pytest.fixture
def closed(tmp_path, monkeypatch) -> Path:
    """A data folder whose `mnist` and `svhn` belong to somebody else."""
    stat = os.stat

    def refuse(path, **options):
        if {"mnist", "svhn"}.intersection(Path(os.fspath(path)).parent.parts):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    return tmp_path


def test_a_closed_folder_is_a_line(closed):
    line = f"cannot read {closed / 'mnist'}.*: Permission denied; check the path and its rights"
    with pytest.raises(DataError, match=line):
        locate("mnist", closed)
    with pytest.raises(DataError, match="cannot read .*svhn.*: Permission denied"):
        fetch("svhn", closed)


def test_a_closed_folder_does_not_hide_the_others(closed):
    lines = missing(closed, ["mnist", "usps"])
    assert lines["mnist"].startswith("cannot read ") and "\n" not in lines["mnist"]
    assert lines["usps"].startswith("USPS is missing zip.train.gz")


def test_a_collection_does_not_pass_over_a_closed_folder(closed):
    """It takes what is present, and whether this is present nobody knows."""
    with pytest.raises(DataError, match="cannot read .*mnist"):
        diverse_digits(closed)


def test_an_empty_name_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("MIRRAX_DATA", raising=False)
    with pytest.raises(DataError, match="no data folder is given; pass --data DIR or set"):
        data_folder("")
    monkeypatch.setenv("MIRRAX_DATA", str(tmp_path))
    assert data_folder("") == tmp_path


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("~nosuchuser/x", "data folder ~nosuchuser/x is of a user without a home; pass --data DIR"),
        ("long" * 100, "cannot read .*long: File name too long; check the path"),
    ],
)
def test_names_that_lead_nowhere_are_lines(name, line):
    with pytest.raises(DataError, match=line) as told:
        data_folder(name)
    assert "\n" not in str(told.value)
