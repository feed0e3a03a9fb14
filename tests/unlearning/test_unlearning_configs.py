"""Every YAML of configs/unlearning builds a method, and every method has one."""

from pathlib import Path

import jsonargparse
import pytest
import yaml

import retrace_pl.unlearning as zoo
from retrace_pl.unlearning import UnlearningMethod

FOLDER = Path(__file__).parents[2] / "configs" / "unlearning"
FILES = sorted(FOLDER.rglob("*.yaml"))


def build(path):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(UnlearningMethod, "unlearning")
    return parser.instantiate(parser.parse_object({"unlearning": yaml.safe_load(path.read_text())})).unlearning


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_builds_its_method(path):
    method = build(path)
    settings = yaml.safe_load(path.read_text())
    assert type(method).__name__ == settings["class_path"].rpartition(".")[2]
    for name, value in settings.get("init_args", {}).items():
        if name != "optimizer" and not isinstance(value, dict):  # a nested class is built, not kept
            assert getattr(method, name) == value
    assert path.read_text().startswith("# "), "a preset says what it is for"


def test_every_method_has_a_generic_file():
    named = {type(build(path)).__name__ for path in FOLDER.glob("*.yaml")}
    methods = {name for name in zoo.__all__ if isinstance(getattr(zoo, name), type)}
    exported = {name for name in methods if issubclass(getattr(zoo, name), UnlearningMethod)} - {"UnlearningMethod"}
    assert named == exported
