"""Every shipped preset of a setting against retraining: ``python benchmarks/unlearning.py [--quick] [--json FILE]``.

For each seed the original model and its retrained references are trained once; each preset then unlearns a copy of
the original. The seeds are not those that `retrace tune` chose the presets on. A preset reaches retraining where, on
the mean over the seeds, its forget accuracy is within 0.1 and its retain accuracy within 0.05 of the retrained
models'. With ``--json FILE`` the table is written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from retrace_pl.files import atomic_path, read_json, write_json
from retrace_pl.tuning import (
    FORGET_MARGIN,
    MEASURES,
    RETAIN_MARGIN,
    SeedSetting,
    describe_setting,
    evaluate_seed,
    mean_measures,
    open_settings,
    preset_files,
    read_preset,
    summarise,
)
from retrace_pl.unlearning import METHODS

QUICK = ("negative_gradient", "retain_finetune", "identity")

CAUSES: dict[str, dict[str, str]] = {
    "digits": {
        "identity": "Nothing is unlearned: the anchor at the other end from retraining.",
        "weight_noise": "The noise knows no class: where the deleted one is gone, so are the others.",
        "fisher": "It never looks at the deleted records; in the search, more noise took the retained classes first.",
        "woodfisher": "One first-order step, whose right length depends on how closely the original model fits the "
        "deleted records: the step that suits one original model destroys the next.",
        "ssd": "The threshold that selects enough weights differs from one original model to the next: at alpha 1 and "
        "lambda 1 the models of the two first tuning seeds keep 3 % and 87 % of the deleted class.",
        "cf_k": "Fine-tuning of a part of the network: at the learning rate at which the class fades on one seed, the "
        "retained classes fade on another, or nothing does.",
        "l1_sparse": "The penalty weakens every class alike; how much of it removes the deleted class alone depends on "
        "the original model, and the window is narrower than what separates two seeds.",
        "boundary_expand": "No retained record is seen: the deleted class goes, and its neighbours in part with it.",
        "guard": "The ascent of NegGrad+ with unequal weights: on some seeds retained accuracy falls further than "
        "under NegGrad+ itself.",
    },
}
"""Setting -> preset that does not reach retraining -> why, as far as known."""


def shipped(config: str) -> dict[str, Path]:
    """The presets of a setting; a method that has none there (it may have nothing to tune) with its published one."""
    published, tuned = preset_files(""), preset_files(config)
    return {name: tuned.get(name, published[name]) for name in (*METHODS, *(n for n in tuned if n not in METHODS))}


def measure(config: str, files: dict[str, Path], settings: Sequence[SeedSetting]) -> dict[str, Any]:
    """The table as data: the original and retrained models, then every preset.

    Args:
        config: Name of the audit configuration.
        files: Name -> preset file.
        settings: Data and models of every seed.
    """
    methods: dict[str, Any] = {}
    for name, file in files.items():
        preset = read_preset(file)
        summary = summarise([evaluate_seed(preset, name, setting) for setting in settings])
        tuned = file.parent.name == config
        methods[name] = {"class": preset["class_path"], "tuned": tuned, **summary}
        print(line(name, methods[name]), flush=True)
    return {
        "config": config,
        "setting": describe_setting(config, settings[0].run),
        "seeds": [setting.seed for setting in settings],
        "margins": {"forget_acc": FORGET_MARGIN, "retain_acc": RETAIN_MARGIN},
        "original": mean_measures([setting.original_quality for setting in settings]),
        "retrained": mean_measures([setting.reference for setting in settings]),
        "methods": methods,
    }


def updated(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """An earlier table with some rows measured anew.

    Args:
        file: The earlier table.
        result: The new rows, of the same setting and seeds.
    """
    earlier: dict[str, Any] = read_json(file)
    if any(earlier[key] != result[key] for key in ("setting", "seeds", "margins")):
        raise SystemExit(f"{file} is a table of another setting or of other seeds; leave --only out")
    rows = earlier["methods"] | result["methods"]
    kept = {name: row for name, row in rows.items() if name in shipped(result["config"])}
    return earlier | {"methods": kept}


def with_causes(result: dict[str, Any]) -> dict[str, Any]:
    """The table with what is known of the reasons of those that do not reach retraining."""
    causes = CAUSES.get(result["config"], {})
    rows = {
        name: row | {"cause": None if row["reaches"] else causes.get(name)} for name, row in result["methods"].items()
    }
    return result | {"methods": rows}


def line(name: str, row: dict[str, Any]) -> str:
    """One line of the table."""
    if "quality" not in row:
        return f"| {name} | {' | '.join('-' * 7)} | failed |"
    figures = [*(f"{row['quality'][measure]:.3f}" for measure in MEASURES), f"{row['distance']:.3f}"]
    figures += [f"{row['differences']['retain_acc']:+.3f}", f"{row['seconds']:.1f}"]
    return f"| {name} | {' | '.join(figures)} | {'yes' if row['reaches'] else '**no**'} |"


def markdown(result: dict[str, Any]) -> str:
    """The table, nearest to retraining first, and the reasons of those that do not reach it."""
    header = [*MEASURES, "distance", "retain gap", "s", "reaches"]
    lines = [
        f"# Unlearning presets: {result['setting']}",
        "",
        f"`{result['command']}`; means over seeds {', '.join(map(str, result['seeds']))}, not used in tuning.",
        "Distance: summed absolute difference to the retrained models in the four measures, mean over the seeds.",
        f"Reaches: forget accuracy within {FORGET_MARGIN:g} and retain accuracy within {RETAIN_MARGIN:g} of them.",
        "The row `retrain` is the first of the retrained models: it is compared with a mean that holds it, and its "
        "seconds are those of loading it.",
        "",
        f"| preset | {' | '.join(header)} |",
        "|---|" + "---|" * len(header),
    ]
    lines += [
        f"| *{name} model* | {' | '.join(f'{result[name][m]:.3f}' for m in MEASURES)} | | | | |"
        for name in ("original", "retrained")
    ]
    ranked = sorted(result["methods"].items(), key=lambda item: item[1]["distance"])
    lines += [line(name, row) for name, row in ranked]
    failing = [(name, row) for name, row in ranked if not row["reaches"]]
    if failing:
        lines += ["", "Those that do not reach retraining:", ""]
    for name, row in failing:
        lines.append(f"- `{name}`: {'; '.join(row['shortcomings'])}.{' ' + row['cause'] if row['cause'] else ''}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed and three presets")
    parser.add_argument("--config", default="digits", help="audit configuration that the presets belong to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of audit and data")
    parser.add_argument("--json", type=Path, help="where to write the figures; the table goes beside it")
    parser.add_argument("--folder", type=Path, help="where models are kept (default: runs/unlearning/CONFIG)")
    parser.add_argument("--only", nargs="+", help="measure these presets alone, and keep the other rows of --json FILE")
    arguments, overrides = parser.parse_known_args()
    folder = arguments.folder or Path("runs") / "unlearning" / arguments.config
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    files = shipped(arguments.config)
    wanted = QUICK if arguments.quick else arguments.only or tuple(files)
    files = {name: files[name] for name in wanted}
    settings = open_settings([f"--config={arguments.config}", *overrides], seeds, folder, quiet=True)
    result = {
        "command": " ".join(["python", "benchmarks/unlearning.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {platform.processor() or 'CPU'}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **measure(arguments.config, files, settings),
    }
    if arguments.only and arguments.json:
        result = updated(arguments.json, result)
    result = with_causes(result)
    table = markdown(result)
    if arguments.json:
        write_json(arguments.json, result)
        with atomic_path(arguments.json.with_suffix(".md")) as temporary:
            temporary.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
