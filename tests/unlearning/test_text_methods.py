"""Every method of the zoo on a text classifier, through the task that an audit uses."""

import functools

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from retrace_pl.errors import InputError
from retrace_pl.models import DistilBertClassifier
from retrace_pl.tasks import UnlearningTask
from retrace_pl.unlearning import METHODS, BoundaryShrink, RandomLabel
from retrace_pl.unlearning.blocks import find_blocks

VOCABULARY, CLASSES, WIDTH = 30, 3, 14
REFUSED = {"unsir": r"UNSIR optimises its inputs and these are torch\.int64; use another method"}
"""Methods that have nothing to do on texts, and what they say."""

FROM_SCRATCH = {name for name, kind in METHODS.items() if kind.from_scratch}
SETTINGS = {
    "ssd": {"alpha": 0.5},
    "woodfisher": {"records": 4},
    "noisy_finetune": {"noisy_steps": 1},
    "eu_k": {"k": 1},
    "cf_k": {"k": 1},
}


def texts(labels, seed=0):
    """Texts of 3 to 12 tokens, each with a word of its class; as wide as the longest of them, as loaders make them."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(labels), WIDTH, dtype=torch.int64)
    for row, label in enumerate(labels):
        count = int(torch.randint(3, 13, (1,), generator=random))
        ids[row, :count] = torch.randint(10, VOCABULARY, (count,), generator=random)
        ids[row, 0] = 2
        ids[row, 1] = 4 + label
    return ids[:, : int(ids.ne(0).sum(1).max())], torch.tensor(labels)


RETAIN = [texts([0, 1, 0, 1], 0), texts([1, 0, 0, 1], 1)]
FORGET = [texts([2, 2, 2, 2], 2), texts([2, 2, 2, 2], 5)]


class Streams(LightningDataModule):
    def train_dataloader(self):
        loaders = {name: DataLoader(part, batch_size=None) for name, part in (("retain", RETAIN), ("forget", FORGET))}
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self):
        return [DataLoader(RETAIN, batch_size=None), DataLoader(FORGET, batch_size=None)]


def classifier(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DistilBertClassifier(VOCABULARY, CLASSES, width=16, layers=2, heads=2, window=WIDTH)


@pytest.fixture(scope="module")
def original():
    model = classifier().eval()  # without dropout such a small model learns at once
    inputs = functools.reduce(model.behaviour.join, [inputs for inputs, _ in RETAIN + FORGET])
    labels = torch.cat([labels for _, labels in RETAIN + FORGET])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert bool(model(inputs).argmax(1).eq(labels).all())
    return {name: value.clone() for name, value in model.state_dict().items()}


def unlearn(name, original, **settings):
    model = classifier()
    model.load_state_dict(original)
    method = METHODS[name](**(SETTINGS.get(name, {}) | settings))
    method.epochs = min(method.epochs, 1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=method.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(UnlearningTask(model, method, CLASSES), datamodule=Streams())
    return model.eval()


def test_batches_differ_in_width():
    assert len({inputs.shape[1] for inputs, _ in RETAIN + FORGET}) > 1


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(REFUSED) - FROM_SCRATCH))
def test_every_method_runs_on_texts(name, original):
    model = unlearn(name, original)
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, original[key])]
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert bool(changed) is (name != "identity")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_method_without_a_meaning_on_texts_says_so(name, original):
    with pytest.raises(InputError, match=REFUSED[name]):
        unlearn(name, original)


@pytest.mark.parametrize("name", ["negative_gradient", "ihl", "npo", "random_label", "salun", "boundary_shrink"])
def test_the_class_goes_and_the_rest_stays(name, original):
    model = classifier()
    model.load_state_dict(original)
    settings = {"negative_gradient": {"optimizer": "adam", "strength": 5.0}, "boundary_shrink": {"optimizer": "adam"}}
    method = METHODS[name](**({"lr": 0.005} | settings.get(name, {})))
    method.prepare(model)
    method.edit(model, RETAIN, FORGET)
    model.train()
    optimizer = method.configure_optimizer(model.parameters())
    for step in range(30 if name != "boundary_shrink" else 10):
        method.unlearn_step(model, RETAIN[step % 2], FORGET[step % 2], optimizer, step, 0)
    model.eval()
    with torch.no_grad():
        gone, kept = (
            torch.cat([model(inputs).softmax(1).gather(1, labels[:, None]) for inputs, labels in batches]).mean()
            for batches in (FORGET, RETAIN)
        )
    assert float(gone) < 0.5
    if name != "boundary_shrink":  # which sees no retained record
        assert float(kept) > 0.5


def test_a_record_keeps_its_wrong_label_however_far_it_is_padded(original):
    model, method = classifier(), RandomLabel(seed=3)
    inputs, labels = FORGET[0]
    wide = torch.nn.functional.pad(inputs, (0, WIDTH - inputs.shape[1] + 3))
    words = [model.behaviour.words(ids) for ids in (inputs, wide)]
    wrong = [method.wrong_labels((part, labels), CLASSES) for part in words]
    assert torch.equal(*wrong)
    assert bool(wrong[0].ne(labels).all())


def test_the_nearest_class_of_a_text_is_found_at_its_embeddings(original):
    model = classifier().eval()
    model.load_state_dict(original)
    inputs, labels = FORGET[0]
    method = BoundaryShrink(epsilon=0.3)
    method.prepare(model)
    found = method.nearest_labels(inputs, labels)
    at = model.embeddings(inputs).detach().requires_grad_()
    mask = inputs.ne(0)
    torch.nn.functional.cross_entropy(model.head(model.features_at(at, mask)), labels, reduction="sum").backward()
    scale = torch.stack([row[keep].square().mean().sqrt() for row, keep in zip(at.detach(), mask, strict=True)])
    with torch.no_grad():
        logits = model.head(model.features_at(at + 0.3 * scale[:, None, None] * at.grad.sign(), mask))
    assert torch.equal(found, logits.scatter(1, labels[:, None], float("-inf")).argmax(1))
    assert bool(found.ne(labels).all())


def test_the_layers_of_a_transformer_are_its_blocks():
    blocks = find_blocks(classifier(), RETAIN[0][0][:1])
    assert blocks[-1] == ("head",)
    assert [block[0] for block in blocks if "transformer.layer" in block[0]] == [
        "body.transformer.layer.0",
        "body.transformer.layer.1",
    ]
