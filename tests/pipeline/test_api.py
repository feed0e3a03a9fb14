import json

import pytest

from retrace_pl.errors import InputError
from retrace_pl.pipeline.api import run_audit


def test_a_finished_run_is_read_and_not_repeated(run_copy, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    run = run_audit(tiny, run_copy)
    assert before == {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    assert run.metrics == json.loads((run_copy / "metrics.json").read_text())
    assert run.curves == json.loads((run_copy / "curves.json").read_text())
    assert run.images("attack.distribution").shape == (16, 1, 16, 16)
    assert capsys.readouterr() == ("", "")


def test_overrides_of_every_kind_reach_the_audit(run_copy, tiny):
    overrides = {
        "queries": 128,
        "access": "black",
        "searcher": "CEMSearcher",
        "rivals": [],
        "audit.controls": ["prior", "identity"],
        "latent": {"tau": 0.25},
        "trainer.threads": None,
    }
    run = run_audit(tiny, str(run_copy), overrides)
    assert run.get("budget.queries") == 128
    assert run.get("setting.access") == "black"
    assert run.get("setting.searcher") == "CEMSearcher"
    assert run.get("setting.tau") == 0.25
    assert run.metrics["rivals"] == {}
    assert set(run.metrics["controls"]) == {"prior", "identity"}


@pytest.mark.parametrize(
    ("config", "overrides", "named"),
    [
        ("no_such_audit", {}, "no_such_audit"),
        ("digits", {"querys": 10}, "querys"),
        ("digits", {"queries": "many"}, "queries"),
        ("digits", {"access": "purple"}, "access"),
    ],
)
def test_bad_input_names_the_setting(tmp_path, config, overrides, named):
    with pytest.raises(InputError, match=named):
        run_audit(config, tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()


def test_progress_is_shown_on_request(run_copy, tiny, capsys):
    run_audit(tiny, run_copy, quiet=False)
    assert "done already" in capsys.readouterr().err
