"""Two processes against one: ``python benchmarks/agreement.py [--quick] [--json FILE]``.

Everything is trained and measured on scikit-learn's digits, once in one process and once in two that share the work
(gloo, on the CPU), with the same batch of all processes together. Two columns show how to read a difference:
``reordered`` is one process whose batches hold the same records in another order, which changes nothing but the last
digits of sums, as two processes do; ``other seed`` is one process with another seed, from the same data. With
``--json FILE`` the table is written beside it as Markdown.

- ``classifier``: a small CNN without batch normalisation (group normalisation in its place), trained with Adam: the
  same updates but for the order of sums. ``weights`` is the largest difference of a weight.
- ``double precision``: the same in 64 bits, where the last digits are too far away for a training to amplify them to
  anything. What agrees here, and does not in single precision, is rounding.
- ``unlearning``: NegativeGradient on the first classifier; the shorter of the two streams is a ninth of the longer and
  starts over eight times. Both divide into whole batches for any number of processes; ``uneven`` is a deleted class,
  whose records do not: a share is filled up with a record that is seen twice, and streams start over at another place.
- ``classifier, batch norm``: the packaged CNN. Each process normalises by its own half of a batch.
- ``generator``: DCGAN; every process draws noise of its own.
- ``evaluation``: metrics of 37 candidates, judged in blocks of 8 that the processes share.
"""

from __future__ import annotations

import argparse
import copy
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
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
DELETED = 40
"""Records to forget, a ninth of those to retain; batches of 20 divide both."""

TOLERANCE = {"train loss": 1e-3, "test loss": 1e-3, "test accuracy": 0.01, "weights": 3e-3}
"""Of a classifier in single precision, relative where a value is above 1. Rounding errors of 6e-8 grow by about a power
of ten an epoch under Adam, whose steps depend on the sign of small gradients; an accuracy moves by records, here two of
200. Reordering the records of a batch in one process moves the weights by more than this."""

EXACT = {"train loss": 1e-6, "test loss": 1e-12, "test accuracy": 0.0, "weights": 1e-12}
"""Of a classifier in double precision; the training's own loss is averaged in single precision all the same."""

FORGOTTEN = {"retain accuracy": 0.003, "forget accuracy": 0.03, "weights": 1e-4}
"""Of unlearning in single precision, one epoch: a record of 360, one of 40."""

FORGOTTEN_EXACT = {"retain accuracy": 0.0, "forget accuracy": 0.0, "weights": 1e-12}
"""Of unlearning in double precision."""

UNEVEN = {"retain accuracy": 0.05, "forget accuracy": 0.05}
"""Of unlearning with uneven streams, whose batches are not the same ones."""

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


def fit(task: LightningModule, data: LightningDataModule, processes: int, epochs: int, **options: Any) -> Measured:
    """Trains, and returns what was logged last."""
    runner = trainer(processes, epochs, **options)
    runner.fit(task, datamodule=data)
    return {name: float(value) for name, value in runner.callback_metrics.items()}


def without_batch_norm(model: SmallCNN) -> SmallCNN:
    """The same network with group normalisation, which does not mix records."""
    for number, layer in enumerate(model.body):
        if isinstance(layer, nn.BatchNorm2d):
            model.body[number] = nn.GroupNorm(1, layer.num_features)
    return model


class Reordered(ClassifierTask):
    """A classifier's training in which every batch holds its records in another order."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(batch_idx))
        return super().training_step((batch[0][order], batch[1][order]), batch_idx)


def classifier(
    data: UnlearningDataModule,
    seed: int,
    processes: int,
    epochs: int,
    *,
    batch_norm: bool = False,
    double: bool = False,
    kind: type[ClassifierTask] = ClassifierTask,
) -> Classifier:
    """A trained classifier, with what was measured in the attribute ``measured``."""
    torch.manual_seed(seed)
    model = SmallCNN(1, 10, width=8)
    model = model if batch_norm else without_batch_norm(model)
    model = model.double() if double else model  # the parent of forked processes takes the weights at its own precision
    task = kind(model, 10, optimizer=partial(torch.optim.Adam, lr=0.01), seed=seed)
    view = data.view("train", "test", batch_size=BATCH // processes, augment=False)
    found = fit(task, view, processes, epochs, precision="64-true" if double else "32-true")
    test = data.split("test")
    model.eval()
    with torch.no_grad():
        logits = model(test.inputs.double() if double else test.inputs)
    model.measured = {
        "train loss": found["train/loss"],
        "test loss": float(cross_entropy(logits, test.labels)),
        "test accuracy": float((logits.argmax(dim=1) == test.labels).double().mean()),
    }
    return model


def unlearned(
    data: UnlearningDataModule,
    original: Classifier,
    seed: int,
    processes: int,
    *,
    batch_size: int,
    double: bool = False,
) -> Classifier:
    """The classifier after unlearning, with its quality in the attribute ``measured``."""
    torch.manual_seed(seed)
    model = SmallCNN(1, 10, width=8)
    model = without_batch_norm(model)
    model.load_state_dict(original.state_dict())
    model = model.double() if double else model
    method = NegativeGradient(epochs=1, lr=0.005, batch_size=batch_size // processes)
    task = UnlearningTask(model, method, 10, seed=seed)
    fit(
        task,
        data.unlearning_view(batch_size=method.batch_size),
        processes,
        1,
        precision="64-true" if double else "32-true",
    )
    quality = unlearning_quality(copy.deepcopy(model).float().eval(), data)
    model.measured = {"retain accuracy": quality["retain_acc"], "forget accuracy": quality["forget_acc"]}
    return model


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


def data_of(seed: int, **deleted: Any) -> UnlearningDataModule:
    """Digits with a training split that two processes can halve into whole batches."""
    data = UnlearningDataModule(
        DigitsSource(),
        image_size=16,
        channels=1,
        train_size=400,
        public_size=200,
        evaluator_size=200,
        test_size=200,
        seed=seed,
        **deleted,
    )
    data.setup()
    return data


def measure(seed: int, epochs: int, note: Callable[[str], object]) -> list[Row]:
    """All rows of one seed."""
    data, even = data_of(seed, forget_class=3), data_of(seed, forget_indices=list(range(DELETED)))
    assert [len(even.split(name)) for name in ("train", "retain", "forget")] == [400, 400 - DELETED, DELETED]
    rows: list[Row] = []

    def add(part: str, tolerances: Measured | float | None, one: Measured, two: Measured, **others: Measured) -> None:
        for name, value in one.items():
            row = {"seed": seed, "part": part, "quantity": name, "one": value, "two": two[name]}
            row |= {other: others[other][name] if other in others else None for other in ("reordered", "other_seed")}
            rows.append(row | {"tolerance": tolerances[name] if isinstance(tolerances, dict) else tolerances})
        note(f"seed {seed}: {part}")

    def against(one: Classifier, **others: Classifier) -> dict[str, Measured]:
        """Measurements of models, with how far their weights are from the first one's."""
        return {
            name: model.measured | {"weights": _apart(one, model)} for name, model in {"one": one, **others}.items()
        }

    def learn(**options: Any) -> dict[str, Classifier]:
        return {
            "one": classifier(data, seed, 1, epochs, **options),
            "two": classifier(data, seed, 2, epochs, **options),
            "reordered": classifier(data, seed, 1, epochs, **options, kind=Reordered),
            "other_seed": classifier(data, seed + 1000, 1, epochs, **options),
        }

    single = learn()
    add("classifier", TOLERANCE, **against(**single))
    add("classifier, double precision", EXACT, **against(**learn(double=True)))
    for part, records, tolerances, options in (
        ("unlearning", even, FORGOTTEN, {"batch_size": DELETED // 2}),
        ("unlearning, double precision", even, FORGOTTEN_EXACT, {"batch_size": DELETED // 2, "double": True}),
        ("unlearning, uneven", data, UNEVEN, {"batch_size": BATCH}),
    ):
        one, two = (unlearned(records, single["one"], seed, processes, **options) for processes in (1, 2))
        found = against(one, two=two) if records is even else {"one": one.measured, "two": two.measured}
        add(part, tolerances, **found)
    normalised = learn(batch_norm=True)
    add("classifier, batch norm", None, **{name: model.measured for name, model in normalised.items()})
    judge = normalised["one"]
    samples = [generator(data, judge, *case, epochs) for case in ((seed, 1), (seed, 2), (seed + 1000, 1))]
    add("generator", None, samples[0], samples[1], other_seed=samples[2])
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
        "| part | quantity | seed | one process | two processes | reordered | other seed | tolerance | holds |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        promised = "none" if row["tolerance"] is None else "equal" if row["tolerance"] == 0 else f"{row['tolerance']:g}"
        kept = {None: "-", True: "yes", False: "**no**"}[holds(row)]
        shown = (row[name] for name in ("one", "two", "reordered", "other_seed"))
        figures = " | ".join("-" if value is None else f"{value:.6g}" for value in shown)
        lines.append(f"| {row['part']} | {row['quantity']} | {row['seed']} | {figures} | {promised} | {kept} |")
    return "\n".join(lines)


def reading(rows: list[Row]) -> str:
    """What the table says, in words with its own figures."""

    def largest(part: str, column: str) -> str:
        return f"{max(row[column] for row in rows if row['part'] == part and row['quantity'] == 'weights'):.0e}"

    single, double = "classifier", "classifier, double precision"
    return (
        "\nEvaluation is equal to the last bit, FID and KID among it. A classifier without batch normalisation learns "
        f"the same but for rounding: at the end its weights differ by at most {largest(double, 'two')} in double "
        f"precision. In single precision they differ by at most {largest(single, 'two')}; changing the order of the "
        f"records within each batch, in one process, moves them by up to {largest(single, 'reordered')}, and another "
        f"seed by {largest(single, 'other_seed')}. Unlearning agrees in the same way where both streams divide into "
        f"whole batches ({largest('unlearning, double precision', 'two')} in double precision, "
        f"{largest('unlearning', 'two')} in single), and by its accuracies where they do not. Models with batch "
        "normalisation over each process's own records, and generators, are other samples of the same training; no "
        "agreement is promised for them.\n"
    )


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
            temporary.write_text(text + table(rows) + "\n" + reading(rows), encoding="utf-8")
    if broken:
        raise SystemExit(f"{len(broken)} of {len(rows)} figures are outside their tolerance")


if __name__ == "__main__":
    main()
