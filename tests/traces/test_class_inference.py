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


def faded(labels, *shares, top=0.95):
    """f+ with ``top`` for the label; f- gives ``share`` of class c's probability to the last class."""
    before = probabilities(labels, top)
    after = before.clone()
    for label, share in enumerate(shares):
        after[:, -1] += share * before[:, label]
        after[:, label] -= share * before[:, label]
    return before, after


EVERY = torch.arange(6).repeat_interleave(10)


def test_the_loss_is_the_slope_of_the_probabilities():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(50, 4, generator=generator).double().softmax(1) for _ in range(2))
    slopes = [torch.linalg.lstsq(before[:, [c]], after[:, [c]]).solution.item() for c in range(4)]
    assert (1 - class_evidence(before, after).lost).tolist() == pytest.approx(slopes)


def test_the_deleted_class_is_found_where_few_inputs_are_taken_for_it():
    labels = [0] * 20 + [1] * 20 + [2] * 20 + [3] * 2  # class 3 is not in the public set, 4 and 5 never appear
    after = [0] * 19 + [1] + [1] * 20 + [2] * 20 + [0, 2]
    evidence = class_evidence(probabilities(labels), probabilities(after))
    assert evidence.deleted == (3,)
    assert evidence.clear
    assert evidence.ranking[:2] == (3, 0)
    assert evidence.unknown == (4, 5)
    assert evidence.counts.tolist() == [20, 20, 20, 2, 0, 0]
    assert evidence.peak.tolist() == pytest.approx([0.97] * 4 + [0.006] * 2)
    flipped = math.sqrt(2) * (0.97 - 0.006)  # distance of two such rows with different winners
    assert evidence.mean_trace[:4].tolist() == pytest.approx([flipped / 20, 0, 0, flipped])
    assert evidence.mean_trace[4:].isnan().all()
    assert evidence.margin == pytest.approx(float(evidence.lost[3] - evidence.lost[0]))


def test_a_class_that_is_never_predicted_can_be_found():
    before = probabilities([0, 1, 2] * 20, top=0.6)
    before[:4, 3], before[:4, 0] = 0.3, before[:4, 0] - 0.22  # seen a little, nowhere first
    before /= before.sum(1, keepdim=True)
    after = before.clone()
    after[:, 0] += after[:, 3]
    after[:, 3] = 0.0
    evidence = class_evidence(before, after)
    assert evidence.counts[3] == 0
    assert evidence.deleted == (3,)
    assert evidence.clear
    assert 3 not in evidence.unknown


def test_a_class_is_not_blamed_for_changes_among_others():
    # f- moves class 0's inputs from class 1 to class 2, both of which f+ saw as runners-up there: the traces of class
    # 0 are the largest of all, yet class 0 lost nothing.
    before = torch.tensor([[0.5, 0.45, 0.05, 0.0]] * 5 + [[0.0, 0.0, 0.1, 0.9]] * 5, dtype=torch.float64)
    after = before.clone()
    after[:5, 1:3] = before[:5, 1:3].flip(1)
    evidence = class_evidence(before, after)
    assert evidence.mean_trace.nan_to_num().argmax() == 0
    assert evidence.lost[0] == pytest.approx(0.0)
    assert evidence.deleted == (1,)


def test_several_classes_above_a_clear_margin():
    evidence = class_evidence(*faded(EVERY, 0.1, 0.9, 0.0, 0.15, 1.0))
    assert evidence.deleted == (4, 1)
    assert evidence.clear
    assert evidence.margin == pytest.approx(0.75)


@pytest.mark.parametrize(
    "shares",
    [(0.2, 0.45, 0.0), (0.9, 0.75, 0.6, 0.4, 0.15), (0.05, 0.04, 0.0)],
    ids=["little lost", "no margin", "noise"],
)
def test_without_a_margin_the_first_is_a_guess(shares):
    evidence = class_evidence(*faded(EVERY, *shares))
    assert evidence.deleted == (max(range(len(shares)), key=shares.__getitem__),)
    assert not evidence.clear


def test_a_loss_of_most_classes_is_no_clear_deletion():
    evidence = class_evidence(*faded(EVERY, 1.0, 0.99, 0.98, 0.97, 0.1))
    assert not evidence.clear
    assert evidence.deleted == (0,)


def test_identical_models_deleted_nothing():
    rows = probabilities(torch.arange(6))
    evidence = class_evidence(rows, rows)
    assert evidence.deleted == ()
    assert not evidence.clear
    assert math.isnan(evidence.margin)


def test_one_known_class_has_nothing_to_compare_with():
    evidence = class_evidence(probabilities([2, 2]), probabilities([1, 2]))
    assert evidence.deleted == (2,)
    assert not evidence.clear
    assert math.isnan(evidence.margin)


def test_a_class_without_any_probability_is_unknown():
    before = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    after = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    evidence = class_evidence(before, after)
    assert evidence.unknown == (2,)
    assert evidence.lost[2].isnan()
    assert evidence.deleted == (0,)
    assert evidence.clear


def test_the_pair_is_asked_in_batches_and_black_box():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(25, 5, generator=generator)
    after = before.clone()
    after[:, 2] -= 10.0
    pair = ModelPair(Logits(before), Logits(after), "black")
    public = torch.arange(25.0)[:, None]
    whole, split = infer_classes(pair, public), infer_classes(pair, public, batch_size=4)
    assert whole.deleted == split.deleted == (2,)
    assert torch.allclose(whole.lost, split.lost)
    expected = class_evidence(before.double().softmax(1), after.double().softmax(1))
    assert torch.allclose(whole.lost, expected.lost)
    assert torch.allclose(whole.mean_trace, expected.mean_trace, equal_nan=True)
    assert int(whole.counts.sum()) == 25


def test_other_outputs_are_refused():
    with pytest.raises(InputError, match="class probabilities"):
        class_evidence(torch.rand(3, 4, 5), torch.rand(3, 4, 5))
    with pytest.raises(InputError, match="empty"):
        infer_classes(ModelPair(Logits(torch.eye(3)), Logits(torch.eye(3))), torch.empty(0, 1))
    with pytest.raises(InputError, match="batch_size"):
        infer_classes(ModelPair(Logits(torch.eye(3)), Logits(torch.eye(3))), torch.zeros(2, 1), batch_size=0)
