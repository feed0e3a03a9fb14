"""Settings from a stranger: names in them build what the setting expects and nothing else."""

import json

import pytest

from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import parse

ONE = (
    "data",
    "data.source",
    "classifier.model",
    "classifier.optimizer",
    "classifier.scheduler",
    "evaluator.model",
    "generator.model",
    "generator.optimizer",
    "unlearning",
    "unlearning.scheduler",
    "searcher",
    "searcher.algorithm",
    "attack",
    "traces.normaliser",
    "latent",
)
SEVERAL = ("rivals", "baselines", "inferences")

CALLS = {
    "os.system": {"command": "mkdir TRAP"},
    "os.mkdir": {"path": "TRAP"},
    "subprocess.Popen": {"args": ["mkdir", "TRAP"]},
    "builtins.eval": {"source": "__import__('os').mkdir('TRAP')"},
    "builtins.open": {"file": "TRAP", "mode": "w"},
    "logging.FileHandler": {"filename": "TRAP"},
    "pathlib.Path": {},
}
"""Functions and classes that are no part of an audit -> arguments that would leave a trace."""


@pytest.mark.parametrize("setting", [*ONE, *SEVERAL])
def test_a_name_builds_only_what_its_setting_expects(setting, tiny, tmp_path):
    trap = tmp_path / "trap"
    for name, arguments in CALLS.items():
        part = {"class_path": name, "init_args": arguments}
        written = json.dumps([part] if setting in SEVERAL else part).replace("TRAP", str(trap))
        with pytest.raises(InputError, match=setting.partition(".")[0]):
            parse("audit", "", ["--config", tiny, f"--{setting}={written}"])
        assert not trap.exists(), name


def test_what_is_refused_is_told_without_a_way_around(tiny):
    part = json.dumps({"class_path": "os.mkdir", "init_args": {"path": "trap"}})
    with pytest.raises(InputError, match=r"'os.mkdir' is not allowed") as refused:
        parse("audit", "", ["--config", tiny, f"--unlearning={part}"])
    assert "set_parsing_settings" not in str(refused.value)


@pytest.mark.parametrize("setting", ["classifier.model", "unlearning", "searcher.algorithm"])
def test_a_bare_name_is_no_way_around(setting, tiny):
    for name in CALLS:
        with pytest.raises(InputError, match=setting.partition(".")[0]):
            parse("audit", "", ["--config", tiny, f"--{setting}={name}"])


def test_a_file_is_read_no_more_trustingly_than_the_command_line(tiny, tmp_path):
    trap = tmp_path / "trap"
    for name, arguments in CALLS.items():
        part = {"searcher": {"class_path": name, "init_args": arguments}}
        file = tmp_path / "more.yaml"
        file.write_text(json.dumps(part).replace("TRAP", str(trap)))
        with pytest.raises(InputError, match="searcher"):
            parse("audit", "", ["--config", tiny, "--config", str(file)])
        assert not trap.exists(), name
