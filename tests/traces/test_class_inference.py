import math

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair, class_evidence, infer_classes


class Logits(nn.Module):
    """Looks the logits up: input ``[n, 1]`` holds the row."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", torch.as_tensor(table, dtype=torch.float64))

    def forward(self, inputs):
        return self.table[inputs[:, 0].long()]


def probabilities(labels, top=0.97, classes=6):
    rows = torch.full((len(labels), classes), (1 - top) / (classes - 1), dtype=torch.float64)
    rows[torch.arange(len(labels)), torch.as_tensor(labels)] = top
    return rows


def test_the_deleted_class_is_found_where_few_inputs_are_taken_for_it():
    labels = [0] * 20 + [1] * 20 + [2] * 20 + [3] * 2  # class 3 is not in the public set, 4 and 5 never appear
    after = [0] * 19 + [1] + [1] * 20 + [2] * 20 + [0, 2]
    evidence = class_evidence(probabilities(labels), probabilities(after))
    assert evidence.deleted == (3,)
    assert evidence.clear
    assert evidence.ranking == (3, 0, 1, 2)
    assert evidence.unknown == (4, 5)
    assert evidence.counts.tolist() == [20, 20, 20, 2, 0, 0]
    flipped = math.sqrt(2) * (0.97 - 0.03 / 5)  # distance of two such rows with different winners
    assert evidence.mean_trace[:4].tolist() == pytest.approx([flipped / 20, 0, 0, flipped])
    assert evidence.mean_trace[4:].isnan().all()
    assert evidence.margin == pytest.approx(flipped * 19 / 20)
    assert evidence.gap == pytest.approx((flipped + 0.05) / (flipped / 20 + 0.05))


def test_several_classes_above_a_clear_gap():
    labels = torch.arange(6).repeat_interleave(10)
    after = labels.clone()
    after[labels == 4] = 0
    after[torch.arange(60)[labels == 1][:8]] = 0
    after[torch.arange(60)[labels == 5][:1]] = 0
    evidence = class_evidence(probabilities(labels), probabilities(after))
    assert evidence.deleted == (4, 1)
    assert evidence.clear


def test_without_a_gap_the_first_is_a_guess():
    labels = torch.arange(6).repeat_interleave(10)
    after = labels.clone()
    after[0:4], after[10:13], after[20:22], after[30:32] = 5, 5, 5, 5
    evidence = class_evidence(probabilities(labels), probabilities(after))
    assert evidence.deleted == (0,)
    assert not evidence.clear
    assert 1 < evidence.gap < 2


def test_quiet_classes_make_no_gap():
    # 0.001 against 0.000001 is a ratio of a thousand and means nothing.
    labels = torch.arange(4)
    before, after = probabilities(labels, classes=4), probabilities(labels, classes=4)
    after[0] += torch.tensor([-1.0, 1.0, 0.0, 0.0]) * 1e-3
    evidence = class_evidence(before, after)
    assert evidence.deleted == (0,)
    assert not evidence.clear


def test_a_change_of_most_classes_is_no_clear_deletion():
    labels = torch.arange(6).repeat_interleave(10)
    after = labels.roll(10)
    after[labels == 5] = 5
    evidence = class_evidence(probabilities(labels), probabilities(after))
    assert not evidence.clear
    assert len(evidence.deleted) == 1


def test_identical_models_deleted_nothing():
    rows = probabilities(torch.arange(6))
    evidence = class_evidence(rows, rows)
    assert evidence.deleted == ()
    assert not evidence.clear
    assert math.isnan(evidence.margin)


def test_one_predicted_class_has_nothing_to_compare_with():
    evidence = class_evidence(probabilities([2, 2]), probabilities([1, 2]))
    assert evidence.deleted == (2,)
    assert not evidence.clear
    assert math.isnan(evidence.gap)
    assert math.isnan(evidence.margin)


def test_the_pair_is_asked_in_batches_and_black_box():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(25, 5, generator=generator)
    after = before.clone()
    after[:, 2] -= 10.0
    pair = ModelPair(Logits(before), Logits(after), "black")
    public = torch.arange(25.0)[:, None]
    whole, split = infer_classes(pair, public), infer_classes(pair, public, batch_size=4)
    assert whole.deleted == split.deleted == (2,)
    assert torch.allclose(whole.mean_trace, split.mean_trace, equal_nan=True)
    expected = class_evidence(before.double().softmax(1), after.double().softmax(1))
    assert torch.allclose(whole.mean_trace, expected.mean_trace, equal_nan=True)
    assert int(whole.counts.sum()) == 25


def test_other_outputs_are_refused():
    with pytest.raises(InputError, match="class probabilities"):
        class_evidence(torch.rand(3, 4, 5), torch.rand(3, 4, 5))
    with pytest.raises(InputError, match="empty"):
        infer_classes(ModelPair(Logits(torch.eye(3)), Logits(torch.eye(3))), torch.empty(0, 1))
    with pytest.raises(InputError, match="batch_size"):
        infer_classes(ModelPair(Logits(torch.eye(3)), Logits(torch.eye(3))), torch.zeros(2, 1), batch_size=0)
