"""What z controls: ``python benchmarks/text_latent.py --data FOLDER [--seeds N ...] [--json FILE]``.

A GPT-2 steered by a latent is trained on public AG News texts of all four classes with the settings of
configs/audit/ag_news_tiny.yaml, an evaluator on texts of its own. Then, with z ~ N(0, I) and the text G(z):

- mutual information between z and the class c that the evaluator sees in G(z), in nats. Estimator: the bound of Barber
  and Agakov (2003), I(z; c) >= H(c) - E[-log q(c | z)], q a multinomial logistic regression on z, fitted on one half
  and measured on the other, both ways round. So it counts what z says about the class in the plainest way, linearly,
  and is below the truth. Control: the same with the pairs (z, c) shuffled;
- the same between the encoder's latent of an unseen text and the true class of that text;
- texts written for the latents of unseen texts: ROUGE-L F1 and cosine of the token counts with the unseen text, and the
  evaluator's class, beside those written for other texts;
- perplexity of unseen texts under their own latents and under those of other texts;
- the distance of neighbouring texts on a path from one latent to another, beside that of unrelated texts;
- how much samples repeat: share of different two-token sequences in a sample, among all samples, and of real texts;
- whether the same latent gives the same text in batches of other sizes.

With ``--json FILE`` the tables and the texts of the first seed are written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import math
import os
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
from retrace_pl.data import TextUnlearningDataModule
from retrace_pl.files import atomic_path, write_json
from retrace_pl.pipeline.parsing import parse
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


def repeats(rows: list[list[int]], size: int = 2) -> tuple[float, float]:
    """Share of different sequences of `size` tokens: within a text, averaged, and among all texts."""
    grams = [list(zip(*(row[start:] for start in range(size)), strict=False)) for row in rows]
    within = float(np.mean([len(set(found)) / max(1, len(found)) for found in grams]))
    return within, len(set().union(*grams)) / max(1, sum(map(len, grams)))


def words_of(texts: Tensor) -> list[list[int]]:
    """Token ids of texts [n, L] without special tokens, which are 0 to 3 here."""
    return [[token for token in row if token > 3] for row in texts.tolist()]


@torch.no_grad()
def likelihood(task: TextGeneratorTask, texts: Tensor, latents: Tensor) -> float:
    """Mean of -log p(x | z) in nats per token."""
    parts = [
        task.generator.losses(z, task.generator.tokens(x))
        for x, z in zip(texts.split(128), latents.split(128), strict=True)
    ]
    return float(sum(losses.sum() for losses, _ in parts) / sum(counts.sum() for _, counts in parts))


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
    codes = generator.encode(test.inputs)
    rebuilt = torch.cat([generator(part) for part in codes.split(512)])
    originals, rebuilt_texts = decode(test.inputs), decode(rebuilt)
    both = generator.points(torch.cat([test.inputs, rebuilt]))
    ours, theirs = both[len(rebuilt) :], both[: len(rebuilt)]
    walk = torch.cat([path(*latents[2 * i : 2 * i + 2], 9) for i in range(50)])
    steps = generator.points(torch.cat([generator(part) for part in walk.split(512)]))
    inside = torch.arange(len(walk)) % 9 < 8
    other = torch.randperm(len(steps), generator=random)
    few = torch.cat([generator(part) for part in latents[:256].split(37)])
    kept = classes_of(evaluator, rebuilt)
    own, swapped = likelihood(task, test.inputs, codes), likelihood(task, test.inputs, codes.roll(1, 0))
    within, among = repeats(words_of(texts[: len(test.inputs)]))
    real_within, real_among = repeats(words_of(test.inputs))
    figures = {
        "classes_entropy": entropy(seen),
        "information_prior": information(latents, seen),
        "information_prior_shuffled": information(shuffled, seen),
        "latent_variance_unseen_texts": float(codes.square().mean()),
        "true_classes_entropy": entropy(test.labels),
        "information_encoder": information(codes, test.labels),
        "information_encoder_shuffled": information(codes[torch.randperm(len(codes), generator=random)], test.labels),
        "reconstruction_rouge_l": rouge(rebuilt_texts[:300], originals[:300]),
        "reconstruction_rouge_l_other": rouge(rebuilt_texts[:300], originals[1:301]),
        "reconstruction_cosine": similarity(ours, theirs),
        "reconstruction_cosine_other": similarity(ours, theirs.roll(1, 0)),
        "reconstruction_same_class": float((kept == test.labels).float().mean()),
        "reconstruction_same_class_chance": float((kept == test.labels.roll(1)).float().mean()),
        "test_perplexity": math.exp(own),
        "test_perplexity_other_latent": math.exp(swapped),
        "neighbours_cosine": similarity(steps[:-1][inside[:-1]], steps[1:][inside[:-1]]),
        "unrelated_cosine": similarity(steps, steps[other]),
        "distinct_2_within": within,
        "distinct_2_within_real": real_within,
        "distinct_2_among": among,
        "distinct_2_among_real": real_among,
        "distinct_texts": len(texts.unique(dim=0)) / n,
        "same_text_in_other_batches": float((few == texts[:256]).all(1).float().mean()),
        "evaluator_accuracy": accuracy(evaluator, test.inputs, test.labels),
    }
    names = data.classes
    ends = path(codes[0], codes[_another(test.labels)], 7)
    examples = {
        "interpolation": _described(ends, generator, evaluator, decode, names),
        "interpolation_prior": _described(path(latents[0], latents[1], 7), generator, evaluator, decode, names),
        "samples": [[names[int(label)], text] for label, text in zip(seen[:8], decode(texts[:8]), strict=True)],
        "reconstructions": [list(pair) for pair in zip(originals[:6], rebuilt_texts[:6], strict=True)],
    }
    return {"figures": figures, "examples": examples}


def _another(labels: Tensor) -> int:
    return int(labels.ne(labels[0]).nonzero()[0])


def _described(latents: Tensor, generator: Any, evaluator: Any, decode: Any, names: tuple[str, ...]) -> list[list[str]]:
    texts = generator(latents)
    return [[names[int(label)], text] for label, text in zip(classes_of(evaluator, texts), decode(texts), strict=True)]


TITLES = {
    "interpolation": "From the latent of one unseen text to that of a text of another class",
    "interpolation_prior": "From one sample of N(0, I) to another",
    "samples": "Samples",
    "reconstructions": "Unseen texts, and what is written for their latents",
}


def table(result: dict[str, Any]) -> str:
    """Figures of all seeds and texts of the first as Markdown."""
    seeds = list(result["seeds"])
    lines = [f"| figure | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|---|" + "---|" * len(seeds)]
    for name in result["seeds"][seeds[0]]["figures"]:
        cells = " | ".join(f"{result['seeds'][seed]['figures'][name]:.3f}" for seed in seeds)
        lines.append(f"| {name} | {cells} |")
    for name, title in TITLES.items():
        lines += ["", f"**{title}** (seed {seeds[0]})", ""]
        between = " → " if name == "reconstructions" else ": "
        lines += [f"- {between.join(pair)}" for pair in result["seeds"][seeds[0]]["examples"][name]]
    return "\n".join(lines) + "\n"


def train(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Models of one seed and what z controls in them."""
    everything = ["--data.init_args.forget_class", "null", "--data.init_args.forget_fraction", "0.1"]
    changed = [part for pair in options.set for part in (f"--{pair.partition('=')[0]}", pair.partition("=")[2])]
    given = ["--config", "ag_news_tiny", *everything, "--data.init_args.train_size", "400", *changed]
    config = parse("audit", "", [*given, "--data.init_args.seed", str(seed), "--seed", str(seed)]).config
    data, chosen = config.data, config.generator
    assert isinstance(data, TextUnlearningDataModule)
    data.setup()
    torch.manual_seed(seed)
    start = time.process_time()
    judge = config.evaluator
    evaluator = judge.model(data.input_size, data.num_classes)
    task = ClassifierTask(evaluator, data.num_classes, judge.optimizer, judge.scheduler, seed=seed)
    fit(task, data.view("evaluator", "test", batch_size=judge.batch_size), epochs=judge.epochs)
    evaluator.eval()
    judged, start = time.process_time() - start, time.process_time()
    writer = TextGeneratorTask(
        chosen.model(data.sample_space),
        seed=seed,
        optimizer=chosen.optimizer,
        scheduler=chosen.scheduler,
        **chosen.task,
    )
    fit(writer, data.view("public", "test", batch_size=chosen.batch_size), epochs=chosen.epochs)
    spent = time.process_time() - start
    start = time.process_time()
    result = measure(writer, evaluator, data, options.samples, seed)
    result["figures"] |= {
        "public_texts": len(data.split("public").inputs),
        "evaluator_cpu_seconds": judged,
        "training_cpu_seconds": spent,
        "measuring_cpu_seconds": time.process_time() - start,
    }
    return result


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds AG News as ag_news/*.parquet")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", nargs="*", default=[], help="settings to change, as NAME=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["RETRACE_DATA"] = options.data
    torch.set_num_threads(1)
    result: dict[str, Any] = {"settings": options.set, "samples": options.samples, "seeds": {}}
    for seed in options.seeds:
        result["seeds"][str(seed)] = train(options, seed)
        if options.json:  # after each seed, so that an interruption loses one
            write_json(options.json, result)
            with atomic_path(options.json.with_suffix(".md")) as temporary:
                temporary.write_text(table(result), encoding="utf-8")
        sys.stdout.write(table(result))


if __name__ == "__main__":
    main()
