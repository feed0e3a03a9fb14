"""The miniature text audit on made-up texts: what is refused before anything is trained, and what its settings redo."""

import pytest

from retrace_pl.cli import main
from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import stage_keys

SIZES = {"train": 60, "public": 40, "evaluator": 40, "test": 20}


@pytest.fixture(scope="module")
def options(tmp_path_factory, write_news):
    """Command-line settings that shrink the audit, on a data set of its own."""
    folder = write_news(tmp_path_factory.mktemp("news"), train=160, test=40)
    data = "--data.init_args."
    return [
        "--config=ag_news_tiny",
        f"{data}source.init_args.path={folder}",
        f"{data}tokenizer.init_args.vocab_size=320",
        f"{data}tokenizer.init_args.cache=null",
        *(f"{data}{name}_size={size}" for name, size in SIZES.items()),
        f"{data}max_length=24",
        "--trainer.threads=1",
    ]


def test_special_tokens_of_another_tokenizer_are_refused_before_anything_is_trained(
    options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    wrong = "--generator.model.init_args.bos_id=7"
    assert main(["pretrain", *options, wrong, "--output=run"]) == 2
    shown = capsys.readouterr().err
    assert "bos_id: " in shown
    assert "has 7, and the tokenizer the trained tokenizer has 2; set it to that" in shown
    assert not list(tmp_path.glob("run/*.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "cache=null makes no folder"


def test_words_of_a_copied_span_repeat_the_evaluation_alone(options):
    usual = stage_keys(parse("audit", "", options).settings)
    other = stage_keys(parse("audit", "", [*options, "--data.init_args.span_words=4"]).settings)
    assert [stage for stage in STAGES if usual[stage] != other[stage]] == ["evaluate", "report"]
