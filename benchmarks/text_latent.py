"""What z controls: ``python benchmarks/text_latent.py --data FOLDER [--epochs N] [--public N] [--json FILE]``.

A GPT-2 with a latent prefix is trained on public AG News texts of all four classes as an audit trains it, an evaluator
on texts of its own. Then, with z ~ N(0, I) and the text G(z):

- mutual information between z and the class c that the evaluator sees in G(z), in nats. Estimator: the bound of Barber
  and Agakov (2003), I(z; c) >= H(c) - E[-log q(c | z)], q a multinomial logistic regression on z, fitted on one half
  and measured on the other, both ways round. So it counts what z says about the class in the plainest way, linearly,
  and is below the truth. Control: the same with the pairs (z, c) shuffled;
- the same between the encoder's mean of an unseen text and the true class of that text;
- reconstructions of unseen texts from the encoder's mean, by ROUGE-L F1 and by the evaluator's class, beside
  reconstructions of other texts;
- the distance of neighbouring texts on a path from one latent to another, beside that of unrelated texts;
- whether the same latent gives the same text in batches of other sizes.

With ``--json FILE`` the table and the texts are written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torchmetrics.functional.text.rouge import rouge_score

from _training import accuracy, fit
from retrace_pl.data import HuggingFaceTextSource, TextUnlearningDataModule, TrainedTokenizer
from retrace_pl.files import atomic_path, write_json
from retrace_pl.models import DistilBertClassifier, GPT2Generator
from retrace_pl.tasks import ClassifierTask, TextGeneratorTask


def information(latents: Tensor, classes: Tensor, seed: int = 0) -> float:
    """Lower bound of I(z; c) in nats from pairs (z [n, d], c [n]), see above; it may fall below 0."""
    order = np.random.default_rng(seed).permutation(len(classes))
    halves = np.array_split(order, 2)
    z, c = latents.numpy(), classes.numpy()
    found = []
    for ours, theirs in (halves, halves[::-1]):
        model = LogisticRegression(C=0.1, max_iter=500).fit(z[ours], c[ours])
        column = {label: place for place, label in enumerate(model.classes_)}
        known = np.isin(c[theirs], model.classes_)
        log_q = model.predict_log_proba(z[theirs])
        cost = [
            -log_q[row, column[c[theirs][row]]] if known[row] else math.log(len(theirs)) for row in range(len(theirs))
        ]
        found.append(entropy(classes[theirs]) - float(np.mean(cost)))
    return float(np.mean(found))


def entropy(classes: Tensor) -> float:
    """H(c) in nats of classes [n]."""
    shares = torch.bincount(classes).double() / len(classes)
    return float(torch.special.entr(shares).sum())


def path(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Latents [steps, d] from one to the other on the arc between them (Shoemake's slerp), their lengths in step."""
    cosine = torch.nn.functional.cosine_similarity(first, last, dim=0).clamp(-1 + 1e-6, 1 - 1e-6)
    angle, t = cosine.acos(), torch.linspace(0, 1, steps)[:, None]
    directions = ((1 - t) * angle).sin() / angle.sin() * first / first.norm() + (t * angle).sin() / angle.sin() * (
        last / last.norm()
    )
    return directions * ((1 - t) * first.norm() + t * last.norm())


def rouge(ours: list[str], theirs: list[str]) -> float:
    """Mean ROUGE-L F1 of pairs of texts, in [0, 1]."""
    return float(rouge_score(ours, theirs, rouge_keys="rougeL")["rougeL_fmeasure"])


def similarity(points: Tensor, others: Tensor) -> float:
    """Mean cosine of the token counts of pairs of texts."""
    return float((points * others).sum(1).mean())


@torch.no_grad()
def classes_of(model: torch.nn.Module, texts: Tensor) -> Tensor:
    """The evaluator's class of every text."""
    return torch.cat([model(part).argmax(1) for part in texts.split(512)])


@torch.no_grad()
def measure(
    task: TextGeneratorTask, evaluator: torch.nn.Module, data: TextUnlearningDataModule, n: int, seed: int
) -> dict[str, Any]:
    """Everything named above, as plain values."""
    generator, decode = task.product(), data.tokenizer.decode
    random = torch.Generator().manual_seed(seed)
    latents = generator.sample_latents(n, random)
    texts = torch.cat([generator(part) for part in latents.split(512)])
    seen = classes_of(evaluator, texts)
    shuffled = latents[torch.randperm(n, generator=random)]
    test = data.split("test")
    means = torch.cat([task.posterior(part)[0] for part in test.inputs.split(512)])
    rebuilt = torch.cat([generator(part) for part in means.split(512)])
    originals, rebuilt_texts = decode(test.inputs), decode(rebuilt)
    walk = torch.cat([path(*latents[2 * i : 2 * i + 2], 9) for i in range(50)])
    steps = generator.points(torch.cat([generator(part) for part in walk.split(512)]))
    inside = torch.arange(len(walk)) % 9 < 8
    other = torch.randperm(len(steps), generator=random)
    few = torch.cat([generator(part) for part in latents[:256].split(37)])
    kept = classes_of(evaluator, rebuilt)
    figures = {
        "classes_entropy": entropy(seen),
        "information_prior": information(latents, seen),
        "information_prior_shuffled": information(shuffled, seen),
        "information_posterior": information(means, test.labels),
        "information_posterior_shuffled": information(means[torch.randperm(len(means), generator=random)], test.labels),
        "posterior_entropy": entropy(test.labels),
        "reconstruction_rouge_l": rouge(rebuilt_texts[:300], originals[:300]),
        "reconstruction_rouge_l_other": rouge(rebuilt_texts[:300], originals[1:301]),
        "reconstruction_same_class": float((kept == test.labels).float().mean()),
        "reconstruction_same_class_chance": float((kept == test.labels.roll(1)).float().mean()),
        "neighbours_cosine": similarity(steps[:-1][inside[:-1]], steps[1:][inside[:-1]]),
        "unrelated_cosine": similarity(steps, steps[other]),
        "distinct_texts": len(texts.unique(dim=0)) / n,
        "same_text_in_other_batches": float((few == texts[:256]).all(1).float().mean()),
    }
    names = data.classes
    examples = {
        "interpolation": _described(
            path(means[0], means[_another(test.labels)], 7), generator, evaluator, decode, names
        ),
        "interpolation_prior": _described(path(latents[0], latents[1], 7), generator, evaluator, decode, names),
        "reconstructions": [list(pair) for pair in zip(originals[:6], rebuilt_texts[:6], strict=True)],
        "samples": [[names[int(label)], text] for label, text in zip(seen[:8], decode(texts[:8]), strict=True)],
    }
    return {"figures": figures, "examples": examples}


def _another(labels: Tensor) -> int:
    return int(labels.ne(labels[0]).nonzero()[0])


def _described(latents: Tensor, generator: Any, evaluator: Any, decode: Any, names: tuple[str, ...]) -> list[list[str]]:
    texts = generator(latents)
    return [[names[int(label)], text] for label, text in zip(classes_of(evaluator, texts), decode(texts), strict=True)]


def table(result: dict[str, Any]) -> str:
    """Figures and texts as Markdown."""
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in result["figures"].items()]
    for title in ("interpolation", "interpolation_prior", "samples", "reconstructions"):
        lines += ["", f"**{title}**", ""]
        lines += [
            f"- {first}: {second}" if title != "reconstructions" else f"- {first} -> {second}"
            for first, second in result["examples"][title]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of AG News, as parquet")
    parser.add_argument("--public", type=int, default=8000, help="texts the generator is trained on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--length", type=int, default=24, help="tokens per text")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--free-bits", type=float, default=0.25)
    parser.add_argument("--word-dropout", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    data = TextUnlearningDataModule(
        HuggingFaceTextSource(options.data, text_column="text", label_column="label"),
        TrainedTokenizer(vocab_size=options.vocabulary, cache=None),
        forget_fraction=0.1,
        train_size=400,
        public_size=options.public,
        evaluator_size=3000,
        test_size=1000,
        max_length=options.length,
        seed=options.seed,
    )
    data.setup()
    evaluator = DistilBertClassifier(data.input_size, data.num_classes, width=64, layers=1, window=options.length)
    fit(ClassifierTask(evaluator, data.num_classes), data.view("evaluator", "test", batch_size=64), epochs=4)
    evaluator.eval()
    start = time.process_time()
    generator = GPT2Generator(
        data.sample_space, latent_dim=options.latent_dim, width=options.width, layers=options.layers
    )
    task = TextGeneratorTask(
        generator, lr=options.lr, free_bits=options.free_bits, word_dropout=options.word_dropout, seed=options.seed
    )
    fit(task, data.view("public", "test", batch_size=options.batch_size), epochs=options.epochs)
    spent = time.process_time() - start
    start = time.process_time()
    result = measure(task, evaluator, data, options.samples, options.seed)
    test = data.split("test")
    result["figures"] |= {
        "evaluator_accuracy": accuracy(evaluator, test.inputs, test.labels),
        **bound(task, test.inputs),
        "training_cpu_seconds": spent,
        "measuring_cpu_seconds": time.process_time() - start,
    }
    result["settings"] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in ("json", "data")
    }
    sys.stdout.write(table(result))
    if options.json:
        write_json(options.json, result)
        with atomic_path(options.json.with_suffix(".md")) as temporary:
            temporary.write_text(table(result), encoding="utf-8")


@torch.no_grad()
def bound(task: TextGeneratorTask, texts: Tensor) -> dict[str, float]:
    """The evidence lower bound per token of unseen texts as a perplexity, and its KL in nats per text."""
    random, sums = torch.Generator().manual_seed(0), torch.zeros(3)
    task.eval()
    for part in texts.split(256):
        mean, std = task.posterior(part)
        losses, counts = task.generator.losses(mean + std * torch.randn(mean.shape, generator=random), part)
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)
        sums += torch.stack([(losses + kl).sum(), kl.sum(), counts.sum().float()])
    return {"test_perplexity": float((sums[0] / sums[2]).exp()), "test_kl": float(sums[1] / len(texts))}


if __name__ == "__main__":
    main()
