import json

import numpy as np
import pytest
import torch

from retrace_pl.errors import InputError
from retrace_pl.traces import BatchMinMax, ModelPair, TraceScorer, joint_scores, reliability, score_groups


def test_groups_report_count_mean_and_quantiles():
    groups = score_groups({"forget": torch.linspace(0, 1, 101), "noise": [], "retain": [0.25]})
    assert list(groups) == ["forget", "retain"]
    assert groups["forget"] == pytest.approx(
        {"count": 101, "mean": 0.5, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
    )
    assert groups["retain"]["q95"] == 0.25


def test_the_curve_is_the_share_with_equal_sides():
    # 3 of 4 positives and 10 of 40 negatives in the upper half: 0.75 / (0.75 + 0.25)
    positives, negatives = [0.9, 0.8, 0.7, 0.2], [0.6] * 10 + [0.1] * 30
    curve = reliability(positives, negatives, bins=2)
    assert curve.share == pytest.approx((0.25 / (0.25 + 0.75), 0.75))
    assert (curve.positives, curve.negatives) == ((1, 3), (30, 10))
    assert all(low < share < high for low, share, high in zip(curve.low, curve.share, curve.high, strict=True))
    upper_mean = (0.75 * 0.8 + 0.25 * 0.6) / 1.0
    lower_mean = (0.25 * 0.2 + 0.75 * 0.1) / 1.0
    assert curve.error == pytest.approx(0.5 * abs(0.75 - upper_mean) + 0.5 * abs(0.25 - lower_mean))
    assert json.loads(json.dumps(curve.as_dict()))["edges"] == [0.0, 0.5, 1.0]


def test_bins_without_inputs_have_no_share_and_ones_belong_to_the_last():
    curve = reliability([1.0, 1.0], [0.0], bins=4)
    assert curve.share == (0.0, None, None, 1.0)
    assert curve.low[1] is None
    assert curve.low[3] < 0.9, "two inputs are not certainty"


def test_a_score_that_is_a_probability_is_on_the_diagonal():
    rng = np.random.default_rng(0)
    scores = rng.random(40000)
    deleted = rng.random(40000) < scores
    assert reliability(scores[deleted], scores[~deleted]).error < 0.01
    assert reliability(rng.random(4000), rng.random(4000)).error == pytest.approx(0.25, abs=0.02)


def test_intervals_cover_the_true_share():
    rng, covered = np.random.default_rng(1), 0
    for trial in range(100):
        curve = reliability(rng.beta(2, 1, 60), rng.beta(1, 2, 60), bins=2, seed=trial)
        covered += curve.low[1] <= 0.75 <= curve.high[1]  # P(beta(2,1) > 1/2) = 3/4, of the other side 1/4
    assert covered >= 88


@pytest.mark.parametrize(
    ("positives", "negatives"), [([], [0.5]), ([0.5], []), ([1.5], [0.5]), ([float("nan")], [0.5])]
)
def test_scores_outside_the_range_are_refused(positives, negatives):
    with pytest.raises(InputError, match="reliability"):
        reliability(positives, negatives)


def test_scores_of_two_pairs_share_the_scale_of_the_reference(models, mlp, inputs):
    reference = TraceScorer(ModelPair(*models, "gray"))
    other = TraceScorer(ModelPair(models[0], mlp(3), "gray"))
    reference.fit(inputs), other.fit(inputs + 1)
    own, foreign = joint_scores(reference, [(reference, inputs[:9]), (other, inputs[9:])])
    torch.testing.assert_close(own, reference(inputs[:9]).score)
    deltas = other.deltas(inputs[9:])
    torch.testing.assert_close(foreign, reference.combine(deltas))
    assert not torch.allclose(foreign, other(inputs[9:]).score)


def test_one_signal_orders_candidates_the_same_under_any_reference(models, mlp, inputs):
    first, second = TraceScorer(ModelPair(*models)), TraceScorer(ModelPair(models[0], mlp(3)))
    first.fit(inputs), second.fit(inputs * 2)
    parts = [(first, inputs[:20]), (second, inputs[20:])]
    one, two = (torch.cat(joint_scores(reference, parts)) for reference in (first, second))
    above = one > 0.02  # the reference's low quantile maps everything below it to 0
    above &= two > 0.02
    assert torch.equal(one[above].argsort(), two[above].argsort())


def test_normalisers_that_work_within_the_batch_see_every_set(models, inputs):
    scorer = TraceScorer(ModelPair(*models), normaliser=BatchMinMax())
    parts = joint_scores(scorer, [(scorer, inputs[:5]), (scorer, inputs[5:])])
    torch.testing.assert_close(torch.cat(parts), scorer(inputs).score)


def test_no_set_is_an_error(models):
    with pytest.raises(InputError, match="no set"):
        joint_scores(TraceScorer(ModelPair(*models)), [])
