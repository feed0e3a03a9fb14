"""The search: an Optuna study over a method's knobs, kept as JSON lines so that it can go on after an interruption."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from retrace_pl.errors import RunError
from retrace_pl.pipeline.code import own_code
from retrace_pl.pipeline.parsing import one_line
from retrace_pl.pipeline.run_folder import fingerprint, seed_for
from retrace_pl.tuning.evaluation import evaluate_seed
from retrace_pl.tuning.objective import WORST, mean_measures
from retrace_pl.tuning.setting import SeedSetting, reference_settings
from retrace_pl.tuning.target import Knobs, Target, Value, within
from retrace_pl.unlearning import Choice

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP_TRIALS = 8
DIGITS = 3
"""Significant digits of a searched number, so that the preset states exactly what was tried."""

SAMPLER_SEED = 0


@dataclass(frozen=True)
class Outcome:
    """The best trial of a study.

    Args:
        target: What was tuned.
        knobs: The best knob values.
        value: Their distance to the retrained reference, mean over the seeds; in [0, 4].
        quality: Measures of the unlearned models, mean over the seeds.
        reference: Measures of the retrained models, mean over the seeds.
        original: Measures of the original models, mean over the seeds.
        start: Distance of the first start (the published settings), `None` where that trial was cut short.
        trials: Finished trials.
        failed: Those of them that failed or diverged.
        seeds: The tuning seeds.
        seconds: Seconds that one run of the best trial took, mean over the seeds.
    """

    target: Target
    knobs: Knobs
    value: float
    quality: dict[str, float]
    reference: dict[str, float]
    original: dict[str, float]
    start: float | None
    trials: int
    failed: int
    seeds: list[int]
    seconds: float


def tune(
    target: Target,
    settings: Sequence[SeedSetting],
    folder: Path,
    *,
    trials: int,
    timeout: float | None = None,
    on_trial: Callable[[int, float | None], None] | None = None,
) -> Outcome:
    """Searches the knobs of a method, or goes on with a search of the same target and seeds.

    A trial runs the method on every seed. It is cut short (pruned) once the seeds so far make its mean larger than the
    best one's, whatever the other seeds would give. A run that fails, diverges or gives NaN makes its trial count as
    the worst, `WORST`. What the sampler proposes depends on the finished trials alone, so an interrupted search
    that goes on tries what an uninterrupted one tries; `timeout` is the only thing that can make two searches differ.

    Args:
        target: What to tune.
        settings: Data and models of every tuning seed.
        folder: Where the study's file is, or will be.
        trials: Finished trials to reach, those of an earlier search included; at least 1.
        timeout: Seconds after which no further trial is started; the first one always is.
        on_trial: Called with the number of finished trials and the best distance so far, at the start and after every
            trial.

    Returns:
        The best trial.

    Raises:
        RunError: No trial succeeded, the study's file is damaged, or another process tunes it.
        KeyboardInterrupt: The user pressed Ctrl-C; finished trials are kept.
    """
    path = folder / f"{target.name}-{_identity(target, settings)[:8]}.jsonl"
    with _locked(path):
        return _tune(target, settings, path, trials, timeout, on_trial)


def _tune(
    target: Target,
    settings: Sequence[SeedSetting],
    path: Path,
    trials: int,
    timeout: float | None,
    on_trial: Callable[[int, float | None], None] | None,
) -> Outcome:
    study = _open_study(target, settings, path)
    target = Target(target.name, target.class_path, target.init_args, target.space, study.user_attrs["starts"])
    begin, own = time.perf_counter(), 0
    while (done := len(_finished(study))) < trials:
        if on_trial is not None:
            on_trial(done, _best_value(study))
        if own and timeout is not None and time.perf_counter() - begin > timeout:
            break
        if done < len(target.starts) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            start = target.starts[done]
            study.enqueue_trial(within(start, target.space), user_attrs={"start": start})
        study.sampler = _sampler(done)
        _run_trial(study, target, settings)
        own += 1
    if on_trial is not None:
        on_trial(len(_finished(study)), _best_value(study))
    return _outcome(study, target, settings)


def _sampler(done: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed_for(SAMPLER_SEED, "tune", done), n_startup_trials=STARTUP_TRIALS)


def _run_trial(study: optuna.Study, target: Target, settings: Sequence[SeedSetting]) -> None:
    trial = study.ask()
    try:
        knobs = suggest(trial, target) | trial.user_attrs.get("start", {})  # exactly, also where no range holds it
        trial.set_user_attr("knobs", knobs)
        value = _evaluate(trial, target, knobs, settings, _best_value(study))
    except KeyboardInterrupt:
        study.tell(trial, state=TrialState.FAIL)
        raise
    if value is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def suggest(trial: Trial, target: Target) -> Knobs:
    """Asks the sampler for every knob; fractions are rounded to three significant digits.

    Args:
        trial: The trial.
        target: Whose knobs.
    """
    knobs: Knobs = {}
    for knob, span in target.space.items():
        if isinstance(span, Choice):
            knobs[knob] = cast(Value, trial.suggest_categorical(knob, span.values))
        elif span.whole:
            knobs[knob] = trial.suggest_int(knob, int(span.low), int(span.high), log=span.log)
        else:
            knobs[knob] = float(f"{trial.suggest_float(knob, span.low, span.high, log=span.log):.{DIGITS}g}")
    return knobs


def _evaluate(
    trial: Trial, target: Target, knobs: Knobs, settings: Sequence[SeedSetting], best: float | None
) -> float | None:
    """The trial's mean distance; None once it cannot become the best any more."""
    runs: list[dict[str, Any]] = []
    for position, setting in enumerate(settings):
        run = evaluate_seed(target.settings(knobs), target.name, setting)
        runs.append(run)
        trial.set_user_attr("runs", runs)
        if run["failure"] is not None:
            return WORST
        mean = math.fsum(row["distance"] for row in runs) / len(runs)
        trial.report(mean, position)
        if best is not None and position + 1 < len(settings) and mean * len(runs) > best * len(settings):
            return None
    return math.fsum(row["distance"] for row in runs) / len(runs)


def _identity(target: Target, settings: Sequence[SeedSetting]) -> str:
    """Hash of everything that decides what a trial of the study gives."""
    fixed = target.settings(dict.fromkeys(target.space, 0))
    space = {knob: str(span) for knob, span in target.space.items()}
    repeats = settings[0].run.config.audit.repeats
    models = [reference_settings(setting.run.settings) for setting in settings]
    return fingerprint([fixed, space, models, repeats, *own_code([fixed, models])])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps a second process from a study: each would take the other's running trial for one that was cut off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.process"))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"another process tunes {path} right now; wait for it, or use another --folder") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(f"{path} cannot be locked ({one_line(error)}); use another --folder") from error
    try:
        yield
    finally:
        lock.release()


def _open_study(target: Target, settings: Sequence[SeedSetting], path: Path) -> optuna.Study:
    _drop_partial_line(path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        study = optuna.create_study(storage=storage, study_name=target.name, direction="minimize", load_if_exists=True)
    except (ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); delete it and tune again") from error
    if "starts" not in study.user_attrs:  # a preset that was written since must not move the starts of a search
        study.set_user_attr("starts", target.starts)
        study.set_user_attr("settings", target.settings({}))
        study.set_user_attr("seeds", [setting.seed for setting in settings])
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # cut off by a kill
    return study


def _drop_partial_line(path: Path) -> None:
    """Removes what a kill left of the last line; every whole line is one finished operation."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


def _succeeded(study: optuna.Study) -> list[FrozenTrial]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if all(run["failure"] is None for run in trial.user_attrs["runs"])]


def _best_value(study: optuna.Study) -> float | None:
    return min((trial.value for trial in _succeeded(study) if trial.value is not None), default=None)


def _outcome(study: optuna.Study, target: Target, settings: Sequence[SeedSetting]) -> Outcome:
    finished = _finished(study)
    failures = [run["failure"] for trial in finished for run in trial.user_attrs["runs"] if run["failure"] is not None]
    best = min(_succeeded(study), key=lambda trial: (trial.value, trial.number), default=None)
    if best is None or best.value is None:
        raise RunError(
            f"--method {target.name}: none of {len(finished)} trials succeeded; the last one: {failures[-1]}"
        )
    runs: list[Mapping[str, Any]] = best.user_attrs["runs"]
    return Outcome(
        target=target,
        knobs=dict(best.user_attrs["knobs"]),
        value=best.value,
        quality=mean_measures([run["quality"] for run in runs]),
        reference=mean_measures([run["reference"] for run in runs]),
        original=mean_measures([setting.original_quality for setting in settings]),
        start=finished[0].value,
        trials=len(finished),
        failed=len(failures),
        seeds=[setting.seed for setting in settings],
        seconds=math.fsum(run["seconds"] for run in runs) / len(runs),
    )
