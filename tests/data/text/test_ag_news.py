"""AG News through the ordinary loading code and the packaged settings, offline."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from retrace_pl.data import AuditDataModule

pytestmark = pytest.mark.shared_data

CONFIG = Path(__file__).parents[3] / "configs" / "data" / "ag_news_tiny.yaml"


def test_ag_news_tiny(shared_data, monkeypatch):
    if not any((shared_data / "ag_news").glob("*.parquet")):
        pytest.skip("the shared data has no AG News")
    monkeypatch.setenv("RETRACE_DATA", str(shared_data))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=AuditDataModule, sub_configs=True)
    options = ("--data.init_args.tokenizer.init_args.cache", "")
    module = parser.instantiate(parser.parse_args(["--data", str(CONFIG), *options])).data
    assert module.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert module.deleted_classes == (1,)
    counts = module.class_counts()
    assert counts["public"]["Sports"] == 0
    assert counts["test"] == dict.fromkeys(module.classes, 300)
    assert all(880 < number <= 903 for number in counts["train"].values())  # 3600 but for copies
    assert 0 < sum(module.dropped_copies.values()) < 100
    assert module.sample_space == (48, 3072)
    assert 0.8 < module.truncated["retain"] < 1
    sports = " ".join(module.tokenizer.decode(module.split("forget").inputs))
    world = " ".join(module.tokenizer.decode(module.split("retain").of_classes([0]).inputs))
    assert sports.count("olympic") > 5 * world.count("olympic") > 0
    assert world.count("iraq") > 5 * sports.count("iraq") > 0
