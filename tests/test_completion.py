import shutil
import subprocess

import pytest

from retrace_pl.cli import COMMANDS, main
from retrace_pl.completion import SHELLS, script

ASK = """
source {file}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
function=$(complete -p retrace | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function retrace "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "retrace.bash"
    file.write_text(script("bash"))
    return file


def complete(file, words, folder):
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(file=file, words=words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("retrace aud", ["audit"]),
        ("retrace audit --que", ["--queries"]),
        ("retrace pretrain --classifier.ep", ["--classifier.epochs"]),
        ("retrace audit --config digits_", ["digits_full"]),
        ("retrace audit --config mi", ["mine.yaml"]),
        ("retrace arena --config fash", ["fashion_mnist"]),
        ("retrace audit --access ''", ["black", "gray", "white"]),
        ("retrace audit --traces.sign p", ["positive", "paper_literal"]),
        ("retrace audit --searcher CMA", ["CMAESSearcher"]),
        ("retrace audit --output ru", ["runs"]),
        ("retrace tune --method sal", ["salun"]),
        ("retrace tune --unlearning.no", []),
        ("retrace attack --orig", ["--original"]),
        ("retrace attack --original mi", ["mine.yaml"]),
        ("retrace pool ru", ["runs"]),
        ("retrace list met", ["metrics"]),
        ("retrace completion f", ["fish"]),
    ],
)
def test_bash_completes(bash, tmp_path, words, expected):
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.yaml").touch()
    assert complete(bash, words, tmp_path) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_offers_every_command(bash, tmp_path):
    assert complete(bash, "retrace ''", tmp_path) == list(COMMANDS)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_with_commands_options_and_configurations(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for words in (*COMMANDS, "queries", "generator.epochs", "digits_full", "RandomSearcher"):
        assert words in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True, capture_output=True)


def test_another_shell_is_refused(capsys):
    assert main(["completion", "cmd"]) == 2
    assert "choose from" in capsys.readouterr().err
