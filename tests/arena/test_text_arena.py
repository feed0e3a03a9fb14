"""An arena whose audit is of texts, in one small cell on made-up texts: it tests the plumbing."""

import json

import pytest

from retrace_pl.cli import main
from retrace_pl.pipeline.parsing import parse

SIZES = {"train": 160, "public": 96, "evaluator": 96, "test": 48}
ARENA = """\
name: Texts
audit: base.yaml
methods: [retain_finetune]
seeds: [0]
forget_classes: [Sports]
access: [black]
attacks: [random]
overrides:
  audit.controls: [prior, matched_retrain, holdout]
"""


@pytest.fixture
def text_arena(tmp_path, write_news):
    """The miniature audit of news, shrunk, on a data set of its own."""
    folder = write_news(tmp_path / "news", train=400, test=60)
    data = "--data.init_args."
    options = [
        "--config=ag_news_tiny",
        f"{data}source.init_args.path={folder}",
        f"{data}tokenizer.init_args.vocab_size=400",
        f"{data}tokenizer.init_args.cache=null",
        *(f"{data}{name}_size={size}" for name, size in SIZES.items()),
        f"{data}max_length=24",
        *(f"--{model}.model.init_args.width=32" for model in ("classifier", "evaluator")),
        *(f"--{model}.epochs={epochs}" for model, epochs in (("classifier", 4), ("evaluator", 4), ("generator", 1))),
        "--queries=64",
        "--attack.init_args.top_k=8",
        "--rivals=[]",
        "--inferences=[]",
        "--audit.repeats=1",
        "--audit.bootstrap_samples=50",
        "--trainer.threads=1",
    ]
    (tmp_path / "base.yaml").write_text(parse("audit", "", options).text)
    (tmp_path / "arena.yaml").write_text(ARENA)
    return tmp_path


@pytest.mark.slow  # a worker imports everything anew, and trains a text generator
def test_an_arena_over_texts_attacks_its_cell(text_arena, monkeypatch):
    monkeypatch.chdir(text_arena)
    assert main(["arena", "--config", "arena.yaml", "--output", "out", "--jobs", "1", "--quiet"]) == 0
    cells = json.loads((text_arena / "out" / "arena.json").read_text())["cells"]
    assert [(cell["method"], cell["status"]) for cell in cells] == [("retain_finetune", "done")]
    assert 0 <= cells[0]["attack_result"]["sr_oracle"] <= 1
    assert {"bleu", "rouge_l", "sr_verbatim", "distinct_1"} <= set(cells[0]["attack_result"])
    assert "mse" not in cells[0]["attack_result"]
    assert "its candidates are texts" in (text_arena / "out" / "arena.html").read_text()
