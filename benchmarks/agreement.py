"""Two processes against one: ``python benchmarks/agreement.py [--quick] [--json FILE]``.

Everything is trained and measured on scikit-learn's digits, once in one process and once in two that share the work
(gloo, on the CPU), with the same batch of all processes together. ``other seed`` is one process with another seed, from
the same data: what two processes change is to be read beside it. With ``--json FILE`` the table is written beside it as
Markdown.

- ``classifier``: a small CNN without batch normalisation (group normalisation in its place): the same updates but for
  the order of sums. ``weights`` is the largest difference of a weight.
- ``classifier, batch norm``: the packaged CNN. Each process normalises by its own half of a batch.
- ``unlearning``: NegativeGradient on the first classifier; retain and forget streams of unequal sizes.
- ``generator``: DCGAN; every process draws noise of its own.
- ``evaluation``: metrics of 37 candidates, judged in blocks of 8 that the processes share.
"""

from __future__ import annotations

import argparse
import logging
import math
import platform
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.files import atomic_path, write_json
from retrace_pl.models import DCGAN, Classifier, SmallCNN
from retrace_pl.tasks import (
    ClassifierTask,
    GeneratorTask,
    Reference,
    Scoring,
    UnlearningTask,
    ask_judges,
    evaluate_candidates,
    score_together,
    unlearning_quality,
)
from retrace_pl.unlearning import NegativeGradient

BATCH = 50
TOLERANCE = 1e-4
"""Relative where a value is above 1, for what two processes compute like one."""

COARSE = 0.05
"""Of unlearning: where a stream starts over within an epoch, two processes see it in another order than one."""

CANDIDATES, BLOCK = 37, 8

Measured = dict[str, float]
Row = dict[str, Any]


def trainer(processes: int, epochs: int | None = None, **options: Any) -> Trainer:
    """A quiet trainer on the CPU."""
    name = "ddp_fork_find_unused_parameters_true" if epochs is not None else "ddp_fork"
    return Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=name if processes > 1 else "auto",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def fit(task: LightningModule, data: LightningDataModule, processes: int, epochs: int) -> Measured:
    """Trains, and returns what was logged last."""
    runner = trainer(processes, epochs)
    runner.fit(task, datamodule=data)
    return {name: float(value) for name, value in runner.callback_metrics.items()}


def without_batch_norm(model: SmallCNN) -> SmallCNN:
    """The same network with group normalisation, which does not mix records."""
    for number, layer in enumerate(model.body):
        if isinstance(layer, nn.BatchNorm2d):
            model.body[number] = nn.GroupNorm(1, layer.num_features)
    return model


def classifier(data: UnlearningDataModule, seed: int, processes: int, epochs: int, batch_norm: bool) -> Classifier:
    """A trained classifier, with what was measured in the attribute ``measured``."""
    torch.manual_seed(seed)
    model = SmallCNN(1, 10, width=8)
    model = model if batch_norm else without_batch_norm(model)
    task = ClassifierTask(model, 10, optimizer=partial(torch.optim.Adam, lr=0.01), seed=seed)
    view = data.view("train", "test", batch_size=BATCH // processes, augment=False)
    found = fit(task, view, processes, epochs)
    model.measured = {
        "train loss": found["train/loss"],
        "test loss": found["val/loss"],
        "test accuracy": found["val/accuracy"],
    }
    return model.eval()


def unlearned(data: UnlearningDataModule, original: Classifier, seed: int, processes: int) -> Measured:
    """Quality of the classifier after unlearning."""
    torch.manual_seed(seed)
    model = SmallCNN(1, 10, width=8)
    model = without_batch_norm(model)
    model.load_state_dict(original.state_dict())
    method = NegativeGradient(epochs=1, lr=0.005, batch_size=BATCH // processes)
    fit(UnlearningTask(model, method, 10, seed=seed), data.unlearning_view(batch_size=method.batch_size), processes, 1)
    quality = unlearning_quality(model, data)
    return {"retain accuracy": quality["retain_acc"], "forget accuracy": quality["forget_acc"]}


def generator(data: UnlearningDataModule, judge: Classifier, seed: int, processes: int, epochs: int) -> Measured:
    """FID of the generator's samples in the judge's features."""
    torch.manual_seed(seed)
    task = GeneratorTask(DCGAN((1, 16, 16), latent_dim=16, width=8), features=judge, evaluate_every=0, seed=seed)
    found = fit(task, data.view("public", "public", batch_size=BATCH // processes), processes, epochs)
    return {"FID of samples": found["val/fid_features"]}


def evaluation(data: UnlearningDataModule, judge: Classifier, processes: int) -> Measured:
    """Metrics of unseen records as candidates, asked by the processes together."""
    candidates = data.split("test").inputs[:CANDIDATES]
    ask = partial(ask_judges, evaluator=judge, original=judge)
    runner = trainer(processes, use_distributed_sampler=False, inference_mode=False)
    with tempfile.TemporaryDirectory() as folder:
        found = score_together(
            [Scoring.of("candidates", candidates, ask, BLOCK)], [judge], runner, Path(folder) / "answers"
        )
    assert found is not None
    answers = found["candidates"]
    values = evaluate_candidates(candidates, Reference.from_datamodule(data), judge, judge, answers=answers)
    shown = {"FID": "fid_oracle", "KID": "kid_oracle", "MSE": "mse", "success": "sr_oracle"}
    return {"candidates": float(len(answers["logits"])), **{name: values[key] for name, key in shown.items()}}


def data_of(seed: int) -> UnlearningDataModule:
    """Digits with a training split that two processes can halve into whole batches."""
    return UnlearningDataModule(
        DigitsSource(),
        forget_class=3,
        image_size=16,
        channels=1,
        train_size=400,
        public_size=200,
        evaluator_size=200,
        test_size=200,
        seed=seed,
    )


def measure(seed: int, epochs: int, note: Callable[[str], object]) -> list[Row]:
    """All rows of one seed."""
    data = data_of(seed)
    rows: list[Row] = []

    def add(part: str, tolerance: float | None, one: Measured, two: Measured, other: Measured | None = None) -> None:
        for name, value in one.items():
            row = {"seed": seed, "part": part, "quantity": name, "one": value, "two": two[name]}
            rows.append(row | {"other_seed": None if other is None else other[name], "tolerance": tolerance})
        note(f"seed {seed}: {part}")

    for batch_norm in (False, True):
        one, two = (classifier(data, seed, processes, epochs, batch_norm) for processes in (1, 2))
        other = classifier(data, seed + 1000, 1, epochs, batch_norm)
        name = "classifier, batch norm" if batch_norm else "classifier"
        add(name, None if batch_norm else TOLERANCE, one.measured, two.measured, other.measured)
        if not batch_norm:
            add(
                "classifier",
                TOLERANCE,
                {"weights": 0.0},
                {"weights": _apart(one, two)},
                {"weights": _apart(one, other)},
            )
            add("unlearning", COARSE, *(unlearned(data, one, seed, processes) for processes in (1, 2)))
        judge = one
    add(
        "generator", None, *(generator(data, judge, *case, epochs) for case in ((seed, 1), (seed, 2), (seed + 1000, 1)))
    )
    add("evaluation", 0.0, *(evaluation(data, judge, processes) for processes in (1, 2)))
    return rows


def _apart(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def holds(row: Row) -> bool | None:
    """Whether two processes agree with one to the tolerance; None where none is promised."""
    if row["tolerance"] is None:
        return None
    return math.isclose(row["one"], row["two"], rel_tol=row["tolerance"], abs_tol=row["tolerance"])


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| part | quantity | seed | one process | two processes | other seed | tolerance | holds |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        promised = "none" if row["tolerance"] is None else "equal" if row["tolerance"] == 0 else f"{row['tolerance']:g}"
        kept = {None: "-", True: "yes", False: "**no**"}[holds(row)]
        other = "-" if row["other_seed"] is None else f"{row['other_seed']:.6g}"
        figures = f"{row['one']:.6g} | {row['two']:.6g} | {other}"
        lines.append(f"| {row['part']} | {row['quantity']} | {row['seed']} | {figures} | {promised} | {kept} |")
    return "\n".join(lines)


def hardware() -> str:
    """Processor and torch, in a line."""
    found = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        found = names[0] if names else found
    return f"one thread a process, {found}, torch {torch.__version__}"


def main() -> None:
    """Measures, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch")
    parser.add_argument("--json", type=Path, help="write the measurements there and the table beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice on loaders, and on distributed evaluation
    seeds = range(1 if options.quick else options.seeds)
    epochs = 1 if options.quick else options.epochs
    rows: list[Row] = []
    for seed in seeds:
        rows += measure(seed, epochs, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(rows))
    broken = [row for row in rows if holds(row) is False]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", *sys.argv])
        facts = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "hardware": hardware()}
        write_json(options.json, {**facts, "seeds": list(seeds), "epochs": epochs, "rows": rows})
        setting = f"{facts['date']}, {facts['hardware']}; {epochs} epochs of {BATCH} records a step."
        text = f"# Two processes against one\n\n`{command}`, {setting}\n\n"
        with atomic_path(options.json.with_suffix(".md")) as temporary:
            temporary.write_text(text + table(rows) + "\n", encoding="utf-8")
    if broken:
        raise SystemExit(f"{len(broken)} of {len(rows)} figures are outside their tolerance")


if __name__ == "__main__":
    main()
