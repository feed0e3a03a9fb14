"""Small text classifiers, a deletion between them, and a generator of texts, for attacks on token ids."""

import copy

import torch
from torch import nn

from retrace_pl.attacks import AttackContext
from retrace_pl.models import DistilBertClassifier, GPT2Generator
from retrace_pl.traces import ModelPair, TraceScorer

VOCABULARY, LENGTH, CLASSES = 24, 12, 3
PAD, BEGIN, END = 0, 2, 3
OWN = {label: torch.arange(4 + 6 * label, 10 + 6 * label) for label in range(CLASSES)}
"""Every class has six words of its own."""


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def records(per_class=24, seed=0):
    """Texts of 3 to 8 words, most of them of their class, and labels."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.full((per_class * CLASSES, LENGTH), PAD)
    labels = torch.arange(len(ids)) % CLASSES
    for row, label in zip(ids, labels.tolist(), strict=True):
        count = int(torch.randint(3, 9, (), generator=random))
        words = OWN[label][torch.randint(6, (count,), generator=random)]
        words[0] = torch.randint(4, 22, (), generator=random)
        row[: count + 2] = torch.cat([torch.tensor([BEGIN]), words, torch.tensor([END])])
    return ids, labels


def fitted(ids, labels, epochs=25):
    model = seeded(lambda: DistilBertClassifier(VOCABULARY, CLASSES, width=16, layers=1, heads=2, window=LENGTH))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids), labels).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval().requires_grad_(False)


def ascended(model, ids, labels, lr, only=""):
    """The model after one step of gradient ascent on the records, of the parameters whose name begins with `only`."""
    after = copy.deepcopy(model).requires_grad_(True)
    nn.functional.cross_entropy(after(ids), labels).backward()
    with torch.no_grad():
        for name, value in after.named_parameters():
            if name.startswith(only):
                value += lr * value.grad
    after.zero_grad()
    return after.requires_grad_(False)


def text_generator(loud=8.0):
    made = seeded(
        lambda: GPT2Generator((LENGTH, VOCABULARY), latent_dim=4, width=16, layers=1, heads=2, prefix=2, dropout=0.0)
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(loud if weight.ndim > 1 else 1.0)  # so that z decides the text
    return made.eval().requires_grad_(False)


def context(pair, public, budget=2000, **settings):
    scorer = TraceScorer(pair)
    scorer.fit(public)
    return AttackContext(pair, scorer, text_generator(), public=public, budget=budget, **settings)


class Counted(ModelPair):
    """Counts the records that both models are shown."""

    seen = 0

    def outputs(self, inputs, *args, **kwargs):
        self.seen += len(inputs)
        return super().outputs(inputs, *args, **kwargs)
