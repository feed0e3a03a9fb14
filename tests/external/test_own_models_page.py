"""The examples of docs/own-models.md: Python blocks run, command lines are understood."""

import re
import shlex
from pathlib import Path

import pytest

from retrace_pl.external.parsing import parse_pair

PAGE = (Path(__file__).parents[2] / "docs" / "own-models.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "own-models.md", "exec"), names)
    for file in ("original.pt2", "original.safetensors"):
        assert (tmp_path / file).is_file()
    import numpy as np

    answer = names["predict"](np.random.default_rng(0).random((3, 1, 16, 16)).astype(np.float32))
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("block", blocks("bash"))
def test_command_lines_are_understood(block):
    command, name, *arguments = shlex.split(block.replace("\\\n", " "))
    assert (command, name) == ("retrace", "attack")
    request = parse_pair("", arguments)
    assert {"original", "unlearned"} <= set(request.settings.models.roles)
    assert request.output.parts[0] == "runs"


def test_options_of_the_page_exist():
    from retrace_pl.external.parsing import make_pair_parser

    known = make_pair_parser("").format_help()
    for option in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z_.-]*[a-z]", PAGE))):
        assert option in known, option
