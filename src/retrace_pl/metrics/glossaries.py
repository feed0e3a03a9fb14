"""Finds the words for a finished run by the kind of data that its results name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace_pl.metrics.glossary import Glossary, Metric
from retrace_pl.metrics.image_glossary import IMAGES
from retrace_pl.metrics.text.glossary import TEXTS

__all__ = ["GLOSSARIES", "found_words", "glossary_of", "metric_words"]

GLOSSARIES: dict[str, Glossary] = {glossary.domain: glossary for glossary in (IMAGES, TEXTS)}
"""Kind of data -> its words."""


def glossary_of(metrics: Mapping[str, Any]) -> Glossary:
    """Words for a run; results that name no kind of data are about images, as all of earlier versions are.

    Args:
        metrics: The content of ``metrics.json``.
    """
    return GLOSSARIES.get(str(metrics.get("domain") or IMAGES.domain), IMAGES)


def metric_words(name: str) -> Metric | None:
    """Words for a metric of any kind of data, or None for an unknown one.

    Args:
        name: Its key in ``metrics.json``.
    """
    return next((words.metrics[name] for words in GLOSSARIES.values() if name in words.metrics), None)


def found_words(name: str) -> str:
    """What a verdict says of candidates that a success rate counts; empty for what is no success rate.

    Args:
        name: Key of a metric in ``metrics.json``.
    """
    metric = metric_words(name)
    return "" if metric is None else metric.found
