"""The stage that makes the generator: trained on the public images, or brought along."""

from __future__ import annotations

import copy

from retrace_pl.data.given import GivenRecords
from retrace_pl.data.paths import existing_file
from retrace_pl.errors import InputError, RunError
from retrace_pl.external.run import PairRun
from retrace_pl.files import write_tensors
from retrace_pl.models import Generator
from retrace_pl.pipeline.checkpoints import discard_checkpoints
from retrace_pl.pipeline.run_folder import load_weights, seed_for, seeded_module
from retrace_pl.pipeline.train_stages import GENERATOR, weights_file
from retrace_pl.pipeline.training import check_finite, fit
from retrace_pl.tasks import generator_task

__all__ = ["generator", "load_generator"]


def generator(run: PairRun) -> list[str]:
    """Trains the generator on the public images, or takes the weights that were given."""
    seed = seed_for(run.settings.search.seed, GENERATOR)
    settings = run.settings.search.generator.for_images(len(run.public))
    if settings.model is None:  # pragma: no cover - `for_images` fills it
        raise RunError("the generator has no architecture")
    model = seeded_module(lambda: settings.model(_shape(run)), seed)
    if run.settings.generator_weights is not None:
        _take(run, model)
    else:
        run.console.print(f"training {GENERATOR}: {settings.epochs} epochs on {len(run.public):,} public images")
        task = generator_task(
            model, seed=seed, optimizer=settings.optimizer, scheduler=settings.scheduler, **settings.task
        )
        fit(
            task,
            GivenRecords(run.public.tensors, settings.batch_size, seed),
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
    model = run.settings.search.generator.for_images(len(run.public)).model(_shape(run))
    load_weights(model, run.folder.path(weights_file(GENERATOR)))
    return model.requires_grad_(False)


def _take(run: PairRun, model: Generator) -> None:
    name = run.settings.generator_weights or ""
    path = existing_file(name, "--generator-weights")
    try:
        load_weights(model, path)
    except (InputError, RunError) as error:
        raise InputError(
            f"--generator-weights: {path} does not hold the weights of this {type(model).__name__} for images "
            f"{list(_shape(run))}; name the architecture with --generator.model"
        ) from error


def _shape(run: PairRun) -> tuple[int, ...]:
    return tuple(run.public.tensors.pixels.shape[1:])
