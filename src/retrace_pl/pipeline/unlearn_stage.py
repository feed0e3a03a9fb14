"""The stage that makes f+ forget and trains the models that the controls and some attacks compare with."""

from __future__ import annotations

from retrace_pl.pipeline.control_models import control_trainings
from retrace_pl.pipeline.needs import needs_shadow
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.shadow import shadow_training
from retrace_pl.pipeline.shared_training import run_trainings
from retrace_pl.pipeline.train_stages import UNLEARNED, unlearning_training


def unlearn(run: AuditRun) -> list[str]:
    """Makes a copy of f+ forget, and trains the models of the controls and the shadow pair where they are asked for."""
    shadow = [shadow_training(run)] if needs_shadow(run.settings) else []
    return run_trainings(run, [unlearning_training(run, UNLEARNED, run.data), *control_trainings(run), *shadow])
