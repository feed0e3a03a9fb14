from pathlib import Path

import pytest

from retrace_pl.data.paths import existing_file, existing_folder, expand, explained, one_line
from retrace_pl.errors import InputError


def test_variables_and_home_are_expanded(monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    monkeypatch.delenv("NO_DATA", raising=False)
    assert expand("${SOME_DATA}/x", "root") == "/data/x"
    assert expand("$SOME_DATA/x", "root") == "/data/x"
    assert expand("${SOME_DATA:-/other}/x", "root") == "/data/x"
    assert expand("${NO_DATA:-/other}/x", "root") == "/other/x"
    assert expand("${NO_DATA:-~/cache}/x", "root") == str(Path.home() / "cache" / "x")
    assert expand("plain/x", "root") == "plain/x"


def test_a_variable_that_is_not_set(monkeypatch):
    monkeypatch.delenv("NO_DATA", raising=False)
    with pytest.raises(InputError, match=r"^root: \$\{NO_DATA\}/x needs the environment variable NO_DATA, which is no"):
        expand("${NO_DATA}/x", "root")
    with pytest.raises(InputError, match="path: the path is empty"):
        expand(" ", "path")


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "file").touch()
    assert existing_folder(tmp_path, "root") == tmp_path
    assert existing_file(tmp_path / "file", "path") == tmp_path / "file"
    with pytest.raises(InputError, match=r"root: the folder .*missing does not exist"):
        existing_folder(tmp_path / "missing", "root")
    with pytest.raises(InputError, match=r"root: the folder .*file is not a folder"):
        existing_folder(tmp_path / "file", "root")
    with pytest.raises(InputError, match=r"path: the file .*missing does not exist"):
        existing_file(tmp_path / "missing", "path")
    with pytest.raises(InputError, match=r"path: the file .* is not a file"):
        existing_file(tmp_path, "path")


def test_third_party_errors_become_one_line():
    with pytest.raises(InputError) as caught, explained("path: x is corrupt"):
        raise ValueError("first\n   second")
    assert str(caught.value) == "path: x is corrupt (ValueError: first second)"
    with pytest.raises(InputError, match=r"^as it was$"), explained("path: x is corrupt"):
        raise InputError("as it was")
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 1000))) < 230
