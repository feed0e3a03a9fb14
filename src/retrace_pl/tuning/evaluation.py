"""How near a preset comes to retraining on given seeds: what tables and tests of presets are made of."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from retrace_pl.pipeline.parsing import one_line
from retrace_pl.tuning.objective import WORST, differences, distance, mean_measures, shortcomings
from retrace_pl.tuning.setting import SeedSetting
from retrace_pl.tuning.target import build_method


def evaluate_seed(settings: Mapping[str, Any], name: str, setting: SeedSetting) -> dict[str, Any]:
    """Runs a method on one seed; whatever breaks it is an answer, not an error.

    Args:
        settings: The method in class_path/init_args form.
        name: What error messages call it.
        setting: Data and models of the seed.

    Returns:
        `seed`, `reference` (measures of the retrained models), `failure` (None, or what went wrong), and, unless
        it failed, `quality`, `differences`, `distance` and `seconds` (of unlearning and measuring).
    """
    reference, _ = setting.reference, setting.original  # a training of theirs that fails is no failure of the method
    start = time.perf_counter()
    result: dict[str, Any] = {"seed": setting.seed, "reference": reference, "failure": None}
    try:
        quality = setting.quality(setting.unlearn(build_method(settings, name)))
    except Exception as error:  # settings can break a method in any way, and a search or table must go on
        return result | {"failure": f"{type(error).__name__}: {one_line(error)}"}
    gaps = differences(quality, reference)
    if not all(map(math.isfinite, gaps.values())):
        return result | {"failure": "a measure is not finite"}
    seconds = time.perf_counter() - start
    return result | {"quality": quality, "differences": gaps, "distance": distance(gaps), "seconds": seconds}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over seeds, and whether it reaches retraining.

    Args:
        rows: What `evaluate_seed` returned for every seed; at least one.

    Returns:
        `quality`, `reference`, `differences` and `distance` of the means (without a mean `quality` where a seed
        failed), `reaches` (forget accuracy within 0.1 and retain accuracy within 0.05 of retraining), `shortcomings`
        (a phrase for each that is not, or the failure), `seconds` and `seeds` (the rows).
    """
    reference = mean_measures([row["reference"] for row in rows])
    failures = [f"seed {row['seed']}: {row['failure']}" for row in rows if row["failure"] is not None]
    if failures:
        return {
            "reference": reference,
            "distance": WORST,
            "reaches": False,
            "shortcomings": failures,
            "seeds": list(rows),
        }
    quality = mean_measures([row["quality"] for row in rows])
    missed = shortcomings(quality, reference)
    return {
        "quality": quality,
        "reference": reference,
        "differences": differences(quality, reference),
        "distance": math.fsum(row["distance"] for row in rows) / len(rows),
        "reaches": not missed,
        "shortcomings": missed,
        "seconds": math.fsum(row["seconds"] for row in rows) / len(rows),
        "seeds": list(rows),
    }
