"""What a reader copies from README.md and the pages can be used: commands parse, code compiles, YAML is YAML."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from retrace_pl.cli import COMMANDS, main
from retrace_pl.pipeline.parsing import config_folders, parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
CONFIGS = config_folders()[-1]
STAGES = ("audit", "pretrain", "generator", "unlearn", "evaluate", "report")

WRITTEN_BEFORE = {
    "salun.yaml": "unlearning/digits/salun.yaml",
    "runs/tune/digits/presets/delete.yaml": "unlearning/digits/delete.yaml",
    "my_audit.yaml": "audit/digits.yaml",
    "runs/arena/NAME/cells/ID/run/config.yaml": "audit/digits.yaml",
}
"""Files that a page has made in an earlier step, or asks the reader to write -> what stands in for them here."""


@dataclass(frozen=True)
class Example:
    """A block of code, or one command of it."""

    page: str
    line: int
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(language):
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[2] == language:
                line = text[: match.start()].count("\n") + 1
                found.append(Example(path.relative_to(ROOT).as_posix(), line, match[3].replace(f"\n{match[1]}", "\n")))
    return found


def commands():
    found = []
    for block in blocks("bash"):
        joined = block.text.replace("\\\n", " ")
        found += [Example(block.page, block.line, line.strip()) for line in joined.splitlines() if line.strip()]
    return [found for found in found if not found.text.startswith("#")]


def words(command):
    """The words of a command without leading NAME=value."""
    parts = shlex.split(command.text, comments=True)
    while parts and re.fullmatch(r"\w+=\S*", parts[0]):
        parts = parts[1:]
    return parts


COMMAND_LINES = commands()
RETRACE = [command for command in COMMAND_LINES if words(command) and words(command)[0].endswith("retrace")]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages have made before, and those whose YAML begins with their name."""
    for block in blocks("yaml"):
        named = re.match(r"# (\w+\.yaml)\n", block.text)
        if named:
            (tmp_path / named[1]).write_text(block.text, encoding="utf-8")
    for name, source in WRITTEN_BEFORE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (CONFIGS / source).read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?<=[\s\[])\.\./", f"{CONFIGS}/", text), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", "secret")
    return tmp_path


def check_audit(arguments):
    parse("audit", "", arguments)


def check_pair(arguments):
    from retrace_pl.external.parsing import parse_pair

    class_of = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--model-class"]
    assert all(name.isidentifier() and (CONFIGS / "model" / f"{name}.yaml").is_file() for name in class_of)
    parse_pair("", arguments)


def check_arena(arguments):
    from retrace_pl.arena.config import parse as parse_arena

    parse_arena("", arguments)


def check_tune(arguments):
    from retrace_pl.tuning import commands as tuning

    options, overrides = tuning._parse(arguments)
    parse("tune", "", overrides)
    names = {name for name in options.method if name != tuning.ALL}
    assert names
    for name in names:
        tuning.find_target(name, tuning._config_name(overrides), options.start_from)


def check_mls_bench(arguments):
    from retrace_pl.mls_bench.commands import make_parser
    from retrace_pl.mls_bench.settings import SETTINGS, find_setting

    options = make_parser().parse_args(arguments)
    for name in options.setting:
        assert name == "all" or find_setting(name).name in SETTINGS


def check_help(command, arguments, capsys):
    """Every option is one that the command's help knows; `list` and the like are run."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in arguments:
        if word.startswith("--"):
            assert word.partition("=")[0] in shown, word


@pytest.mark.parametrize("command", RETRACE, ids=str)
def test_commands_parse(command, workplace, capsys):
    _, *arguments = words(command)
    if arguments[0] in ("--version", "--help"):
        return
    name, *arguments = arguments
    assert name in COMMANDS
    if any(word.endswith(".help") for word in arguments):
        with pytest.raises(SystemExit) as stopped:
            main([name, *arguments])
        assert stopped.value.code == 0
    elif name == "attack" and "--original" in arguments:
        if "--help" not in arguments:
            check_pair(arguments)
    elif name in (*STAGES, "attack"):
        check_audit(arguments)
    elif name in ("arena", "tune", "mls-bench"):
        {"arena": check_arena, "tune": check_tune, "mls-bench": check_mls_bench}[name](arguments)
    elif name == "list":
        assert main([name, *arguments]) == 0
    else:
        check_help(name, arguments, capsys)


def test_there_are_commands():
    assert len(RETRACE) > 25
    assert {words(command)[1] for command in RETRACE} >= {"audit", "attack", "arena", "tune", "mls-bench", "list"}


def test_a_wrong_option_would_be_noticed(workplace):
    with pytest.raises(Exception, match="accces"):
        check_audit(["--config", "digits", "--accces", "black"])


@pytest.mark.parametrize("command", [c for c in COMMAND_LINES if words(c) and words(c)[0] == "make"], ids=str)
def test_make_targets_exist(command):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words(command)[1:]:
        assert "=" in word or word in targets


def test_scripts_exist():
    """Those that a page names anywhere, in running text too."""
    named = {name for path in PAGES for name in re.findall(r"\bbenchmarks/\w+\.py\b", path.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_code_compiles(block):
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if "--8<--" not in b.text], ids=str)
def test_yaml_is_a_mapping(block):
    assert isinstance(yaml.safe_load(block.text), dict)


LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_of_files_outside_the_site_lead_somewhere(path):
    """Those within the site are checked when it is built."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        assert os.path.exists(ROOT / target), target
