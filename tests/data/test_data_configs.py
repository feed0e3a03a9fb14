"""Every file of configs/data parses and gives a data module, whether or not the data is there."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from retrace_pl.data import AuditDataModule, ImageSource, TextSource, TextUnlearningDataModule, UnlearningDataModule
from retrace_pl.errors import InputError

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


def _parse(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=AuditDataModule, sub_configs=True)
    return parser.instantiate(parser.parse_args([str(argument) for argument in arguments])).data


def test_all_configs_are_here():
    assert {file.stem for file in CONFIGS} == {
        "digits",
        "fashion_mnist",
        "cifar100",
        "food101",
        "pathmnist",
        "image_folder",
        "ag_news",
        "ag_news_tiny",
    }


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_gives_a_data_module(file, monkeypatch, tmp_path):
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    module = _parse("--data", file)
    text = file.stem.startswith("ag_news")
    assert type(module) is (TextUnlearningDataModule if text else UnlearningDataModule)
    assert isinstance(module.source, TextSource if text else ImageSource)


def test_settings_and_roots_can_be_overridden():
    file = CONFIGS[[config.stem for config in CONFIGS].index("image_folder")]
    module = _parse(
        "--data", file, "--data.init_args.source.init_args.root", "/somewhere", "--data.init_args.seed", "5"
    )
    assert module.source.root == "/somewhere"
    assert module.seed == 5
    # From one kind of deletion to another: unset the first.
    overrides = ("--data.init_args.forget_fraction", "null", "--data.init_args.forget_class", "cat")
    assert _parse("--data", file, *overrides).settings.forget_class == "cat"
    with pytest.raises(InputError, match="forget_class and forget_fraction are set"):
        _parse("--data", file, *overrides[2:])


def test_missing_data_of_a_config_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRACE_DATA", str(tmp_path))
    for stem, message in (
        ("pathmnist", "pathmnist.npz does not exist"),
        ("image_folder", "images does not exist"),
        ("ag_news", "ag_news does not exist"),
    ):
        module = _parse("--data", next(file for file in CONFIGS if file.stem == stem))
        with pytest.raises(InputError, match=message):
            module.prepare_data()


def test_the_digits_config_runs():
    module = _parse("--data", next(file for file in CONFIGS if file.stem == "digits"))
    assert {name: len(module.split(name)) for name in ("train", "public", "evaluator", "test")} == {
        "train": 600,
        "public": 530,
        "evaluator": 300,
        "test": 300,
    }
    assert module.class_counts()["public"]["3"] == 0
