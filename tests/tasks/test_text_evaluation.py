"""EvaluationTask on short texts: the same task with the domain of texts."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.metrics.text import TextDomain
from retrace_pl.models import Classifier
from retrace_pl.tasks import Reference, evaluate_candidates, heldout_floors, reconstruction_floors

LENGTH, VOCABULARY = 12, 44
CLASSES = {0: range(4, 24), 1: range(24, 44)}
"""Class -> the words that its texts are made of."""


class Tokens:
    """Every id from 4 on is a word."""

    pad_id, bos_id, eos_id, vocab_size = 0, 2, 3, VOCABULARY

    def decode(self, ids: Tensor) -> list[str]:
        return [" ".join(f"w{token}" for token in row if token > 3) for row in ids.tolist()]


class ByWords(Classifier):
    """Counts words of each class; features are the counts of all words."""

    num_classes, num_features = 2, VOCABULARY

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, inputs: Tensor) -> Tensor:
        return nn.functional.one_hot(inputs, VOCABULARY)[:, :, :].sum(dim=1) * self.scale

    def forward(self, inputs: Tensor) -> Tensor:
        counts = self.features(inputs)
        return torch.stack([counts[:, list(words)].sum(dim=1) for words in CLASSES.values()], dim=1)


def draw(count: int, label: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    words = torch.tensor(list(CLASSES[label]))
    rows = torch.zeros(count, LENGTH, dtype=torch.int64)
    for row in rows:
        size = int(torch.randint(5, LENGTH - 2, (1,), generator=random))
        row[0], row[size + 1] = 2, 3
        row[1 : size + 1] = words[torch.randint(len(words), (size,), generator=random)]
    return rows


@pytest.fixture(scope="module")
def data() -> SimpleNamespace:
    labelled = lambda inputs, labels: SimpleNamespace(inputs=inputs, labels=labels)  # noqa: E731
    splits = {
        "forget": labelled(draw(30, 0, 0), torch.zeros(30, dtype=torch.int64)),
        "test": labelled(torch.cat([draw(20, 0, 1), draw(20, 1, 2)]), torch.arange(40) // 20),
        "public": labelled(draw(25, 1, 3), torch.ones(25, dtype=torch.int64)),
        "evaluator": labelled(torch.cat([draw(30, 0, 4), draw(30, 1, 5)]), torch.arange(60) // 30),
    }
    return SimpleNamespace(num_classes=2, split=splits.__getitem__, domain=TextDomain(Tokens()))


@pytest.fixture(scope="module")
def reference(data: SimpleNamespace) -> Reference:
    return Reference.from_datamodule(data)


def test_deleted_texts_are_perfect_and_other_classes_are_far(reference: Reference) -> None:
    evaluator = ByWords().eval()
    copies = evaluate_candidates(reference.deleted_inputs, reference, evaluator, evaluator)
    assert set(copies) == {*reference.domain.metric_names, "score", "intervals"}
    assert None not in [value for name, value in copies.items() if name != "score"]
    assert copies["rouge_l"] == copies["sr_rouge"] == copies["sr_oracle"] == copies["precision"] == 1
    assert copies["bleu"] == pytest.approx(100)
    assert set(copies["intervals"]) == {"sr_rouge", "sr_verbatim", "sr_oracle", "sr_original"}
    others = evaluate_candidates(draw(30, 1, 9), reference, evaluator, evaluator)
    assert others["rouge_l"] == others["sr_oracle"] == others["sr_verbatim"] == others["longest_span"] == 0
    assert others["mmd"] > copies["mmd"]


def test_one_candidate_has_no_distribution(reference: Reference) -> None:
    found = evaluate_candidates(reference.heldout_inputs[:1], reference, ByWords().eval(), None)
    missing = {name for name, value in found.items() if value is None} - {"score"}
    assert missing == {"mmd", "fid_oracle", "label_kl", "precision", "recall", "sr_original"}


def test_floors_stand_beside_as_many_unseen_texts(reference: Reference) -> None:
    evaluator = ByWords().eval()
    floors = heldout_floors(reference, evaluator, 8, seed=3)
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(3))[:8]
    wanted = evaluate_candidates(reference.heldout_inputs[drawn], reference, evaluator, None, seed=3)
    assert floors == {f"heldout_{name}": wanted[name] for name in reference.domain.heldout_metrics}
    assert floors["heldout_rouge_l"] < 1
    own = reconstruction_floors(reference, evaluator)
    assert own["heldout_sr_oracle"] == 1.0
    assert own["other_rouge_l"] == 0.0


def test_no_unseen_text_is_no_floor(reference: Reference) -> None:
    alone = Reference(reference.deleted_inputs, reference.deleted_labels, (0,), 2, domain=reference.domain)
    assert set(heldout_floors(alone, ByWords().eval(), 8).values()) == {None}
    assert alone.mean_input is None


def test_texts_of_another_length_are_refused(reference: Reference) -> None:
    with pytest.raises(InputError, match=r"\[9\]"):
        evaluate_candidates(reference.deleted_inputs[:, :9], reference, ByWords().eval(), None)
