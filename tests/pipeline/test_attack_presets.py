"""Every packaged attack in an audit that does not suit it: the reason is recorded, and the audit goes on."""

import importlib
import shutil

import pytest
import yaml

from retrace_pl.attacks import InferenceAttack
from retrace_pl.pipeline.api import Audit
from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import config_folders

FOLDER = config_folders()[0] / "attack"
WHITE_BOX = ("hrec", "hrec_pixels", "retrace_gradient", "uia_500", "uia_2000", "uia_10000")
PLAIN = {"rivals": [], "audit.repeats": 1, "audit.controls": ["prior"], "audit.baseline_controls": False}


def settings_of(name):
    """A preset by its file's name, with the files that it names itself read in."""
    settings = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    searcher = settings.get("init_args", {}).get("searcher")
    if searcher:
        settings["init_args"]["searcher"] = yaml.safe_load((FOLDER / searcher).read_text())
    return settings


def is_inference(settings):
    module, _, name = settings["class_path"].rpartition(".")
    return issubclass(getattr(importlib.import_module(module), name), InferenceAttack)


@pytest.fixture(scope="module")
def attacked(finished_run, tmp_path_factory):
    """Runs presets, by their files' names, beside the attack of a copy of the finished audit."""
    number = iter(range(100))

    def attack(names, **overrides):
        folder = tmp_path_factory.mktemp("presets") / f"run-{next(number)}"
        shutil.copytree(finished_run, folder)
        lists = {"baselines": {}, "inferences": {}}
        for name in names:
            settings = settings_of(name)
            lists["inferences" if is_inference(settings) else "baselines"][name] = settings
        others = {kind: list(found.values()) for kind, found in lists.items()}
        metrics = Audit.from_config(folder / "config.yaml", folder, PLAIN | others | overrides).run(STAGES[:-1]).metrics
        rows = {}
        for kind, presets in lists.items():
            rows |= dict(zip(presets, metrics[kind].values(), strict=True))
        assert metrics["verdict"] in ("leak", "no_evidence", "invalid")
        return rows

    return attack


OF_TEXTS = "reversed_guidance"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != OF_TEXTS)


def test_a_budget_that_is_too_small_is_recorded(attacked):
    attack = {"attack.refinement_steps": 0, "searcher": "RandomSearcher", "queries": 24}
    rows = attacked(PRESETS, **attack, rivals=[{"class_path": "SB3Searcher"}])
    reasons = {name: row["reason"] for name, row in rows.items() if not row["applicable"]}
    assert sorted(reasons) == sorted(name for name in PRESETS if name.startswith(("hrec", "retrace", "uia", "label")))
    for name, reason in reasons.items():
        assert "quer" in reason, name
        assert "24" in reason or "of 6" in reason or "has 6" in reason, name
    for name, row in rows.items():
        assert row["queries"] <= 24, name


def test_black_box_access_is_recorded(attacked):
    names = [name for name in PRESETS if name not in ("retrace_sac_rlb_mi", "retrace_cma_es", "label_inference")]
    rows = attacked([*names, OF_TEXTS], access="black", queries=384, searcher="RandomSearcher")
    other = rows.pop(OF_TEXTS)
    assert not other["applicable"]
    assert "no step to guide" in other["reason"]
    for name, row in rows.items():
        assert row["applicable"] is (name not in WHITE_BOX), name
        assert row["applicable"] or "needs access=white" in row["reason"], name


@pytest.mark.parametrize(("unlearning", "reason"), [("SSD", "dampening"), ("Identity", "same parameters")])
def test_a_pair_without_a_gradient_s_direction_is_recorded(attacked, unlearning, reason):
    names = ["class_inference", "hrec", "label_inference", "max_diff", "uia_500"]
    rows = attacked(names, unlearning=unlearning, queries=384, searcher="RandomSearcher")
    reasons = {name: row["reason"] for name, row in rows.items() if not row["applicable"]}
    assert reason in reasons.pop("uia_500")
    if unlearning == "Identity":
        assert reason in reasons.pop("hrec")
        assert "same probability" in reasons.pop("label_inference")
    assert reasons == {}
