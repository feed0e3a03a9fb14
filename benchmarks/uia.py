"""Where unlearning inversion works: ``python benchmarks/uia.py [--seeds 0 1 2] [--steps N] [--json FILE]``.

scikit-learn digits at 8x8, digit 3, a fully connected network of one hidden layer: UIA on models that forgot one record
or the whole class in ways whose parameter difference is, is not, or is in part the forget gradient. The public inputs
hold no digit 3 and the label is inferred. With ``--json FILE`` the table is written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from retrace_pl.attacks import UIA, AttackContext
from retrace_pl.files import atomic_path, write_json
from retrace_pl.traces import ModelPair

DELETED = 3
COLUMNS = (
    "forget_acc",
    "retain_acc",
    "label_right",
    "cosine",
    "random_cosine",
    "relative_difference",
    "mse",
    "sr_oracle",
)


def network(width: int, seed: int) -> nn.Sequential:
    """A fully connected classifier of 8x8 images."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Adam with learning rate 0.01 on batches of 50."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(50):
            optimizer.zero_grad()
            cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def ascend(model: nn.Module, inputs: Tensor, lr: float = 0.1) -> nn.Module:
    """One step of gradient ascent on records of the deleted class."""
    model = copy.deepcopy(model)
    loss = cross_entropy(model(inputs), torch.full((len(inputs),), DELETED))
    with torch.no_grad():
        for value, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            value += lr * gradient
    return model


def negative_gradient(model: nn.Module, retain: tuple[Tensor, Tensor], forget: Tensor, seed: int) -> nn.Module:
    """Five epochs of NegGrad+ with a = 0.95."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    labels = torch.full((32,), DELETED)
    for _ in range(5):
        for rows in torch.randperm(len(retain[0]), generator=order).split(64):
            some = torch.randint(len(forget), (32,), generator=order)
            optimizer.zero_grad()
            kept = cross_entropy(model(retain[0][rows]), retain[1][rows])
            (0.95 * kept - 0.05 * cross_entropy(model(forget[some]), labels)).backward()
            optimizer.step()
    return model


def measure(seed: int, steps: int) -> dict[str, dict[str, float]]:
    """Every way of forgetting on one split of the data."""
    inputs, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(inputs / 16, dtype=torch.float32).view(-1, 1, 8, 8)[order], torch.tensor(labels)[order]
    deleted = y[:600] == DELETED
    forget, retain = x[:600][deleted], (x[:600][~deleted], y[:600][~deleted])
    test, test_labels = x[600:1200], y[600:1200]
    model = train(network(64, seed), x[:600], y[:600], 30, seed)
    evaluator = train(network(128, 100 + seed), x[1200:], y[1200:], 40, seed)
    forgetful = {
        "one step of ascent, one record": ascend(model, forget[:1]),
        "one step of ascent, the class": ascend(model, forget),
        "negative gradient, the class": negative_gradient(model, retain, forget, seed),
        "fine-tuning, the class": train(copy.deepcopy(model), *retain, 10, seed),
        "retraining, the class": train(network(64, 50 + seed), *retain, 30, seed),
    }
    rows = {}
    for name, unlearned in forgetful.items():
        context = AttackContext(
            pair=ModelPair(copy.deepcopy(model), unlearned, "white"),
            scorer=lambda inputs: None,
            generator=nn.Identity(),
            public=test[test_labels != DELETED],
            seed=seed,
        )
        found = UIA(steps=steps, restarts=3).reconstruct(context)
        target = forget[:1] if "record" in name else forget
        distances = (found.inputs[:, None] - target[None]).square().flatten(2).mean(2).min(1).values
        with torch.no_grad():
            right = unlearned(test).argmax(1) == test_labels
            seen_as = evaluator(found.inputs).argmax(1)
        rows[name] = {
            "forget_acc": float(right[test_labels == DELETED].float().mean()),
            "retain_acc": float(right[test_labels != DELETED].float().mean()),
            "label_right": float(found.facts["labels"][0] == DELETED),
            **{column: found.facts[column] for column in ("cosine", "random_cosine", "relative_difference")},
            "mse": float(distances[0]),
            "sr_oracle": float((seen_as == DELETED).float().mean()),
        }
        print(f"seed {seed}: {name}: {rows[name]}", flush=True)
    mean = forget.mean(0)
    others = (forget[:, None] - forget[None]).square().flatten(2).mean(2)
    floors = {"class mean": float((forget - mean).square().mean()), "two records of the class": float(others.mean())}
    return rows | {f"floor: {name}": {"mse": value} for name, value in floors.items()}


def markdown(result: dict[str, Any]) -> str:
    """The mean over the seeds as a table."""
    lines = [
        "# Unlearning inversion on a fully connected network",
        "",
        f"`{result['command']}`; scikit-learn digits, digit 3, {result['steps']} steps, three restarts; means over "
        f"seeds {', '.join(result['seeds'])}. `mse`: best image to the nearest deleted record; `sr_oracle`: "
        "images of all restarts that an independent classifier calls a 3.",
        "",
        f"| f- | {' | '.join(COLUMNS)} |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    seeds = list(result["seeds"].values())
    for name in seeds[0]:
        cells = []
        for column in COLUMNS:
            values = [seed[name][column] for seed in seeds if column in seed[name]]
            cells.append(f"{sum(values) / len(values):.3f}" if values else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of data, models and attack")
    parser.add_argument("--steps", type=int, default=500, help="steps of each restart")
    parser.add_argument("--json", type=Path, help="where to write the figures; the table goes beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": " ".join(["python", "benchmarks/uia.py", *sys.argv[1:]]),
        "steps": arguments.steps,
        "seeds": {str(seed): measure(seed, arguments.steps) for seed in arguments.seeds},
    }
    table = markdown(result)
    if arguments.json:
        write_json(arguments.json, result)
        with atomic_path(arguments.json.with_suffix(".md")) as temporary:
            temporary.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
