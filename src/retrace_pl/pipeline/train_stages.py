"""The stages that train: f+ and the evaluator, the generator, the unlearned model and its retrained references."""

from __future__ import annotations

import copy
from functools import partial

from torch import nn

from retrace_pl.files import write_tensors
from retrace_pl.models import Classifier, Generator
from retrace_pl.pipeline.config import AuditConfig, ClassifierSettings
from retrace_pl.pipeline.run_folder import load_weights, seed_for, seeded_module
from retrace_pl.pipeline.runner import AuditRun, uses_several_devices
from retrace_pl.pipeline.training import check_finite, discard_checkpoints, fit
from retrace_pl.tasks import ClassifierTask, GeneratorTask
from retrace_pl.tasks.unlearning import UnlearningTask

ORIGINAL, EVALUATOR, GENERATOR, UNLEARNED = "original", "evaluator", "generator", "unlearned"


def retrained_name(repeat: int) -> str:
    """Name of the matched-retrain model of one repeat."""
    return f"retrained-{repeat}"


def weights_file(name: str) -> str:
    """Name of the file that holds a model's weights."""
    return f"{name}.safetensors"


def build_classifier(run: AuditRun, settings: ClassifierSettings, seed: int) -> Classifier:
    """A fresh classifier for the audit's data."""
    return seeded_module(partial(settings.model, run.data.channels, run.data.num_classes), seed)


def load_classifier(run: AuditRun, name: str) -> Classifier:
    """One of the run's trained classifiers, in eval mode, on the CPU."""
    settings = run.config.evaluator if name == EVALUATOR else run.config.classifier
    model = build_classifier(run, settings, 0)
    load_weights(model, run.folder.path(weights_file(name)))
    return model


def load_generator(run: AuditRun) -> Generator:
    """The run's trained generator, in eval mode, on the CPU."""
    model = run.config.generator.model(run.data.input_shape)
    load_weights(model, run.folder.path(weights_file(GENERATOR)))
    return model


def pretrain(run: AuditRun) -> list[str]:
    """Trains the audited model on the training split and the evaluator on its own split."""
    _train_classifier(run, ORIGINAL, run.config.classifier, "train", "pretrain")
    _train_classifier(run, EVALUATOR, run.config.evaluator, "evaluator", "pretrain")
    return _finished(run, ORIGINAL, EVALUATOR)


def generator(run: AuditRun) -> list[str]:
    """Trains the generator on the public split; the evaluator's features only draw the quality curve."""
    settings = run.config.generator
    seed = seed_for(run.config.seed, GENERATOR)
    run.console.print(f"training {GENERATOR}: {settings.epochs} epochs on the public split")
    model = seeded_module(partial(settings.model, run.data.input_shape), seed)
    task = GeneratorTask(
        model,
        features=load_classifier(run, EVALUATOR),
        seed=seed,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        **settings.task,
    )
    fit(
        task,
        run.data.view("public", "public", batch_size=settings.batch_size),
        name=GENERATOR,
        key=run.key("generator"),
        epochs=settings.epochs,
        run=run.folder,
        settings=run.config.trainer,
        quiet=run.quiet,
        strategy=_adversarial_strategy(run.config),
    )
    _store(run, GENERATOR, task.ema_generator())
    return _finished(run, GENERATOR)


def unlearn(run: AuditRun) -> list[str]:
    """Makes a copy of f+ forget, and retrains from scratch without the deleted records for the control."""
    method = run.config.unlearning
    repeats = range(run.config.audit.repeats if "matched_retrain" in run.config.audit.controls else 0)
    if method.from_scratch:
        _train_classifier(run, UNLEARNED, run.config.classifier, "retain", "unlearn")
    else:
        run.console.print(f"unlearning with {type(method).__name__}")
        task = UnlearningTask(
            load_classifier(run, ORIGINAL), method, run.data.num_classes, seed=seed_for(run.config.seed, UNLEARNED)
        )
        fit(
            task,
            run.data.unlearning_view(batch_size=task.method.batch_size),
            name=UNLEARNED,
            key=run.key("unlearn"),
            epochs=task.method.epochs,
            run=run.folder,
            settings=run.config.trainer,
            quiet=run.quiet,
        )
        _store(run, UNLEARNED, task.model)
    for repeat in repeats:
        _train_classifier(run, retrained_name(repeat), run.config.classifier, "retain", "unlearn")
    return _finished(run, UNLEARNED, *(retrained_name(repeat) for repeat in repeats))


def _adversarial_strategy(config: AuditConfig) -> str:
    """Each of the two networks of a GAN is left out of the other's backward pass, which plain DDP refuses."""
    chosen = config.trainer.strategy
    plain = chosen == "ddp" or (chosen == "auto" and uses_several_devices(config))
    return "ddp_find_unused_parameters_true" if plain else chosen


def _train_classifier(run: AuditRun, name: str, settings: ClassifierSettings, split: str, stage: str) -> None:
    seed = seed_for(run.config.seed, name)
    run.console.print(f"training {name}: {settings.epochs} epochs on the {split} split")
    task = ClassifierTask(
        build_classifier(run, settings, seed),
        run.data.num_classes,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        label_smoothing=settings.label_smoothing,
        seed=seed,
    )
    fit(
        task,
        run.data.view(split, "test", batch_size=settings.batch_size, augment=settings.augment),
        name=name,
        key=run.key(stage),
        epochs=settings.epochs,
        run=run.folder,
        settings=run.config.trainer,
        quiet=run.quiet,
        accumulate_grad_batches=run.config.trainer.accumulate_grad_batches,
    )
    _store(run, name, task.model)


def _store(run: AuditRun, name: str, module: nn.Module) -> None:
    check_finite(module, name)
    if run.is_rank_zero:
        weights = copy.deepcopy(module).cpu().state_dict()
        write_tensors(run.folder.path(weights_file(name)), weights, {"architecture": type(module).__name__})


def _finished(run: AuditRun, *names: str) -> list[str]:
    if run.is_rank_zero:
        for name in names:
            discard_checkpoints(run.folder, name)
    return [weights_file(name) for name in names]
