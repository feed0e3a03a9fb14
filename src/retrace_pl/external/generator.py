"""The stage that makes the generator: trained on the public records, or brought along."""

from __future__ import annotations

import copy

from retrace_pl.data.given import GivenRecords
from retrace_pl.data.paths import existing_file
from retrace_pl.errors import InputError, RunError
from retrace_pl.external.run import PairRun
from retrace_pl.files import write_tensors
from retrace_pl.models import Generator
from retrace_pl.pipeline.checkpoints import discard_checkpoints
from retrace_pl.pipeline.config import GeneratorSettings
from retrace_pl.pipeline.run_folder import load_weights, seed_for, seeded_module
from retrace_pl.pipeline.train_stages import GENERATOR, weights_file
from retrace_pl.pipeline.training import check_finite, fit
from retrace_pl.tasks import generator_task

__all__ = ["generator", "load_generator"]


def generator(run: PairRun) -> list[str]:
    """Trains the generator on the public records, or takes the weights that were given."""
    seed = seed_for(run.settings.search.seed, GENERATOR)
    settings = _settings(run)
    model = seeded_module(lambda: settings.model(run.material.sample_space()), seed)
    run.material.check_generator(model)
    if run.settings.generator_weights is not None:
        _take(run, model)
    else:
        run.console.print(
            f"training {GENERATOR}: {settings.epochs} epochs on {len(run.public):,} public {run.material.noun}"
        )
        task = generator_task(
            model, seed=seed, optimizer=settings.optimizer, scheduler=settings.scheduler, **settings.task
        )
        task.decode = run.material.domain.texts
        fit(
            task,
            GivenRecords(run.public.loader, settings.batch_size, seed),
            name=GENERATOR,
            key=run.key("generator"),
            epochs=settings.epochs,
            run=run.folder,
            settings=run.settings.search.trainer,
            quiet=run.quiet,
            limit_val_batches=0,
        )
        model = task.product()
    check_finite(model, GENERATOR)
    weights = copy.deepcopy(model).cpu().state_dict()
    write_tensors(run.folder.path(weights_file(GENERATOR)), weights, {"architecture": type(model).__name__})
    discard_checkpoints(run.folder, GENERATOR)
    return [weights_file(GENERATOR)]


def load_generator(run: PairRun) -> Generator:
    """The run's generator, frozen, in eval mode, on the CPU."""
    model = _settings(run).model(run.material.sample_space())
    load_weights(model, run.folder.path(weights_file(GENERATOR)))
    return model.requires_grad_(False)


def _take(run: PairRun, model: Generator) -> None:
    name = run.settings.generator_weights or ""
    path = existing_file(name, "--generator-weights")
    try:
        load_weights(model, path)
    except (InputError, RunError) as error:
        raise InputError(
            f"--generator-weights: {path} does not hold the weights of this {type(model).__name__} for "
            f"{run.material.noun} {list(run.material.sample_space())}; name the architecture with --generator.model"
        ) from error


def _settings(run: PairRun) -> GeneratorSettings:
    return run.material.generator(run.settings.search.generator, len(run.public))
