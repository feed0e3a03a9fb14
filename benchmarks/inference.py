"""What can be inferred without a picture: ``python benchmarks/inference.py [--quick] [--json FILE]``.

scikit-learn digits at 8x8 and a fully connected network. Class inference: one or two classes deleted by retraining, or
nothing deleted at all (another training run), with a public set that holds the deleted classes or lacks them; the
package's rule beside one by the mean trace. Membership inference: records with noisy labels, deleted by retraining,
learnt from a shadow unlearning of other records. With ``--json FILE`` the tables are written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from retrace_pl.attacks import AttackContext, Shadow, Truth, UnlearningLeaks
from retrace_pl.attacks.membership import Features
from retrace_pl.attacks.membership_classifier import MembershipModel
from retrace_pl.envs.toys import IdentityGenerator
from retrace_pl.files import atomic_path, write_json
from retrace_pl.traces import ClassEvidence, ModelPair, infer_classes

OFFSET, RATIO = 0.05, 2.0
TRAIN = 900
Cell = dict[str, Any]


def train(inputs: Tensor, labels: Tensor, seed: int, steps: int = 120) -> nn.Module:
    """A fully connected classifier of 8x8 digits; Adam with learning rate 0.01 on all records at once."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def by_mean_trace(evidence: ClassEvidence) -> tuple[tuple[int, ...], bool]:
    """The rival rule: the mean traces of the classes that f+ predicts, cut at the largest ratio of neighbours.

    A ratio of at least 2 counts as clear; 0.05 is added to both sides, so that quiet classes make no gap.
    """
    means = {label: float(evidence.mean_trace[label]) for label in evidence.counts.nonzero().flatten().tolist()}
    ranking = tuple(sorted(means, key=means.__getitem__, reverse=True))
    ratios = [(means[high] + OFFSET) / (means[low] + OFFSET) for high, low in pairwise(ranking)]
    allowed = ratios[: max(1, len(ranking) // 2)]
    cut = max(range(len(allowed)), key=allowed.__getitem__)
    return (ranking[: cut + 1], True) if allowed[cut] >= RATIO else (ranking[:1], False)


def class_cell(pair: ModelPair, public: Tensor, case: str, deleted: Iterable[int]) -> Cell:
    """What both rules say of one pair; nothing deleted is right where nothing is named clearly."""
    evidence = infer_classes(pair, public)
    cell: Cell = {"case": case, "deleted": sorted(deleted)}
    rules = {"share_lost": (evidence.deleted, evidence.clear), "mean_trace": by_mean_trace(evidence)}
    for rule, (named, clear) in rules.items():
        right = sorted(named) == cell["deleted"] if cell["deleted"] else not clear
        cell[rule] = {"named": list(named), "clear": clear, "right": right}
    return cell


def class_cells(quick: bool) -> list[Cell]:
    """Every class alone, fourteen pairs of classes, and three training runs with nothing deleted."""
    digits = load_digits()
    inputs, labels = torch.as_tensor(digits.data / 16, dtype=torch.float32), torch.as_tensor(digits.target)
    known, known_labels, public, public_labels = inputs[:TRAIN], labels[:TRAIN], inputs[TRAIN:], labels[TRAIN:]
    pairs = random.Random(0).sample(list(combinations(range(10), 2)), 14)
    deletions = [(3,), (2, 7)] if quick else [*((label,) for label in range(10)), *pairs]
    before = train(known, known_labels, 0)
    cells = []
    for number, deleted in enumerate(deletions):
        gone, away = (torch.isin(column, torch.tensor(deleted)) for column in (known_labels, public_labels))
        pair = ModelPair(before, train(known[~gone], known_labels[~gone], 20 + number))
        cells.append(class_cell(pair, public, "deleted, public set with it", deleted))
        cells.append(class_cell(pair, public[~away], "deleted, public set without it", deleted))
    for seed in range(1 if quick else 3):
        pair = ModelPair(before, train(known, known_labels, 10 + seed))
        cells.append(class_cell(pair, public, "nothing deleted", ()))
        for label in range(10):
            lacking = public[public_labels != label]
            cells.append(class_cell(pair, lacking, "nothing deleted, public set without one class", ()))
    return cells


def noisy_halves(seed: int) -> list[tuple[ModelPair, Tensor, Tensor, Tensor]]:
    """Two disjoint unlearnings of 40 of 160 records, a third of them mislabelled: pair, deleted, unseen, retained."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    inputs = torch.as_tensor(digits.data / 16, dtype=torch.float32)[order]
    labels = torch.as_tensor(digits.target)[order]
    labels[::3] = (labels[::3] + 1) % 10
    made = []
    for start in (0, 800):
        kept, whole = slice(start + 40, start + 160), slice(start, start + 160)
        original = train(inputs[whole], labels[whole], 1000 * seed + start, steps=200)
        unlearned = train(inputs[kept], labels[kept], 1000 * seed + start + 1, steps=200)
        pair = ModelPair(original, unlearned)
        made.append((pair, inputs[start : start + 40], inputs[start + 200 : start + 400], inputs[kept]))
    return made


def membership_cells(quick: bool) -> list[Cell]:
    """Every kind of feature, sorted and not, with both classifiers."""
    cells = []
    for seed in range(1 if quick else 5):
        (pair, deleted, unseen, retained), audited = noisy_halves(seed)
        shadow = Shadow(pair, deleted, retained, unseen, unseen)
        context = AttackContext(None, None, IdentityGenerator(1), seed=seed, shadow=shadow)  # type: ignore[arg-type]
        for features in get_args(Features):
            for sort in (True, False) if features != "distance" else (True,):
                for classifier in get_args(MembershipModel):
                    attack = UnlearningLeaks(features, sort, classifier)
                    judged = attack.judge(attack.infer(context), audited[0], Truth(audited[1], audited[2], ()))
                    settings = {"features": features, "sorted": sort, "classifier": classifier, "seed": seed}
                    cells.append(settings | judged)
    return cells


def tables(classes: list[Cell], members: list[Cell]) -> str:
    """Both tables as Markdown."""
    lines = ["| class inference | pairs | right: share lost | right: mean trace |", "|---|---|---|---|"]
    for case in dict.fromkeys(cell["case"] for cell in classes):
        rows = [cell for cell in classes if cell["case"] == case]
        right = [sum(row[rule]["right"] for row in rows) for rule in ("share_lost", "mean_trace")]
        lines.append(f"| {case} | {len(rows)} | {right[0]} | {right[1]} |")
    columns = ("auroc", "tpr_at_1pct_fpr", "balanced_accuracy", "auroc_before")
    lines += ["", f"| membership inference | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    keys = ("features", "sorted", "classifier")
    for key in dict.fromkeys(tuple(cell[name] for name in keys) for cell in members):
        rows = [cell for cell in members if tuple(cell[name] for name in keys) == key]
        order = "" if key[0] == "distance" else " sorted," if key[1] else " not sorted,"
        values = " | ".join(f"{mean(row[column] for row in rows):.3f}" for column in columns)
        lines.append(f"| {key[0]},{order} {key[2].replace('_', ' ')} | {values} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run both parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two deletions and one seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all cells to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    classes, members = class_cells(options.quick), membership_cells(options.quick)
    text = tables(classes, members)
    print(text)
    if options.json:
        write_json(options.json, {"class_inference": classes, "membership": members})
        with atomic_path(options.json.with_suffix(".md")) as path:
            path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
