"""The benchmark's four baselines exactly as published; the zoo's classes have the settings of the methods' papers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from retrace_pl.unlearning import SCRUB, BadTeacher, NegativeGradient, RetainFineTune, UnlearningMethod

BASELINES: dict[str, Callable[..., UnlearningMethod]] = {
    "retain_finetune": RetainFineTune,
    "negative_gradient": partial(NegativeGradient, form="mls_bench"),
    "bad_teacher": partial(BadTeacher, form="mls_bench", statistics="inherited"),
    "scrub": partial(SCRUB, temperature=4.0, alpha=0.01, gamma=0.99, msteps=2, batch_norm="update"),
}
"""Name -> factory that takes the benchmark's recipe: epochs, lr, batch_size, optimizer, weight_decay."""
