"""Means over the seeds and forget classes of an arena, with bootstrap intervals over both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace_pl.arena.measures import Measure, number
from retrace_pl.arena.record import CellRecord
from retrace_pl.audit.bootstrap import percentile_interval

Floats = NDArray[np.float64]
Cluster = tuple[int, str]
"""Seed and forget class."""

RESAMPLING = (
    "Seeds and forget classes are resampled independently of each other, with replacement (a two-way bootstrap), and "
    "the cells of the drawn seeds and classes averaged; a leakage is also drawn within each cell's own interval, which "
    "covers the candidates of its searches. Access levels of one seed and class are averaged first. An interval over "
    "few seeds is too narrow: over three it is hardly wider than their range, which holds the true mean about 3 times "
    "in 4, whatever the level says."
)
ONE_CLUSTER = "one seed and class: no interval"


@dataclass(frozen=True)
class Summary:
    """A mean over cells.

    Args:
        value: mean over seeds and forget classes; None where no cell has the figure.
        low: lower end of the interval; None with fewer than two seeds and classes.
        high: upper end.
        clusters: pairs of seed and forget class that have the figure.
    """

    value: float | None
    low: float | None
    high: float | None
    clusters: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types for `arena.json`; `note` says why there is no interval."""
        note = "" if self.low is not None else ONE_CLUSTER if self.value is not None else "no cell has it"
        return {**vars(self), "note": note}


def cluster_of(record: CellRecord) -> Cluster:
    """Seed and forget class of a cell."""
    return record.seed, str(record.forget_class)


def clusters_of(records: Sequence[CellRecord], per_cluster: int) -> dict[Cluster, list[CellRecord]]:
    """Finished cells by seed and forget class.

    Args:
        records: cells of one method, strength and attack.
        per_cluster: access levels that have to be there; a seed and class without all of them is left out.
    """
    found: dict[Cluster, list[CellRecord]] = {}
    for record in records:
        if record.done:
            found.setdefault(cluster_of(record), []).append(record)
    return {cluster: cells for cluster, cells in sorted(found.items()) if len(cells) == per_cluster}


def summarise(
    measure: Measure, clusters: Mapping[Cluster, Sequence[CellRecord]], *, resamples: int, level: float
) -> Summary:
    """Mean of a measure over clusters, with a two-way bootstrap interval; see `RESAMPLING`.

    The two-way resampling is that of Owen (2007), "The pigeonhole bootstrap": crossed factors are resampled each by
    itself, which is conservative for their means.

    Args:
        measure: the measure.
        clusters: cells by seed and forget class; the figure of a cluster is the mean over its cells.
        resamples: bootstrap replicates.
        level: coverage of the interval, in (0, 1).

    Returns:
        The mean; a cluster of which any cell lacks the figure is left out.
    """
    taken = {cluster: [measure.take(record) for record in cells] for cluster, cells in clusters.items()}
    kept = {cluster: [value for value in values if value is not None] for cluster, values in taken.items()}
    kept = {cluster: values for cluster, values in kept.items() if values and len(values) == len(clusters[cluster])}
    if not kept:
        return Summary(None, None, None, 0)
    mean = float(np.mean([np.mean(values) for values in kept.values()]))
    if len(kept) == 1:
        return Summary(mean, None, None, 1)
    rng = np.random.default_rng(0)
    seeds, classes = sorted({seed for seed, _ in kept}), sorted({name for _, name in kept})
    weights = _counts(len(seeds), resamples, rng)[:, :, None] * _counts(len(classes), resamples, rng)[:, None, :]
    values, present = np.zeros((resamples, len(seeds), len(classes))), np.zeros((len(seeds), len(classes)))
    for (seed, name), inside in kept.items():
        place = seeds.index(seed), classes.index(name)
        present[place] = 1
        values[:, *place] = np.mean(inside) + _noise(measure, clusters[seed, name], resamples, rng)
    drawn = (weights * present).sum(axis=(1, 2))
    sums = (weights * present * values).sum(axis=(1, 2))
    replicates: Floats = sums[drawn > 0] / drawn[drawn > 0]
    if not replicates.size:  # a handful of resamples that met no cell of a sparse table
        return Summary(mean, None, None, len(kept))
    return Summary(mean, *percentile_interval(replicates, mean, level), len(kept))


def _counts(units: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each unit is drawn: [resamples, units]."""
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def _noise(measure: Measure, cells: Sequence[CellRecord], resamples: int, rng: np.random.Generator) -> Floats:
    """Deviation of a cluster's figure within its cells' own intervals, as a normal of two halves: [resamples]."""
    total = np.zeros(resamples)
    for record in cells:
        if measure.interval is None:
            continue
        value, low, high, level = (number(record, f"{measure.interval}.{key}") for key in _ENDS)
        if value is None or low is None or high is None or level is None or not 0 < level < 1:
            continue
        scale = NormalDist().inv_cdf((1 + level) / 2)
        steps = rng.standard_normal(resamples)
        total += np.where(steps < 0, max(value - low, 0.0), max(high - value, 0.0)) * steps / scale
    return total / len(cells)


_ENDS = ("value", "low", "high", "level")
