import math

import pytest
import torch
from sklearn.metrics import roc_curve

from retrace_pl.errors import InputError
from retrace_pl.metrics import tpr_at_fpr


@pytest.mark.parametrize("max_fpr", [0.0, 0.01, 0.05, 0.37, 1.0])
@pytest.mark.parametrize("others", [7, 100, 1000])
def test_the_rate_is_that_of_the_roc_curve(others, max_fpr):
    generator = torch.Generator().manual_seed(others)
    members = (torch.randn(400, generator=generator, dtype=torch.float64) + 1).mul(8).round() / 8  # many ties
    unseen = torch.randn(others, generator=generator, dtype=torch.float64).mul(8).round() / 8
    truth = torch.cat([torch.ones(400), torch.zeros(others)])
    fpr, tpr, _ = roc_curve(truth, torch.cat([members, unseen]), drop_intermediate=False)
    assert tpr_at_fpr(members, unseen, max_fpr) == pytest.approx(tpr[fpr <= max_fpr + 1e-9].max())


def test_equal_scores_name_nobody():
    assert tpr_at_fpr([0.5] * 10, [0.5] * 300) == 0.0
    assert tpr_at_fpr([0.9, 0.1], [0.5, 0.2]) == 0.5


def test_a_broken_score_has_no_rate():
    assert math.isnan(tpr_at_fpr([math.nan], [0.0]))


@pytest.mark.parametrize(("members", "others", "rate"), [([], [1.0], 0.01), ([1.0], [], 0.01), ([1.0], [1.0], 1.5)])
def test_nothing_to_compare_is_refused(members, others, rate):
    with pytest.raises(InputError, match="true-positive rate needs"):
        tpr_at_fpr(members, others, rate)
