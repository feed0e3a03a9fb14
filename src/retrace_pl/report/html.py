"""The report as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retrace_pl.audit import CONTROLS, Status, decide
from retrace_pl.files import atomic_path
from retrace_pl.report.calibration import calibration_page
from retrace_pl.report.figures import (
    auroc_picture,
    baseline_curve_picture,
    curve_pictures,
    leakage_picture,
    success_picture,
    trace_pictures,
)
from retrace_pl.report.gallery import best_reconstruction, panels
from retrace_pl.report.gaps import gap_rows
from retrace_pl.report.glossary import ACCESS, format_value
from retrace_pl.report.other_attacks import other_attacks
from retrace_pl.report.palette import DARK, LIGHT
from retrace_pl.report.run_data import RunData
from retrace_pl.report.significance import kind_words, own_class_sentence, significance_sentences
from retrace_pl.report.tables import leakage_rows, metric_table, quality_rows, split_table

__all__ = ["VERDICTS", "render_report", "write_report"]

VERDICTS = {
    Status.LEAK.value: ("Leak", "!"),
    Status.NO_EVIDENCE.value: ("No evidence of a leak", "○"),
    Status.NOT_JUDGED.value: ("Not judged", "?"),
    Status.INVALID.value: ("Invalid audit", "×"),  # noqa: RUF001 - a symbol, not a letter
}
"""Word and symbol of each verdict."""

_STYLES = {Status.NOT_JUDGED.value: Status.NO_EVIDENCE.value}
"""Verdict -> the one whose colours it has."""


def write_report(run_folder: Path) -> Path:
    """Writes ``report.html`` into a run folder from its metrics, curves, candidates and configuration.

    Args:
        run_folder: A folder with at least ``metrics.json``.

    Returns:
        Path of the report; an earlier one is replaced only once the new one is complete.

    Raises:
        InputError: If the folder has no ``metrics.json``.
        RunError: If a file is damaged or the report cannot be written.
    """
    path = run_folder / "report.html"
    text = render_report(RunData.load(run_folder))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render_report(run: RunData) -> str:
    """The report as text; every value from the run is escaped."""
    environment = Environment(
        loader=PackageLoader("retrace_pl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(**_context(run))


def _context(run: RunData) -> dict[str, Any]:
    verdict = str(run.get("verdict"))
    word, symbol = VERDICTS.get(verdict, (verdict, "?"))
    recomputed = decide(run.metrics)
    names, split_rows = split_table(run)
    return {
        "run": run,
        "title": run.title,
        "verdict": _STYLES.get(verdict, verdict if verdict in VERDICTS else "invalid"),
        "verdict_word": word,
        "verdict_symbol": symbol,
        "reason": str(run.get("verdict_reason") or recomputed.reason),
        "disagrees": recomputed.status.value != verdict,
        "recomputed": recomputed,
        "access": ACCESS.get(str(run.get("setting.access")), "unknown"),
        "public": _public(run),
        "deleted": _deleted(run),
        "controls": CONTROLS,
        "ran": {name: isinstance(run.get(f"controls.{name}"), dict) for name in CONTROLS},
        "inapplicable": run.get("inapplicable_controls") or {},
        "kinds": kind_words(run) if verdict == Status.LEAK.value else "",
        "significance": significance_sentences(run),
        "own_class": own_class_sentence(run),
        "calibration": calibration_page(run),
        "best": best_reconstruction(run),
        "best_controls": [(arm, best_reconstruction(run, arm)) for arm in ("prior", "matched_retrain")],
        "panels": panels(run),
        "gaps": gap_rows(run),
        "success": success_picture(run),
        "leakage": leakage_picture(run),
        "leakage_rows": leakage_rows(run),
        "traces": trace_pictures(run),
        "auroc": auroc_picture(run),
        "curves": curve_pictures(run),
        "others": other_attacks(run),
        "other_curves": baseline_curve_picture(run),
        "instance": metric_table(run, "instance"),
        "distribution": metric_table(run, "distribution"),
        "words": run.glossary,
        "has_texts": bool(run.texts),
        "quality": quality_rows(run),
        "accuracies": _accuracies(run),
        "split_names": names,
        "split_rows": split_rows,
        "dropped": _dropped(run),
        "settings": _settings(run),
        "light": LIGHT,
        "dark": DARK,
        "format_value": format_value,
    }


def _deleted(run: RunData) -> str:
    """What was deleted, in one phrase."""
    count, classes = run.get("setting.deleted_records"), run.get("setting.deleted_classes") or []
    named = f"{'classes' if len(classes) > 1 else 'class'} {', '.join(map(str, classes))}"
    records = f"{count} record{'' if count == 1 else 's'}" if count is not None else "an unknown number of records"
    if classes:
        records += f", all of {named}" if run.get("setting.deletion") == "class" else f" out of {named}"
    return f"{records} ({run.get('setting.data')})" if run.get("setting.data") else records


def _public(run: RunData) -> tuple[str, str] | None:
    """What the public set shared with the deleted data: (heading, sentence), or None where it was not recorded."""
    included = run.get("setting.public_includes_deleted")
    if included is None:
        return None
    what = "the deleted class" if run.get("setting.deletion") == "class" else "the classes of the deleted records"
    if included:
        return (
            f"The public set includes other examples of {what}.",
            "The generator can draw them without any leak: read the excess over prior only, not the raw success.",
        )
    return (
        f"The public set has no example of {what}.",
        "The generator never saw one: it comes close to one by chance, or led there by the two models. Prior only "
        "shows how far chance goes.",
    )


def _accuracies(run: RunData) -> list[tuple[str, str]]:
    names = (
        ("original", "original"),
        ("unlearned", "unlearned"),
        ("retrained", "retrained"),
        ("evaluator", "evaluator"),
    )
    values = ((title, run.number(f"models.{key}.test_acc")) for key, title in names)
    return [(title, "not run" if value is None else format_value(value, percent=True)) for title, value in values]


def _dropped(run: RunData) -> int:
    """Copies of other records that were left out, over all splits."""
    counts = run.get("dropped_copies")
    return sum(int(count or 0) for count in counts.values()) if isinstance(counts, dict) else int(counts or 0)


def _settings(run: RunData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the settings section, as text."""
    groups = []
    for title, key in (
        ("Setting", "setting"),
        ("Encoding", "encoding"),
        ("Budget", "budget"),
        ("Seeds", "seeds"),
        ("Versions", "versions"),
        ("Seconds per stage", "seconds"),
    ):
        content = run.get(key)
        if isinstance(content, dict) and content:
            groups.append((title, [(str(name).replace("_", " "), _text(value)) for name, value in content.items()]))
    return groups


def _text(value: Any) -> str:
    if value is None:
        return "not applicable"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    return str(value)
