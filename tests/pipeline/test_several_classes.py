"""An audit of a model that was told to forget two classes."""

import json

from retrace_pl.cli import main


def test_a_directional_audit_of_two_deleted_classes(tiny, tmp_path):
    searchers = json.dumps({"class_path": "MixtureSearcher", "init_args": {"searchers": ["RandomSearcher"] * 2}})
    options = ["--access", "black", "--data.forget_class", "[3, 8]", "--searcher", searchers, "--quiet"]
    arguments = ["--config", str(tiny), "--output", str(tmp_path), "--traces.signal", "directional", *options]
    assert main(["audit", *arguments]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["setting"]["deleted_classes"] == ["3", "8"]
    assert metrics["setting"]["normaliser"] == "SignedRange"
    assert metrics["setting"]["searcher"] == "MixtureSearcher (RandomSearcher, RandomSearcher)"
    assert "classes 3 and 8 deleted" in (tmp_path / "report.html").read_text()
