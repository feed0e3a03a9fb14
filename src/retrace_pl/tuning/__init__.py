"""Tuning: the settings of an unlearning method that bring it closest to retraining."""

from retrace_pl.tuning.evaluation import evaluate_seed, summarise
from retrace_pl.tuning.objective import (
    FORGET_MARGIN,
    MEASURES,
    RETAIN_MARGIN,
    WORST,
    differences,
    distance,
    mean_measures,
    shortcomings,
)
from retrace_pl.tuning.preset import describe_setting
from retrace_pl.tuning.search import Outcome, tune
from retrace_pl.tuning.setting import SeedSetting, open_settings
from retrace_pl.tuning.target import Target, build_method, find_target, preset_files, read_preset, tunable

__all__ = [
    "FORGET_MARGIN",
    "MEASURES",
    "RETAIN_MARGIN",
    "WORST",
    "Outcome",
    "SeedSetting",
    "Target",
    "build_method",
    "describe_setting",
    "differences",
    "distance",
    "evaluate_seed",
    "find_target",
    "mean_measures",
    "open_settings",
    "preset_files",
    "read_preset",
    "shortcomings",
    "summarise",
    "tunable",
    "tune",
]
