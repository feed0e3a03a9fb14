"""MLS-Bench's "machine unlearning via targeted update rules": its settings, rules and metrics, and ours beside them."""

from __future__ import annotations

from retrace_pl.mls_bench.api import prepare_benchmark, run_setting
from retrace_pl.mls_bench.harness import Benchmark
from retrace_pl.mls_bench.settings import PRESETS, SETTINGS, Limits, Setting, find_setting

__all__ = [
    "PRESETS",
    "SETTINGS",
    "Benchmark",
    "Limits",
    "Setting",
    "find_setting",
    "prepare_benchmark",
    "run_setting",
]
