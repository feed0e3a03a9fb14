"""Runs the packaged audits at every access level and prints one table: attack, controls, rivals, leakage, verdict.

    python benchmarks/audits.py --json benchmarks/results/audits.json

Models, generator and evaluator of a configuration are trained once and shared by its access levels. Fashion-MNIST is
downloaded to RETRACE_DATA (default: a cache folder) unless it is there.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrace_pl.cli import main as retrace

CONFIGS = ("digits", "fashion_mnist")
ACCESS = ("white", "gray", "black")
FIGURES = ("sr_oracle", "sr_mse", "mse", "cs", "fid_oracle", "diversity")


def run(config: str, access: str, folder: Path, donor: Path | None, options: list[str]) -> dict[str, Any]:
    """One audit; its trained stages are copied from `donor`, an audit of the same configuration, where there is one."""
    if donor is not None and not folder.exists():
        shutil.copytree(donor, folder)
    code = retrace(["audit", "--config", config, "--access", access, "--output", str(folder), *options])
    if code != 0:
        raise SystemExit(code)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def summary(config: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of one audit that go into the table."""
    baselines = {f"baseline {name}": found for name, found in metrics["baselines"].items()}
    arms = {"attack": metrics["attack"], **metrics["controls"], **metrics["rivals"], **baselines}
    arms = {name: arm for name, arm in arms.items() if arm.get("applicable", True)}
    return {
        "config": config,
        "access": metrics["setting"]["access"],
        "unlearning": {"method": metrics["setting"]["unlearning"], **metrics["unlearning"]},
        "original": metrics["original"],
        "calibration_auroc": metrics["calibration"]["auroc"],
        "arms": {name: {figure: arm["distribution"][figure] for figure in FIGURES} for name, arm in arms.items()},
        "instance": {name: {figure: arm["instance"][figure] for figure in FIGURES} for name, arm in arms.items()},
        "floors": metrics["floors"],
        "leakage": metrics["leakage"],
        "verdict": metrics["verdict"],
        "verdict_reason": metrics["verdict_reason"],
        "budget": metrics["budget"],
        "seeds": metrics["seeds"],
        "seconds": metrics["seconds"],
        "versions": metrics["versions"],
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, one line per arm."""
    lines = [f"| audit | access | arm | {' | '.join(FIGURES)} |", "|---|---|---|" + "---|" * len(FIGURES)]
    for row in rows:
        for name, figures in row["arms"].items():
            cells = " | ".join("-" if figures[f] is None else f"{figures[f]:.3g}" for f in FIGURES)
            lines.append(f"| {row['config']} | {row['access']} | {name} | {cells} |")
    lines.append("")
    for row in rows:
        kinds = {kind: value for kind, value in row["leakage"].items() if value is not None}
        leak = ", ".join(f"{kind} {v['value']:+.2f} [{v['low']:+.2f}, {v['high']:+.2f}]" for kind, v in kinds.items())
        budget, seeds = row["budget"], row["seeds"]
        lines.append(
            f"- {row['config']}, {row['access']}: **{row['verdict']}**; leakage {leak}; {budget['queries']} queries, "
            f"{budget['repeats']} repeats, audit seed {seeds['audit']}, data seed {seeds['data']}. "
            f"{row['verdict_reason']}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits alone, one repeat, 4,096 queries")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--runs", type=Path, default=Path("runs/audits"), help="where the run folders go")
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), help="packaged configurations to run")
    arguments = parser.parse_args()
    configs = ["digits"] if arguments.quick else arguments.configs
    options = ["--queries", "4096", "--audit.repeats", "1"] if arguments.quick else []
    rows = []
    for config in configs:
        donor: Path | None = None
        for access in ACCESS:
            folder = arguments.runs / f"{config}-{access}{'-quick' if arguments.quick else ''}"
            rows.append(summary(config, run(config, access, folder, donor, options)))
            donor = donor or folder
    result = {
        "command": " ".join(["python", "benchmarks/audits.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {platform.processor() or 'CPU'}",
        "audits": rows,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
