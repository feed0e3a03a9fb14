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


def refused(arguments, tmp_path, monkeypatch, capsys):
    """What a command line that cannot be run ends with: one line, exit code 2, nothing trained."""
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments, "--output=run"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("retrace: error:")]
    assert len(lines) == 1
    assert not list(tmp_path.glob("run/*.safetensors"))
    return lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--classifier.model.init_args.window=20", "max_length: 24 is more than the window of 20 tokens of DistilBert"),
        ("--data.init_args.truncate=false", "has more than 24 tokens"),
        ("--data.init_args.source.init_args.label_column=topic", "label_column: "),
        ("--data.init_args.source.init_args.label_column=text", "label_column: 'text' of "),
        ("--data.init_args.source.init_args.text_column=body", "text_column: "),
        ("--classifier.model.init_args.pad_id=3", "pad_id: DistilBertClassifier has 3, and the tokenizer"),
        ("--data.init_args.tokenizer.init_args.vocab_size=10", "vocab_size: 10 is less than"),
    ],
)
def test_texts_that_do_not_fit_are_one_line(change, message, options, tmp_path, monkeypatch, capsys):
    long = ["--data.init_args.max_length=24", change]
    assert message in refused([*options, *long], tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"text": ["a b", "  ", "c d"] * 60, "label": [0, 1, 2] * 60}, "text_column: the text of record "),
        ({"text": ["a b", "b c", "c d"] * 60}, "news has no column 'label'"),
        ({"text": ["a b", "b c", "c d"] * 60, "label": ["x", "y", "z"] * 60}, "holds string, not whole numbers"),
        (
            {"text": ["a b", "b c", "c d"] * 60, "label": [0, 1.5, 2] * 60},
            ", not whole numbers; name",
        ),
        ({"text": ["a b", "b c", "c d"] * 60, "label": [0, None, 2] * 60}, "is empty in record 1"),
    ],
)
def test_data_sets_that_cannot_be_used_are_one_line(content, message, options, tmp_path, monkeypatch, capsys):
    from datasets import Dataset

    (tmp_path / "news").mkdir()
    Dataset.from_dict(content).to_parquet(tmp_path / "news" / "train.parquet")
    other = f"--data.init_args.source.init_args.path={tmp_path / 'news'}"
    classes = "--data.init_args.forget_class=1"
    line = refused([*options, other, classes], tmp_path, monkeypatch, capsys)
    assert message in line


def test_pretrained_parts_that_cannot_be_had_are_one_line_with_the_remedy(tmp_path, monkeypatch, capsys, write_news):
    write_news(tmp_path / "ag_news", train=160, test=40)
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    cpu = ["--config=ag_news_distilbert", "--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    nobody = "--data.init_args.tokenizer.init_args.path=nobody/no-such-model"
    line = refused([*cpu, nobody], tmp_path, monkeypatch, capsys)
    assert "tokenizer: nobody/no-such-model gives no tokenizer" in line
    assert "or use TrainedTokenizer" in line
