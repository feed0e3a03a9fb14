"""Levers on the directional search, one at a time: ``python benchmarks/levers.py [--quick] [--json FILE]``.

The setting of ``directional.py``: Fashion-MNIST, the deleted class absent from public set and generator, black-box, an
equal query budget. Seed 2 by default, because ``ppo`` was chosen on seed 0. Levers on the searcher are
the names of ``directional.SEARCHERS``; three act on the score, with ``ppo``:

- ``realism_0.1`` and ``realism_0.3``: that share of the score is the probability of being real, from a classifier
  trained on public images against the generator's samples;
- ``shadow_ensemble``: the score is the mean over f+ and two students of it, which learnt f+'s probabilities on the
  public images and on samples of the generator, so that what fools f+ alone is worth less. The samples cost queries of
  f+ beside the budget, as many as ``STUDENT_SAMPLES``.

Figures as in ``directional.py``, of the plain best 200; means over the cells. With ``--json`` an interrupted benchmark
goes on where it stopped, and the table is written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from _fashion_setting import Setting, build
from attacks import hardware
from directional import SEARCHERS, machine, make_scorer, measure, own_diversity, write
from retrace_pl.models import ResNetCIFAR
from retrace_pl.traces import DirectionalScorer, ModelPair, TraceScorer
from retrace_pl.traces.scorer import TraceScores

UNLEARNERS = ("retrain", "negative_gradient")
STUDENT_SAMPLES = 20_000
STEPS = 400
BATCH = 128
ON_SCORE = ("realism_0.1", "realism_0.3", "shadow_ensemble")
LEVERS = (*SEARCHERS, *ON_SCORE)
COLUMNS = ("sr_oracle", "fid_oracle", "diversity_share", "score_top64")


class Realistic(DirectionalScorer):
    """The directional score, a share of it replaced by the probability that an input is real.

    Args:
        pair: The two models.
        realism: Two-class network; class 1 is real.
        share: Of the score, in [0, 1].
    """

    def __init__(self, pair: ModelPair, realism: nn.Module, share: float) -> None:
        super().__init__(pair)
        self.realism = realism
        self.share = share

    @torch.no_grad()
    def __call__(self, inputs: Any, signals: Any = None) -> TraceScores:
        """Score inputs ``[n, ...]``."""
        found = super().__call__(inputs, signals)
        real = self.realism(inputs).softmax(dim=1)[:, 1]
        return found._replace(score=(1 - self.share) * found.score + self.share * real)


class Ensemble(DirectionalScorer):
    """The mean of the directional score over f+ and students in its place.

    Args:
        pair: f+ and f-.
        unlearned: f- itself.
        students: Networks that imitate f+.
    """

    def __init__(self, pair: ModelPair, unlearned: nn.Module, students: list[nn.Module]) -> None:
        super().__init__(pair)
        self.students = students
        self.pairs = [ModelPair(student, unlearned, pair.access) for student in students]
        self.others: list[DirectionalScorer] = []

    def fit(self, public: Any) -> None:
        """Infer the deleted classes from f+ and f-; the students are asked about the same."""
        super().fit(public)
        self.others = [DirectionalScorer(pair, classes=self.classes or None) for pair in self.pairs]
        for scorer in self.others:
            scorer.fit(public)

    def __call__(self, inputs: Any, signals: Any = None) -> TraceScores:
        """Score inputs ``[n, ...]``."""
        found = super().__call__(inputs, signals)
        scores = [found.score, *(scorer(inputs).score for scorer in self.others)]
        return found._replace(score=torch.stack(scores).mean(dim=0))


def learn(inputs: Tensor, targets: Tensor, seed: int) -> nn.Module:
    """A small network trained for ``STEPS`` steps on soft targets ``[n, K]``."""
    torch.manual_seed(seed)
    model = ResNetCIFAR(inputs.shape[1], targets.shape[1], depth=8, width=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        batch = torch.randint(len(inputs), (BATCH,), generator=order)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def samples(setting: Setting, count: int, seed: int) -> Tensor:
    """Images ``[count, C, H, W]`` of the generator."""
    latents = setting.generator.sample_latents(count, torch.Generator().manual_seed(seed))
    return torch.cat([setting.generator(part) for part in latents.split(512)])


class Levers:
    """The scorers of one seed and class; what they need is trained once, for all ways to forget.

    Args:
        setting: Models and data.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.realism = cache(self._realism)
        self.students = cache(self._students)

    def scorer(self, lever: str, unlearner: str) -> TraceScorer:
        """The fitted scorer of a lever."""
        if lever not in ON_SCORE:
            return make_scorer(self.setting, unlearner, "directional")
        unlearned = self.setting.unlearned[unlearner]
        pair = ModelPair(self.setting.original, unlearned, "black")
        found: TraceScorer
        if lever == "shadow_ensemble":
            found = Ensemble(pair, unlearned, self.students())
        else:
            found = Realistic(pair, self.realism(), float(lever.removeprefix("realism_")))
        found.fit(self.setting.public)
        return found

    def _realism(self) -> nn.Module:
        real = self.setting.public
        made = samples(self.setting, len(real), 1000 + self.setting.seed)
        labels = torch.cat([torch.ones(len(real)), torch.zeros(len(made))]).long()
        return learn(torch.cat([real, made]), functional.one_hot(labels, 2).float(), self.setting.seed)

    @torch.no_grad()
    def _students(self) -> list[nn.Module]:
        made = samples(self.setting, STUDENT_SAMPLES, 2000 + self.setting.seed)
        inputs = torch.cat([self.setting.public, made])
        targets = torch.cat([self.setting.original(part).softmax(dim=1) for part in inputs.split(512)])
        with torch.enable_grad():
            return [learn(inputs, targets, 10 * self.setting.seed + number) for number in range(2)]


def markdown(result: dict[str, Any]) -> str:
    """A table for every seed and class: one line per lever, means over its cells."""
    cells = result["cells"]
    queries = ", ".join(f"{count:,}" for count in sorted({cell["queries"] for cell in cells}))
    lines = [
        "# Levers on the directional search",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, torch {result['machine']['torch']} with one"
        f" thread. Fashion-MNIST, black-box, {queries} queries a search, one search a cell. The cells after *retrain*"
        " are the matched-retrain control of the others, `random` is the same score without a searcher. `ppo` is the"
        " packaged `configs/searcher/ppo_mixture.yaml` with tau 0. `diversity_share` is of the class's own. What each"
        " lever changes stands in `benchmarks/directional.py` and `benchmarks/levers.py`.",
    ]
    for seed, label in sorted({(cell["seed"], cell["class"]) for cell in cells}):
        own = [cell for cell in cells if (cell["seed"], cell["class"]) == (seed, label)]
        lines += ["", f"## Seed {seed}, class {label}", "", *_table(own)]
    return "\n".join(lines) + "\n"


def _table(cells: list[dict[str, Any]]) -> list[str]:
    unlearners = sorted({cell["unlearner"] for cell in cells}, key=UNLEARNERS.index)
    after = f"sr_oracle after {', '.join(unlearners)}"
    heads = ["lever", "cells", *COLUMNS, "lowest sr_oracle", "lowest diversity_share"]
    lines = [f"| {' | '.join([*heads, after])} |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    for lever in (name for name in LEVERS if any(cell["lever"] == name for cell in cells)):
        rows = [cell for cell in cells if cell["lever"] == lever]
        rows.sort(key=lambda row: UNLEARNERS.index(row["unlearner"]))
        means = {name: sum(row[name] for row in rows) / len(rows) for name in COLUMNS}
        shown = [f"{value:.1f}" if name == "fid_oracle" else f"{value:.3f}" for name, value in means.items()]
        lowest = [f"{min(row[name] for row in rows):.2f}" for name in ("sr_oracle", "diversity_share")]
        each = ", ".join(f"{row['sr_oracle']:.2f}" for row in rows)
        lines.append(f"| {lever} | {len(rows)} | {' | '.join(shown)} | {' | '.join(lowest)} | {each} |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="class 8, retraining, three levers, 2,048 queries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all cells to this file after each of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2])
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 8], help="deleted classes")
    parser.add_argument("--queries", type=int, default=20480, help="query budget")
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=list(LEVERS))
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    classes, queries, levers, unlearners = arguments.classes, arguments.queries, arguments.levers, UNLEARNERS
    if arguments.quick:
        classes, queries, levers, unlearners = [8], 2048, ["random", "ppo", "realism_0.1"], UNLEARNERS[:1]
    result: dict[str, Any] = {"cells": []}
    if arguments.json and arguments.json.exists():
        result = json.loads(arguments.json.read_text(encoding="utf-8"))
    result |= {"command": f"python benchmarks/levers.py --json {arguments.json}", "hardware": hardware()}
    result |= {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    for seed, label in product(arguments.seeds, classes):
        keys = [
            {"seed": seed, "class": label, "unlearner": unlearner, "queries": queries, "lever": lever}
            for lever, unlearner in product(levers, unlearners)
        ]
        missing = [key for key in keys if not any(key.items() <= cell.items() for cell in result["cells"])]
        if not missing:
            continue
        setting = build(seed, label, arguments.cache)
        scorers, own = Levers(setting), own_diversity(setting)
        for key in missing:
            scorer = scorers.scorer(key["lever"], key["unlearner"])
            found = measure(setting, scorer, key["lever"] if key["lever"] in SEARCHERS else "ppo", queries)
            result["cells"].append(key | found | {"diversity_share": found["diversity"] / own})
            print(json.dumps(result["cells"][-1]), flush=True)
            write(arguments.json, result)
    print(markdown(result))
    if arguments.json:
        arguments.json.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
