import json

import numpy as np
import pytest
import torch

from retrace_pl import Audit, ModelPair
from retrace_pl.errors import InputError, RunError
from retrace_pl.searchers import CEMSearcher


def test_a_finished_run_is_read_and_not_repeated(run_copy, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    run = Audit.from_config(tiny, run_copy).run()
    assert before == {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    assert run.metrics == json.loads((run_copy / "metrics.json").read_text())
    assert run.curves == json.loads((run_copy / "curves.json").read_text())
    assert run.images("attack.distribution").shape == (16, 1, 16, 16)
    assert run.verdict == run.metrics["verdict"]
    assert run.candidates is run.tensors["attack.distribution"]
    assert run.report == run_copy / "report.html"
    assert run.tensorboard == run_copy / "tensorboard"
    assert capsys.readouterr() == ("", "")


def test_settings_of_every_kind_reach_the_audit(run_copy, tiny):
    overrides = {"audit.controls": ["prior", "identity"], "trainer.threads": None, "generator.epochs": 3}
    audit = Audit.from_config(
        tiny,
        str(run_copy),
        overrides,
        queries=128,
        access="black",
        searcher=CEMSearcher,
        rivals=[],
        latent={"tau": 0.25},
    )
    assert audit.config.generator.epochs == 3
    assert isinstance(audit.config.searcher, CEMSearcher)
    assert "Tiny digits" in repr(audit)
    run = Audit.from_config(
        tiny,
        str(run_copy),
        {name: value for name, value in overrides.items() if not name.startswith("generator")},
        queries=128,
        access="black",
        searcher="CEMSearcher",
        rivals=[],
        latent={"tau": 0.25},
    ).run()
    assert run.get("budget.queries") == 128
    assert run.get("setting.access") == "black"
    assert run.get("setting.searcher") == "CEMSearcher"
    assert run.get("setting.tau") == 0.25
    assert run.metrics["rivals"] == {}
    assert set(run.metrics["controls"]) == {"prior", "identity"}


def test_a_section_given_as_a_mapping_keeps_its_other_settings(tmp_path, tiny):
    audit = Audit.from_config(tiny, tmp_path / "run", generator={"epochs": 7})
    assert (audit.config.generator.epochs, audit.config.generator.batch_size) == (7, 64)
    assert not (tmp_path / "run").exists()


def test_every_stage_returns_what_it_is_about(run_copy, tiny):
    audit = Audit.from_config(tiny, run_copy)
    images = audit.data.split("public").inputs[:4]
    original, evaluator = audit.pretrain()
    generator = audit.generator()
    pair = audit.unlearn()
    assert isinstance(pair, ModelPair)
    assert pair.access == "white"
    assert torch.equal(pair.outputs(images).original, original(images).softmax(1))
    assert not torch.equal(pair.outputs(images).unlearned, pair.outputs(images).original)
    assert evaluator(images).shape == (4, 10)
    found = audit.attack()
    assert [one.queries for one in found] == [256, 256]
    assert len(found[0].pool) == 256
    assert len(found[1].pool) == 256
    assert (found[0].curve[-1][0], found[1].curve) == (256, [])
    assert torch.allclose(generator(found[0].latents), found[0].inputs, atol=1e-5)
    result = audit.evaluate()
    assert np.array_equal(result.candidates, found[0].inputs.numpy())
    assert audit.report() == result.report


def test_a_stage_names_the_one_that_it_needs(tmp_path, tiny):
    with pytest.raises(RunError, match="needs stage pretrain"):
        Audit.from_config(tiny, tmp_path / "run").unlearn()


@pytest.mark.parametrize(
    ("config", "overrides", "named"),
    [
        ("no_such_audit", {}, "no_such_audit"),
        ("digits", {"querys": 10}, "querys"),
        ("digits", {"queries": "many"}, "queries"),
        ("digits", {"access": "purple"}, "access"),
        ("digits", {"searcher": CEMSearcher()}, "searcher: CEMSearcher cannot be written"),
        ("digits", {"output": "elsewhere"}, "output is no setting"),
    ],
)
def test_bad_input_names_the_setting(tmp_path, config, overrides, named):
    with pytest.raises(InputError, match=named):
        Audit.from_config(config, tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()


def test_an_audit_that_was_not_evaluated_has_no_result(tmp_path, tiny):
    with pytest.raises(InputError, match="run `retrace evaluate`"):
        Audit.from_config(tiny, tmp_path / "run").result()


def test_progress_is_shown_on_request(run_copy, tiny, capsys):
    Audit.from_config(tiny, run_copy, quiet=False).run()
    assert "done already" in capsys.readouterr().err
