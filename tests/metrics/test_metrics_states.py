"""Batches and ranks add up: accumulation equals one shot, two merged halves equal the whole, and reset forgets."""

import copy

import pytest
import torch
from torchmetrics import Metric

import retrace_pl.metrics as package
from retrace_pl.metrics import (
    SSIM,
    CentredCosine,
    Diversity,
    FeatureFID,
    FeatureKID,
    FeatureKL,
    FeatureMMD,
    LabelKL,
    MembershipAUC,
    NearestMSE,
    NearestPSNR,
    PairwiseMSE,
    PrecisionRecall,
    SuccessRate,
)

_GENERATOR = torch.Generator().manual_seed(0)
_RECORDS = torch.rand(15, 1, 16, 16, generator=_GENERATOR)
_IMAGES = torch.rand(20, 1, 16, 16, generator=_GENERATOR)
_REFERENCE = torch.randn(15, 6, generator=_GENERATOR)
_FEATURES = torch.randn(20, 6, generator=_GENERATOR)
_LABELS = torch.randint(0, 4, (20,), generator=_GENERATOR)
_SCORES = torch.rand(20, generator=_GENERATOR)

CASES = {
    "NearestMSE": (lambda: NearestMSE(_RECORDS), (_IMAGES,)),
    "NearestPSNR": (lambda: NearestPSNR(_RECORDS), (_IMAGES,)),
    "PairwiseMSE": (lambda: PairwiseMSE(_RECORDS), (_IMAGES,)),
    "CentredCosine": (lambda: CentredCosine(_RECORDS, _RECORDS.mean(dim=0)), (_IMAGES,)),
    "SSIM": (lambda: SSIM(_RECORDS), (_IMAGES,)),
    "Diversity": (Diversity, (_IMAGES,)),
    "FeatureFID": (lambda: FeatureFID(_REFERENCE), (_FEATURES,)),
    "FeatureKID": (lambda: FeatureKID(_REFERENCE), (_FEATURES,)),
    "FeatureKL": (lambda: FeatureKL(_REFERENCE), (_FEATURES,)),
    "FeatureMMD": (lambda: FeatureMMD(_REFERENCE), (_FEATURES,)),
    "PrecisionRecall": (lambda: PrecisionRecall(_REFERENCE), (_FEATURES,)),
    "LabelKL": (lambda: LabelKL(_LABELS[:7], 4), (_LABELS,)),
    "SuccessRate": (SuccessRate, (_SCORES > 0.3,)),
    "MembershipAUC": (MembershipAUC, (_SCORES, _LABELS > 1)),
}


def _close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)


def _filled(build, batches):
    metric = build()
    for batch in batches:
        metric.update(*batch)
    return metric


def test_every_public_metric_is_covered():
    public = {
        n for n in package.__all__ if isinstance(getattr(package, n), type) and issubclass(getattr(package, n), Metric)
    }
    assert public == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_batches_equal_one_shot(name):
    build, inputs = CASES[name]
    batches = list(zip(*(x.split([3, 1, 9, 7]) for x in inputs), strict=True))
    _close(_filled(build, batches).compute(), _filled(build, [inputs]).compute())


@pytest.mark.parametrize("name", CASES)
def test_merged_halves_equal_the_whole(name):
    build, inputs = CASES[name]
    first = _filled(build, [[x[:8] for x in inputs]])
    second = _filled(build, [[x[8:] for x in inputs]])
    first.merge_state(second)
    _close(first.compute(), _filled(build, [inputs]).compute())


@pytest.mark.parametrize("name", CASES)
def test_reset_forgets_candidates_and_keeps_the_reference(name):
    build, inputs = CASES[name]
    metric = _filled(build, [[x[:8] for x in inputs]])
    metric.compute()
    metric.reset()
    metric.update(*inputs)
    _close(metric.compute(), _filled(build, [inputs]).compute())


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_left_alone_and_copies_are_independent(name):
    build, inputs = CASES[name]
    before = [x.clone() for x in inputs]
    metric = _filled(build, [inputs])
    twin = copy.deepcopy(metric)
    twin.update(*[x[:5] for x in inputs])
    metric.compute()
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    _close(metric.compute(), _filled(build, [inputs]).compute())


@pytest.mark.parametrize("name", CASES)
def test_declared_traits_and_docstring(name):
    build, _ = CASES[name]
    metric = build()
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert metric.higher_is_better in (True, False, None)
    assert not metric.state_dict()  # the deleted records must never end up in a checkpoint
    doc = type(metric).__doc__ or ""
    assert doc.splitlines()[0].endswith(".")
    assert "Args:" in doc
