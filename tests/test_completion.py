import shlex
import shutil
import subprocess

import pytest

from retrace_pl.cli import COMMANDS, main
from retrace_pl.completion import SHELLS, script

ASK_BASH = """
source {script}
COMP_LINE={line}; COMP_POINT=${{#COMP_LINE}}
read -ra COMP_WORDS <<< "$COMP_LINE"; [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
function=$(complete -p retrace | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function retrace "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

# Completion of zsh runs in an interactive shell alone, so one is started on a terminal of its own. It notes what is
# offered, and leaves once TAB has been answered.
ASK_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "source {folder}/setup.zsh"
zpty -w -n shell {line}$'\\t'
while zpty -r shell shown; do :; done
cat {folder}/offered
"""

SETUP_ZSH = """
fpath=({folder} $fpath)
autoload -U compinit
compinit -u -d {folder}/dump
compadd() {{
  local -a found
  if [[ " ${{(j: :)@[1,(i)(-|--)]}} " != *" -"[a-zA-Z]#[OAD]" "* ]]; then
    builtin compadd -O found "$@"
    print -rl -- $found >> {folder}/offered
  fi
  builtin compadd "$@"
}}
comppostfuncs=(leave)
leave() {{ exit }}
: > {folder}/offered
"""

NAMES = {"bash": "retrace.bash", "zsh": "_retrace", "fish": "retrace.fish"}

CASES = [
    ("retrace aud", ["audit"]),
    ("retrace audit --que", ["--queries"]),
    ("retrace pretrain --classifier.ep", ["--classifier.epochs"]),
    ("retrace audit --config digits_", ["digits_full"]),
    ("retrace audit --config mi", ["mine.yaml"]),
    ("retrace arena --config fash", ["fashion_mnist"]),
    ("retrace audit --access ", ["black", "gray", "white"]),
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
]


@pytest.fixture(scope="module", params=SHELLS)
def offered(request, tmp_path_factory):
    """What a shell offers where TAB is pressed after some words."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    folder = tmp_path_factory.mktemp(shell)
    file = folder / NAMES[shell]
    file.write_text(script(shell))
    (folder / "setup.zsh").write_text(SETUP_ZSH.format(folder=folder))

    def ask(line, place):
        quoted = shlex.quote(line)
        command = {
            "bash": ["bash", "--norc", "-c", ASK_BASH.format(script=file, line=quoted)],
            "zsh": ["zsh", "-f", "-c", ASK_ZSH.format(folder=folder, line=quoted)],
            "fish": ["fish", "--no-config", "-c", f"source {file}; complete -C {quoted}"],
        }[shell]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place, timeout=120)
        assert done.stderr == ""
        lines = (line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines())  # fish adds descriptions
        return list(dict.fromkeys(line for line in lines if line))

    return ask


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_tab_offers(offered, tmp_path, words, expected):
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.yaml").touch()
    assert offered(words, tmp_path) == expected


def test_every_command_is_offered(offered, tmp_path):
    assert sorted(offered("retrace ", tmp_path)) == sorted(COMMANDS)


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
