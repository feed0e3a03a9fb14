"""What the report shows of candidates: reconstructions beside their nearest deleted records, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrace_pl.audit import CONTROLS
from retrace_pl.report.figures import arm_number, arm_path
from retrace_pl.report.glossary import arm_title, format_value
from retrace_pl.report.media import image_uri
from retrace_pl.report.passages import Passage, pair_lines, passage, passage_pair
from retrace_pl.report.run_data import RunData, can_be_drawn
from retrace_pl.report.significance import p_value_lines

__all__ = ["Best", "Panel", "Picture", "Shot", "best_reconstruction", "panels", "picture_panel"]

SHOWN, SHOWN_TEXTS = 12, 6
_SAME_MSE = 0.02


@dataclass(frozen=True)
class Picture:
    """An embedded picture with its alternative text."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Shot:
    """A candidate and the deleted record nearest to it.

    Args:
        candidate: The candidate.
        nearest: The record, or None where the run did not store it.
        lines: Caption, one short line each.
        hit: Whether the evaluator took it for deleted data; None where that was not stored.
    """

    candidate: Picture | Passage
    nearest: Picture | Passage | None
    lines: tuple[str, ...]
    hit: bool | None


@dataclass(frozen=True)
class Panel:
    """One arm of the comparison in pictures or texts.

    Args:
        arm: Its id.
        title: Its heading.
        summary: What it is, in one line.
        facts: Success, mean score and distance of the whole set in words.
        shots: The first candidates; empty if there are none.
        total: Candidates in the whole set.
        missing: Why there are no shots, or empty.
    """

    arm: str
    title: str
    summary: str
    facts: str
    shots: tuple[Shot, ...]
    total: int
    missing: str


@dataclass(frozen=True)
class Best:
    """The single best reconstruction, the record nearest to it, and what to call that record."""

    shot: Shot
    nearest_label: str


def panels(run: RunData) -> list[Panel]:
    """The attack, then prior only, matched retrain and identity, with up to twelve candidates each."""
    found = "Candidates the search found through the audited pair."
    arms = {"attack": found} | {arm: CONTROLS[arm].summary for arm in ("prior", "matched_retrain", "identity")}
    return [picture_panel(run, arm, summary) for arm, summary in arms.items()]


def picture_panel(run: RunData, arm: str, summary: str, shown: int = SHOWN) -> Panel:
    """One arm with its first candidates.

    Args:
        run: The run.
        arm: ``attack``, a control, or ``baselines.<name>``.
        summary: What it is, in one line.
        shown: Most candidates to show.
    """
    texts = run.texts.get(f"{arm}.distribution")
    if texts:
        told = tuple(_told(run, arm, texts, index) for index in range(min(shown, SHOWN_TEXTS, len(texts))))
        return Panel(arm, arm_title(arm), summary, _facts(run, arm), told, len(texts), "")
    images = run.images(f"{arm}.distribution")
    ran = isinstance(run.get(arm_path(arm)), dict)
    if images is None:
        stored = run.tensors.get(f"{arm}.distribution")
        why = "not run" if not ran else f"no {run.glossary.shown} were stored"
        why = "these candidates are not pictures" if stored is not None and not can_be_drawn(stored) else why
        return Panel(arm, arm_title(arm), summary, _facts(run, arm) if ran else "", (), 0, why)
    nearest = run.images(f"{arm}.nearest")
    if nearest is not None and nearest.shape != images.shape:
        nearest = None
    shots = tuple(_shot(run, arm, images, nearest, index) for index in range(min(shown, len(images))))
    return Panel(arm, arm_title(arm), summary, _facts(run, arm), shots, len(images), "")


def _facts(run: RunData, arm: str) -> str:
    words = run.glossary
    known = (
        ("success", arm_number(run, arm, "distribution.sr_oracle"), True),
        ("mean score", arm_number(run, arm, "distribution.score"), False),
        (words.closeness_title, arm_number(run, arm, f"distribution.{words.closeness}"), False),
    )
    return " · ".join(f"{name} {format_value(value, percent)}" for name, value, percent in known if value is not None)


def _told(run: RunData, arm: str, texts: Sequence[str], index: int) -> Shot:
    """A candidate text and its nearest deleted text."""
    title = arm_title(arm)
    score = None if arm == "prior" else _entry(run, f"{arm}.scores", index)
    hit = _entry(run, f"{arm}.success", index)
    lines = [] if score is None else [f"s {score:.2f}"]
    label = f"{title}, candidate {index + 1}"
    nearest = run.texts.get(f"{arm}.nearest") or []
    if index >= len(nearest):
        candidate, record = passage(texts[index], label), None
    else:
        labels = (label, f"Deleted text nearest to candidate {index + 1} of {title}")
        candidate, record = passage_pair(texts[index], nearest[index], labels)
        lines += pair_lines(texts[index], nearest[index])
    lines += p_value_lines(run, arm, index)
    return Shot(candidate, record, tuple(lines), None if hit is None else bool(hit))


def _shot(run: RunData, arm: str, images: NDArray[np.float32], nearest: NDArray[np.float32] | None, index: int) -> Shot:
    title = arm_title(arm)
    score = None if arm == "prior" else _entry(run, f"{arm}.scores", index)
    hit = _entry(run, f"{arm}.success", index)
    lines = [] if score is None else [f"s {score:.2f}"]
    record = None
    if nearest is not None:
        distance = float(np.mean((images[index] - nearest[index]) ** 2))
        lines.append(f"MSE {distance:.2g}")
        record = Picture(image_uri(nearest[index]), f"Deleted record nearest to candidate {index + 1} of {title}")
    lines += p_value_lines(run, arm, index)
    verdict = "" if hit is None else ", recognised by the evaluator" if hit else ", not recognised by the evaluator"
    alt = f"{title}, candidate {index + 1}{verdict}"
    return Shot(Picture(image_uri(images[index]), alt), record, tuple(lines), None if hit is None else bool(hit))


def _entry(run: RunData, name: str, index: int) -> float | None:
    array = run.tensors.get(name)
    return float(array[index]) if array is not None and array.ndim == 1 and index < len(array) else None


def best_reconstruction(run: RunData, arm: str = "attack") -> Best | None:
    """The single best candidate of an arm with its nearest deleted record.

    For pictures: without a stored ``<arm>.instance_nearest`` the closest of the records beside the distribution-level
    candidates is taken, and called the nearest one only if its distance is the one in ``metrics.json``.
    """
    if run.texts.get(f"{arm}.instance"):
        return _best_text(run, arm)
    images = run.images(f"{arm}.instance")
    if images is None:
        return None
    image, nearest, label = images[0], run.images(f"{arm}.instance_nearest"), "nearest deleted record"
    record = None if nearest is None or nearest[0].shape != image.shape else nearest[0]
    if record is None:
        shown = run.images(f"{arm}.nearest")
        if shown is not None and shown.shape[1:] == image.shape:
            record = shown[int(np.argmin(((shown - image) ** 2).mean(axis=(1, 2, 3))))]
            stored = run.number(f"{arm_path(arm)}.instance.mse")
            distance = float(np.mean((record - image) ** 2))
            same = stored is not None and abs(distance - stored) <= _SAME_MSE * stored
            label = label if same else "closest of the records shown below"
    title = arm_title(arm)
    picture = None if record is None else Picture(image_uri(record), f"{label.capitalize()} of the best of {title}")
    candidate = Picture(image_uri(image), f"Best single candidate of {title}")
    return Best(Shot(candidate, picture, _best_lines(run, arm), None), label)


def _best_text(run: RunData, arm: str) -> Best:
    title, label = arm_title(arm), "nearest deleted text"
    text, nearest = run.texts[f"{arm}.instance"][0], run.texts.get(f"{arm}.instance_nearest") or []
    named = f"Best single candidate of {title}"
    if not nearest:
        return Best(Shot(passage(text, named), None, _best_lines(run, arm), None), label)
    labels = (named, f"{label.capitalize()} of the best of {title}")
    candidate, record = passage_pair(text, nearest[0], labels)
    return Best(Shot(candidate, record, _best_lines(run, arm), None), label)


def _best_lines(run: RunData, arm: str) -> tuple[str, ...]:
    """Score, closeness and success of the single best candidate, as far as they are known."""
    words = run.glossary
    known = (
        ("score", arm_number(run, arm, "instance.score"), False),
        (words.closeness_short, arm_number(run, arm, f"instance.{words.closeness}"), False),
        ("success", arm_number(run, arm, "instance.sr_oracle"), True),
    )
    return tuple(f"{name} {format_value(value, percent)}" for name, value, percent in known if value is not None)
