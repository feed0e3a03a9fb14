"""Our update rule, its ablations, MLS-Bench's baselines and retraining: ``python benchmarks/mls_bench.py [--quick]``.

Without ``--setting`` it runs a stand-in that a CPU can repeat over several seeds: Fashion-MNIST at 14 x 14 pixels, 200
training images a class, ResNet-8, 40 epochs of pretraining and 10 of unlearning on batches of 64, everything else as in
MLS-Bench (SGD 0.1 with cosine, then Adam 1e-3 on all parameters, train mode, the forget records cycled). Nothing is
augmented: only then do so few images and so small a network give a membership test something to find, as 80 epochs do
in the benchmark. Its numbers compare rules with each other and with retraining, and with no published number.

``--setting mobilenetv2-fmnist`` and the other settings run the same rules in the packaged harness, in the benchmark's
own protocol (``--preset full``, a GPU) or in a small one (``--preset smoke``).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.datasets import FashionMNIST

from retrace_pl.data import LabelledTensors
from retrace_pl.mls_bench import find_setting, prepare_benchmark
from retrace_pl.mls_bench.baselines import BASELINES
from retrace_pl.mls_bench.published import published_rows
from retrace_pl.mls_bench.scores import measure, score_fields
from retrace_pl.mls_bench.settings import PRETRAINING, SETTINGS, UNLEARNING
from retrace_pl.models import ResNetCIFAR
from retrace_pl.unlearning import PerturbedDistillation, UnlearningMethod

RESULTS = Path(__file__).parent / "results"
FORGET_CLASS = 0
NUM_CLASSES = 10
DEVELOPMENT_SEEDS = range(3)
"""Our rule's settings were chosen on these."""

OURS = "perturbed_distillation"
VARIANTS: dict[str, dict[str, Any]] = {
    OURS: {},
    "- perturbation": {"keep_first": 1.0, "keep_last": 1.0},
    "- perturbation + forget loss": {"keep_first": 1.0, "keep_last": 1.0, "forget_weight": 1.0},
    "+ forget loss": {"forget_weight": 1.0},
    "- teacher": {"distillation": 0.0},
    "- labels": {"cross_entropy": 0.0},
    "- mask": {"mask": False},
    "- annealing": {"anneal": False, "lr_factor": 1.0},
    "late layers most": {"keep_first": 1.0, "keep_last": 0.0},
    "all weights drawn anew": {"keep_first": 0.0, "keep_last": 0.0},
    "keep 0.5": {"keep_first": 0.5, "keep_last": 0.5},
    "keep 0.85": {"keep_first": 0.85, "keep_last": 0.85},
    "lr_factor 1": {"lr_factor": 1.0},
}
"""Name -> settings that differ from the rule's own; + and - say what is added or left out."""

RULES: dict[str, Callable[..., UnlearningMethod]] = {
    **BASELINES,
    **{name: partial(PerturbedDistillation, **changed) for name, changed in VARIANTS.items()},
}
REFERENCES = ("original", "retrain", "another retrain")
FIGURES = ("retain_acc", "forget_acc", "forget_mia_auc", "mia_leakage", "two_sided_score")
COLUMNS = (*FIGURES, "auc_gap", "divergence")


@dataclass(frozen=True)
class StandIn:
    """The reduced protocol.

    Args:
        train_images: Training images per class.
        test_images: Test images of each retained class; of the deleted class all are used.
        pretrain_epochs: Epochs of the original and of the retrained model.
        unlearn_epochs: Passes over the retained records.
        batch_size: Records per batch of each stream.
        width: Channels of the first stage.
    """

    train_images: int = 200
    test_images: int = 300
    pretrain_epochs: int = 40
    unlearn_epochs: int = 10
    batch_size: int = 64
    width: int = 16


QUICK = StandIn(40, 50, 10, 4, 64, 8)


def per_class(images: Tensor, labels: Tensor, counts: list[int | None], seed: int) -> LabelledTensors:
    """So many random records of each class (None: all), averaged down to 14 x 14."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label, count in enumerate(counts):
        positions = (labels == label).nonzero()[:, 0]
        chosen.append(positions[torch.randperm(len(positions), generator=generator)[:count]])
    records = torch.cat(chosen)
    small = functional.avg_pool2d(images[records].float()[:, None], 2).round().to(torch.uint8)
    return LabelledTensors(small, labels[records], records)


def load(protocol: StandIn, seed: int) -> tuple[LabelledTensors, LabelledTensors]:
    """Training and test records; the draw depends on the seed."""
    root = os.environ.get("RETRACE_DATA", str(Path("~/.cache/retrace_pl").expanduser()))
    train, test = (FashionMNIST(root, train=flag, download=True) for flag in (True, False))
    test_counts: list[int | None] = [protocol.test_images] * NUM_CLASSES
    test_counts[FORGET_CLASS] = None
    return (
        per_class(train.data, train.targets, [protocol.train_images] * NUM_CLASSES, seed),
        per_class(test.data, test.targets, test_counts, seed),
    )


def batches(records: LabelledTensors, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled pass."""
    for positions in torch.randperm(len(records)).split(size):
        part = records.subset(positions)
        yield part.inputs.contiguous(memory_format=torch.channels_last), part.labels


def trained(protocol: StandIn, records: LabelledTensors, seed: int, path: Path) -> nn.Module:
    """A model by the benchmark's recipe of pretraining, from its file where it has been trained before."""
    torch.manual_seed(seed)
    model = ResNetCIFAR(1, NUM_CLASSES, depth=8, width=protocol.width).to(memory_format=torch.channels_last)
    if path.exists():
        model.load_state_dict(load_file(path))
        return model
    kept = {key: PRETRAINING[key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **kept)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.pretrain_epochs)
    model.train()
    for _ in range(protocol.pretrain_epochs):
        for inputs, labels in batches(records, protocol.batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        scheduler.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model


def unlearn(
    protocol: StandIn, rule: str, original: nn.Module, retain: LabelledTensors, forget: LabelledTensors, seed: int
) -> nn.Module:
    """The bare loop of the benchmark: both streams in step, the forget records cycled."""
    method = RULES[rule](epochs=protocol.unlearn_epochs, batch_size=protocol.batch_size, **UNLEARNING)
    model = copy.deepcopy(original).eval()
    torch.manual_seed(seed)
    method.prepare(model)
    method.edit(model, list(batches(retain, protocol.batch_size)), list(batches(forget, protocol.batch_size)))
    optimizer = method.configure_optimizer(model.parameters())
    cycled = itertools.chain.from_iterable(batches(forget, protocol.batch_size) for _ in itertools.count())
    step = 0
    for epoch in range(method.epochs):
        method.set_mode(model)
        for retain_batch in batches(retain, protocol.batch_size):
            method.unlearn_step(model, retain_batch, next(cycled), optimizer, step, epoch)
            step += 1
    method.finish(model)
    return model


@torch.no_grad()
def divergence(model: nn.Module, retrained: nn.Module, records: LabelledTensors) -> float:
    """Mean total variation between the predictions of two models on records, in [0, 1]."""
    first, second = (m.eval()(records.inputs).softmax(1) for m in (model, retrained))
    return float((first - second).abs().sum(1).mean() / 2)


def cell(protocol: StandIn, rule: str, seed: int, cache: Path) -> dict[str, Any]:
    """One rule and seed: the scores, and the gaps to the model retrained with the same data."""
    train, test = load(protocol, seed)
    kept = set(range(NUM_CLASSES)) - {FORGET_CLASS}
    retain, forget = train.of_classes(kept), train.of_classes([FORGET_CLASS])
    original = trained(protocol, train, seed, cache / f"original-{seed}.safetensors")
    retrained = trained(protocol, retain, 1000 + seed, cache / f"retrained-{seed}.safetensors")
    start = time.perf_counter()
    if rule == "original":
        model = original
    elif rule == "retrain":
        model = retrained
    elif rule == "another retrain":
        model = trained(protocol, retain, 2000 + seed, cache / f"retrained-again-{seed}.safetensors")
    else:
        model = unlearn(protocol, rule, original, retain, forget, seed)
    seconds = time.perf_counter() - start
    scores = score_fields(measure(model, test, forget, FORGET_CLASS))
    reference = score_fields(measure(retrained, test, forget, FORGET_CLASS))
    return {
        "rule": rule,
        "seed": seed,
        **{figure: scores[figure] for figure in FIGURES},
        "auc_gap": abs(scores["forget_mia_auc"] - reference["forget_mia_auc"]),
        "divergence": divergence(model, retrained, test.of_classes([FORGET_CLASS])),
        "seconds": seconds,
    }


def harness_cells(setting: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same rules in the packaged harness."""
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        benchmark = prepare_benchmark(
            setting,
            preset=options.preset,
            seed=seed,
            output=options.cache,
            pretrain_epochs=options.pretrain_epochs,
            unlearn_epochs=options.unlearn_epochs,
            train_limit=options.train_limit,
            test_limit=options.test_limit,
        )
        limits = benchmark.limits
        for rule in options.rules:
            if rule in REFERENCES:
                continue  # in every result of the harness
            method = RULES[rule](epochs=limits.unlearn_epochs, batch_size=limits.batch_size, **UNLEARNING)
            result = benchmark.run(rule if rule in BASELINES else method)
            gap = result["gap_to_retrain"]
            rows.append(
                {"rule": rule, "seed": seed, **{figure: result[figure] for figure in FIGURES}}
                | {"auc_gap": abs(gap["forget_mia_auc"]), "problems": result["problems"]}
                | {"original": result["original"], "retrained": result["retrained"], "limits": asdict(limits)}
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def mean_and_spread(values: list[float]) -> str:
    """Mean, and standard deviation over seeds."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of means over seeds."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = [f"| rule | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        found = [row for row in rows if row["rule"] == rule]
        figures = [mean_and_spread([row[column] for row in found if column in row]) for column in columns]
        lines.append(f"| {rule} | {len(found)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def published_table() -> str:
    """The published rows of all settings, with the two-sided score of their numbers."""
    lines = ["| setting | rule | retain_acc | forget_acc | AUC | two_sided_score |", "|---|---|---|---|---|---|"]
    for setting in SETTINGS:
        for row in published_rows(find_setting(setting)):
            if row.two_sided is not None:
                numbers = (row.retain_acc, row.forget_acc, row.forget_mia_auc, row.two_sided)
                lines.append(f"| {setting} | {row.method} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    return "\n".join(lines)


EXPLANATION = """# Update rules in MLS-Bench's manner

A stand-in on a CPU, not the benchmark: {protocol}. Fashion-MNIST at 14 x 14, ResNet-8, no augmentation, class 0
deleted. Means and standard deviations over seeds; every seed draws other images and other weights.

two_sided_score: (retain_acc + (1 - forget_acc) + (1 - mia_leakage)) / 3, mia_leakage = 2 |AUC - 0.5|. The AUC of
{members} members against 1000 non-members has a standard error of about {error:.3f} when nothing leaks, so that
retraining itself has a mia_leakage of about {floor:.3f}; a better one is luck. auc_gap: distance from the AUC of the
model retrained on the same draw. divergence: mean total variation between the predictions of the two on test images of
the deleted class; "another retrain", the same data with other weights, says how much of it is chance.

These are utility and membership alone. How much of the deleted class can be reconstructed from the pair of models is
what the arena measures.

## Evaluation

Seeds that played no part in choosing the rule's settings.

{evaluation}

## Development

The seeds on which `keep_first` and `keep_last` were chosen, and the ablations. Too few for small differences.

{development}

## Published rows

From another protocol (complete data, 32 x 32, ResNet-20, VGG-16-BN and MobileNetV2, 80 and 20 epochs, seed 42, an AUC
without tie correction). **They cannot be compared with the table above**; they show which range the score has there.

{published}
"""


def report(rows: list[dict[str, Any]], protocol: StandIn) -> str:
    """The whole page."""
    members = protocol.train_images
    error = math.sqrt((members + 1000 + 1) / (12 * members * 1000))
    return EXPLANATION.format(
        protocol=", ".join(f"{name} {value}" for name, value in asdict(protocol).items()),
        members=members,
        error=error,
        floor=2 * error * math.sqrt(2 / math.pi),
        evaluation=table([row for row in rows if row["seed"] not in DEVELOPMENT_SEEDS]),
        development=table([row for row in rows if row["seed"] in DEVELOPMENT_SEEDS]),
        published=published_table(),
    )


def save(path: Path, protocol: Any, rows: list[dict[str, Any]]) -> None:
    """Writes the results so far."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"protocol": protocol, "versions": versions, "cells": rows}, indent=1), encoding="utf-8")


def main() -> None:
    """Runs what is not in the results file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of a tiny protocol: does everything run?")
    parser.add_argument("--seeds", type=int, default=7, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them; MLS-Bench has 42")
    parser.add_argument(
        "--rules", nargs="+", choices=[*REFERENCES, *RULES], default=[*REFERENCES, *RULES], help="which rules"
    )
    parser.add_argument("--setting", choices=[name.removesuffix("-class0") for name in SETTINGS], help="see above")
    parser.add_argument("--preset", default="full", help="of --setting: full or smoke")
    for number in ("pretrain-epochs", "unlearn-epochs", "train-limit", "test-limit"):
        parser.add_argument(f"--{number}", type=int, help="of --setting: instead of the preset's")
    parser.add_argument("--cache", type=Path, default=Path("runs/mls_bench_benchmark"), help="trained models")
    parser.add_argument("--json", type=Path, help="results; cells that are in it are not run again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.setting:
        rows = harness_cells(options.setting, options)
        if options.json:
            save(options.json, {"setting": options.setting, "preset": options.preset}, rows)
        print(table(rows), published_table(), sep="\n\n")
        return

    protocol = QUICK if options.quick else StandIn()
    seeds = range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds))
    cache = options.cache / "-".join(str(value) for value in asdict(protocol).values())
    rows = []
    if options.json and options.json.exists():
        stored = json.loads(options.json.read_text(encoding="utf-8"))
        rows = stored["cells"] if stored["protocol"] == asdict(protocol) else []
    order = {rule: k for k, rule in enumerate((*REFERENCES, *RULES))}
    for seed, rule in itertools.product(seeds, options.rules):
        if any(row["rule"] == rule and row["seed"] == seed for row in rows):
            continue
        rows.append(cell(protocol, rule, seed, cache))
        rows.sort(key=lambda row: (order[row["rule"]], row["seed"]))
        print(json.dumps(next(row for row in rows if (row["rule"], row["seed"]) == (rule, seed))), flush=True)
        if options.json:
            save(options.json, asdict(protocol), rows)
    page = report(rows, protocol)
    print(page)
    if options.json:
        options.json.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
