"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import retrace_pl

NAMES = {"np": np, "torch": torch, "nn": nn}
"""What every example may use without importing it."""

SHOWN = {
    "attacks": ("ReTrace",),
    "envs": ("CandidatePool", "LatentCore"),
    "metrics": ("CentredCosine", "Diversity", "NearestMSE", "NearestPSNR", "SSIM", "SuccessRate"),
    "pipeline.api": ("Audit",),
    "searchers": ("CEMSearcher", "RandomSearcher", "SB3Searcher"),
    "traces": ("ModelPair", "TraceScorer"),
}
"""Public classes that people meet first: each has an example."""


def modules_with_examples():
    for module in pkgutil.walk_packages(retrace_pl.__path__, "retrace_pl."):
        path = Path(module.module_finder.path, f"{module.name.rpartition('.')[2]}{'/__init__' * module.ispkg}.py")
        if ">>> " in path.read_text(encoding="utf-8"):
            yield module.name


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples(name):
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=NAMES):
        torch.manual_seed(0)
        said = []
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
        assert not said, "".join(said)


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in SHOWN for name in SHOWN[package]])
def test_a_class_that_people_meet_first_has_an_example(package, name):
    found = getattr(importlib.import_module(f"retrace_pl.{package}"), name)
    assert any(test.examples for test in doctest.DocTestFinder(recurse=True).find(found, name, globs={}))
