"""The tables of audits of texts: which command is run, what is read from a finished run, and what is written."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_text_audit", FOLDER / "text_audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arm(value, **others):
    return {"distribution": {"sr_oracle": value, "bleu": 12.5, "rouge_l": None, **others}}


METRICS = {
    "attack": arm(0.75, longest_span=6.0),
    "rivals": {"random": arm(0.5)},
    "controls": {"prior": arm(0.03125), "null": arm(0.25), "matched_retrain": arm(0.625), "identity": arm(0.1)},
    "floors": {"heldout_sr_oracle": 0.8, "heldout_bleu": 10.0, "heldout_longest_span": 7.0},
    "models": {"original": {"test_acc": 0.79}, "unlearned": {"test_acc": 0.61}},
    "leakage": {"excess": {"value": 0.71875, "low": 0.6, "high": 0.8}, "record": None},
    "verdict": "leak",
    "verdict_reason": "Because.",
    "checks": [],
    "budget": {"queries": 3072, "repeats": 1},
    "seeds": {"audit": 0, "data": 5},
    "versions": {},
}
TEXTS = {
    f"{name}.{kind}": [f"{name} {kind} {index}" for index in range(8)]
    for name in ("attack", "prior")
    for kind in ("distribution", "nearest")
}


def finish(folder):
    """The files of a finished audit that the benchmark reads."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "texts.json").write_text(json.dumps(TEXTS))


def test_what_is_read_from_a_finished_audit(benchmark, tmp_path):
    finish(tmp_path / "white")
    found = benchmark.summary(tmp_path / "white")
    titles = ["attack (PPO)", "rival: random", "prior only", "null pair", "matched retrain"]
    assert list(found["arms"]) == [*titles, "unseen texts of the class"]
    assert found["arms"]["attack (PPO)"]["longest_span"] == 6
    assert found["arms"]["unseen texts of the class"] == {
        figure: METRICS["floors"].get(f"heldout_{figure}") for figure in benchmark.FIGURES
    }
    pairs = found["reconstructions"]["attack"]
    assert len(pairs) == benchmark.SHOWN
    assert pairs[1] == ["attack distribution 1", "attack nearest 1"]


def test_the_table_says_what_is_missing(benchmark, tmp_path):
    finish(tmp_path / "white")
    header, rule, attack, *_, unseen = benchmark.table(benchmark.summary(tmp_path / "white"))
    assert rule.count("---") == header.count(" | ") + 1 == 1 + len(benchmark.FIGURES)
    cells = dict(zip(header.strip("| ").split(" | "), attack.strip("| ").split(" | "), strict=True))
    assert (cells["sr_oracle"], cells["bleu"], cells["rouge_l"], cells["mmd"]) == ("0.75", "12.5", "-", "-")
    assert unseen.startswith("| unseen texts of the class | 0.8 | 10 |")


def test_every_access_level_is_an_audit_of_its_own_with_shared_models(benchmark, tmp_path, monkeypatch, capsys):
    commands = []

    def run(command, *, check, env):
        commands.append(command)
        assert not check
        assert env["RETRACE_DATA"] == "news"
        finish(Path(command[command.index("--output") + 1]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    runs, table = tmp_path / "runs", tmp_path / "table.json"
    arguments = ["--data", "news", "--runs", str(runs), "--json", str(table), "--access", "white", "black"]
    monkeypatch.setattr("sys.argv", ["text_audit.py", *arguments, "--set", "queries=3072", "rivals=[]"])
    benchmark.main()
    assert [command[command.index("--access") + 1] for command in commands] == ["white", "black"]
    for command in commands:
        assert command[1:6] == ["-m", "retrace_pl", "audit", "--config", "ag_news_tiny"]
        assert command[command.index("--cache") + 1] == str(runs / "cache")
        assert command[-4:] == ["--queries", "3072", "--rivals", "[]"]
    result = json.loads(table.read_text())
    assert list(result["audits"]) == ["white", "black"]
    assert result["command"].endswith("--data FOLDER --set queries=3072 rivals=[]")
    text = table.with_suffix(".md").read_text()
    assert text == capsys.readouterr().out
    assert "Verdict: **leak**. Because." in text
    assert "- Leakage: excess +0.719 [+0.600, +0.800]." in text, "kinds whose control did not run are left out"
    assert text.count("(models taken from the first audit)") == 1
    assert "- attack distribution 0<br>→ attack nearest 0" in text


def test_a_failed_audit_ends_the_benchmark(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    monkeypatch.setattr("sys.argv", ["text_audit.py", "--data", "news", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 2
