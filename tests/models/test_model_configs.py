from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from retrace_pl.models import Classifier, Generator

FILES = sorted((Path(__file__).parents[2] / "configs" / "model").glob("*.yaml"))
GENERATORS = {"dcgan_16": 16, "dcgan_32": 32}


def test_there_are_configurations():
    assert len(FILES) >= 9


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_builds_its_model(path):
    settings = yaml.safe_load(path.read_text())
    parser = ArgumentParser()
    if path.stem in GENERATORS:
        size = GENERATORS[path.stem]
        parser.add_argument("--model", type=Callable[[tuple[int, ...]], Generator])
        model = parser.instantiate(parser.parse_object({"model": settings})).model((1, size, size))
        samples = model.eval()(model.sample_latents(2, torch.Generator().manual_seed(0)))
        assert samples.shape == (2, 1, size, size)
        assert type(model).__name__ == settings["class_path"].rpartition(".")[2]
    else:
        parser.add_argument("--model", type=Callable[[int, int], Classifier])
        model = parser.instantiate(parser.parse_object({"model": settings})).model(1, 10)
        assert model.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
