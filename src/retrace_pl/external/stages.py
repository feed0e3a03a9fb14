"""All stages of an attack on two foreign models, in order."""

from __future__ import annotations

from retrace_pl.external.evaluation import evaluate, report
from retrace_pl.external.generator import generator
from retrace_pl.external.opening import ModelOpener
from retrace_pl.external.parsing import PairRequest
from retrace_pl.external.run import PairRun, check
from retrace_pl.external.searches import attack

__all__ = ["run_pair"]


def run_pair(request: PairRequest, opener: ModelOpener) -> PairRun:
    """Runs every stage whose files are not there already.

    Args:
        request: What is attacked, with what and how.
        opener: Opens the models; whoever made it closes it.

    Returns:
        The finished run.

    Raises:
        InputError: A model, a data set or a setting cannot be used.
        RunError: A stage failed.
    """
    run = PairRun.start(request, opener)
    run.stage("check", check)
    run.take_models()
    for name, work in (("generator", generator), ("attack", attack), ("evaluate", evaluate), ("report", report)):
        run.stage(name, work)
    return run
