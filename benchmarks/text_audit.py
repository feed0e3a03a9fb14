"""Audits texts at every access level: ``python benchmarks/text_audit.py --data FOLDER [--json FILE]``.

The packaged audit ag_news_tiny is run as a user would run it, once per access level, every run in a process of its own.
The runs share their models through a cache: the first one trains them, the others only search and judge. For every
level: the attack, its rivals and the controls (prior only, null pair, matched retrain) by BLEU, ROUGE-L, MMD, share
recognised as the deleted class, distinct-n, perplexity and copied spans, beside unseen texts of the deleted class; the
excess leakage with its interval, the verdict and its reason; reconstructions beside the deleted texts nearest to them;
wall time, and processor time of the process and all it started.

With ``--json FILE`` the figures are written there and the tables beside it as Markdown, after every level.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrace_pl.files import atomic_path, write_json

ACCESS = ("white", "gray", "black")
FIGURES = (
    "sr_oracle",
    "bleu",
    "bleu_corpus",
    "rouge_l",
    "mmd",
    "distinct_1",
    "distinct_2",
    "perplexity",
    "mean_span",
    "longest_span",
    "sr_verbatim",
)
CONTROLS = {"prior": "prior only", "null": "null pair", "matched_retrain": "matched retrain"}
SHOWN = 6


def run(access: str, options: argparse.Namespace) -> dict[str, float]:
    """One audit in a process of its own; its wall time and processor time in seconds.

    Raises:
        SystemExit: It failed.
    """
    changed = [part for pair in options.set for part in (f"--{pair.partition('=')[0]}", pair.partition("=")[2])]
    command = [sys.executable, "-m", "retrace_pl", "audit", "--config", "ag_news_tiny", "--access", access, "--quiet"]
    command += ["--output", str(options.runs / access), "--cache", str(options.runs / "cache"), *changed]
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run(command, check=False, env=os.environ | {"RETRACE_DATA": options.data}).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code != 0:
        raise SystemExit(code)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": time.monotonic() - wall, "cpu_seconds": spent}


def summary(folder: Path) -> dict[str, Any]:
    """What of one finished audit goes into the tables."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    arms = {"attack (PPO)": metrics["attack"]}
    arms |= {f"rival: {name}": arm for name, arm in metrics["rivals"].items()}
    arms |= {title: metrics["controls"][name] for name, title in CONTROLS.items()}
    rows = {name: {figure: arm["distribution"].get(figure) for figure in FIGURES} for name, arm in arms.items()}
    rows["unseen texts of the class"] = {figure: metrics["floors"].get(f"heldout_{figure}") for figure in FIGURES}
    return {
        "arms": rows,
        "models": {name: model["test_acc"] for name, model in metrics["models"].items()},
        "leakage": metrics["leakage"],
        "verdict": metrics["verdict"],
        "verdict_reason": metrics["verdict_reason"],
        "checks": metrics["checks"],
        "budget": metrics["budget"],
        "seeds": metrics["seeds"],
        "versions": metrics["versions"],
        "reconstructions": {
            name: [list(pair) for pair in zip(texts[f"{name}.distribution"], texts[f"{name}.nearest"], strict=True)][
                :SHOWN
            ]
            for name in ("attack", "prior")
        },
    }


def table(row: dict[str, Any]) -> list[str]:
    """The arms of one access level as a Markdown table."""
    lines = [f"| arm | {' | '.join(FIGURES)} |", "|---|" + "---|" * len(FIGURES)]
    for name, figures in row["arms"].items():
        cells = " | ".join("-" if figures[figure] is None else f"{figures[figure]:.3g}" for figure in FIGURES)
        lines.append(f"| {name} | {cells} |")
    return lines


def markdown(result: dict[str, Any]) -> str:
    """Everything measured, as Markdown."""
    lines = [f"`{result['command']}`, {result['date']}, {result['hardware']}.", ""]
    for access, row in result["audits"].items():
        kinds = {kind: value for kind, value in row["leakage"].items() if value is not None}
        leak = ", ".join(f"{kind} {v['value']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for kind, v in kinds.items())
        accuracies = ", ".join(f"{name} {value:.1%}" for name, value in row["models"].items())
        lines += [
            f"## {access.capitalize()} box",
            "",
            f"Verdict: **{row['verdict']}**. {row['verdict_reason']}",
            "",
            *table(row),
            "",
            f"- Leakage: {leak}.",
            f"- Accuracy on unseen texts: {accuracies}.",
            f"- {row['budget']['queries']} queries a search, {row['budget']['repeats']} repeats, audit seed "
            f"{row['seeds']['audit']}, data seed {row['seeds']['data']}.",
            f"- Wall time {row['wall_seconds'] / 60:.1f} minutes, processor time {row['cpu_seconds'] / 60:.1f} minutes"
            f"{'' if access == next(iter(result['audits'])) else ' (models taken from the first audit)'}.",
        ]
        for name, pairs in row["reconstructions"].items():
            title = "Reconstructions" if name == "attack" else "Samples of the prior"
            lines += ["", f"{title}, each beside the deleted text that shares most with it:", ""]
            lines += [f"- {ours}<br>→ {theirs}" for ours, theirs in pairs]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Runs the audits, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds AG News as ag_news/*.parquet")
    parser.add_argument("--access", nargs="+", choices=ACCESS, default=list(ACCESS))
    parser.add_argument("--runs", type=Path, default=Path("runs/text_audit"), help="where the run folders go")
    parser.add_argument("--set", nargs="*", default=[], help="settings to change, as NAME=VALUE")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": " ".join(
            ["python benchmarks/text_audit.py --data FOLDER", *(["--set"] if options.set else []), *options.set]
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "audits": {},
    }
    for access in options.access:
        spent = run(access, options)
        result["audits"][access] = {**summary(options.runs / access), **spent}
        if options.json:
            write_json(options.json, result)
            with atomic_path(options.json.with_suffix(".md")) as temporary:
                temporary.write_text(markdown(result), encoding="utf-8")
    sys.stdout.write(markdown(result))


if __name__ == "__main__":
    main()
