from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from retrace_pl.models import Classifier, Generator, gpt2, gpt2_body

FILES = sorted((Path(__file__).parents[2] / "configs" / "model").glob("*.yaml"))
GENERATORS = {"dcgan_16": (1, 16, 16), "dcgan_32": (1, 32, 32), "gpt2_tiny": (12, 50), "gpt2": (12, 30522)}
CLASSIFIERS = {"distilbert_tiny": 50, "distilbert": 30522}
"""Sizes of the vocabulary; the others take images."""

PRETRAINED = {"distilbert-base-uncased": 30522, "gpt2": 50257}
"""Models that the files name; none is downloaded here."""


def miniature(kind, name, **settings):
    """A model of the kind with the vocabulary that the named one has, in place of its weights."""
    small = {"dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 1, "n_embd": 8, "n_layer": 1, "n_head": 1}
    return kind(kind.config_class(vocab_size=PRETRAINED[name], **small, **settings))


def recoder(source, target, setting):
    """In place of two tokenizers: every text becomes the same one."""
    known = SimpleNamespace(get_vocab_size=lambda: PRETRAINED[target], token_to_id=lambda token: 50256)

    class Fixed:
        target = known

        def __call__(self, ids, length, **special):
            return torch.full((len(ids), length), 7)

    return Fixed()


def test_there_are_configurations():
    assert len(FILES) >= 13


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    monkeypatch.setattr("retrace_pl.models.distilbert.load_pretrained", miniature)
    monkeypatch.setattr(gpt2_body, "load_pretrained", miniature)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_builds_its_model(path, monkeypatch):
    settings = yaml.safe_load(path.read_text())
    parser = ArgumentParser()
    name = settings["class_path"].rpartition(".")[2]
    if path.stem in GENERATORS:
        space = GENERATORS[path.stem]
        monkeypatch.setattr(gpt2, "Recoder", recoder)
        parser.add_argument("--model", type=Callable[[tuple[int, ...]], Generator])
        model = parser.instantiate(parser.parse_object({"model": settings})).model(space)
        assert type(model).__name__ == name
        samples = model.eval()(model.sample_latents(2, torch.Generator().manual_seed(0)))
        assert samples.shape == (2, *model.output_shape)
    else:
        parser.add_argument("--model", type=Callable[[int, int], Classifier])
        build = parser.instantiate(parser.parse_object({"model": settings})).model
        inputs = torch.zeros(2, 1, 32, 32)
        if path.stem in CLASSIFIERS:
            inputs = torch.full((2, 9), 5)
        model = build(CLASSIFIERS.get(path.stem, 1), 10)
        assert type(model).__name__ == name
        assert model.eval()(inputs).shape == (2, 10)
