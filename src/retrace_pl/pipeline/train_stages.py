"""The stages that train f+, the evaluator and the generator, and the trainings that the next stage is made of."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from torch import nn

from retrace_pl.data import AuditDataModule
from retrace_pl.files import write_tensors
from retrace_pl.models import Classifier, Generator
from retrace_pl.pipeline.artefacts import classifier_artefact, generator_artefact, unlearned_artefact
from retrace_pl.pipeline.config import ClassifierSettings
from retrace_pl.pipeline.model_checks import check_classifier, check_generator, check_trained
from retrace_pl.pipeline.processes import alone
from retrace_pl.pipeline.run_folder import load_weights, seed_for, seeded_module
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.shared_training import Training, run_trainings
from retrace_pl.pipeline.strategies import WholeWeights, strategy_for, uses_several_devices
from retrace_pl.pipeline.training import check_finite, fit
from retrace_pl.tasks import ClassifierTask, generator_task
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
    model = seeded_module(partial(settings.model, run.data.input_size, run.data.num_classes), seed)
    run.data.check_model(model)
    return model


def load_classifier(run: AuditRun, name: str) -> Classifier:
    """One of the run's trained classifiers, in eval mode, on the CPU."""
    settings = run.config.evaluator if name == EVALUATOR else run.config.classifier
    model = build_classifier(run, settings, 0)
    load_weights(model, run.folder.path(weights_file(name)))
    return model


def load_generator(run: AuditRun) -> Generator:
    """The run's trained generator, in eval mode, on the CPU."""
    model = run.config.generator.model(run.data.sample_space)
    run.data.check_model(model)
    load_weights(model, run.folder.path(weights_file(GENERATOR)))
    return model


def check_models(run: AuditRun) -> None:
    """Builds the models of the audit and lets each of them see, or make, two records of the data.

    Raises:
        InputError: one of them does not fit the data, for example because its special tokens are not the tokenizer's.
    """
    for section in ("classifier", "evaluator"):
        check_classifier(build_classifier(run, getattr(run.config, section), 0), run.data, f"{section}.model")
    model = seeded_module(partial(run.config.generator.model, run.data.sample_space), 0)
    run.data.check_model(model)
    check_generator(model, run.data, "generator.model")


def pretrain(run: AuditRun) -> list[str]:
    """Trains the audited model on the training split and the evaluator on its own split.

    Every model of the audit is looked at before the first one is trained.
    """
    check_models(run)
    trainings = [
        classifier_training(run, ORIGINAL, "classifier", "train", "pretrain"),
        classifier_training(run, EVALUATOR, "evaluator", "evaluator", "pretrain"),
    ]
    return run_trainings(run, trainings)


def generator(run: AuditRun) -> list[str]:
    """Trains the generator on the public split; the evaluator's features only draw the quality curve."""
    seed = seed_for(run.config.seed, GENERATOR)
    training = Training(
        GENERATOR,
        weights_file(GENERATOR),
        partial(generator_artefact, run, GENERATOR, seed),
        partial(_train_generator, run, seed),
    )
    return run_trainings(run, [training])


def _train_generator(run: AuditRun, seed: int) -> None:
    settings = run.config.generator
    run.console.print(f"training {GENERATOR}: {settings.epochs} epochs on the public split")
    model = seeded_module(partial(settings.model, run.data.sample_space), seed)
    run.data.check_model(model)
    check_generator(model, run.data, "generator.model")
    task = generator_task(
        model,
        features=load_classifier(run, EVALUATOR),
        seed=seed,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        **settings.task,
    )
    task.decode = run.data.domain.texts
    fit(
        task,
        run.data.view("public", "public", batch_size=settings.batch_size),
        name=GENERATOR,
        key=run.key("generator"),
        epochs=settings.epochs,
        run=run.folder,
        settings=run.config.trainer,
        quiet=run.quiet,
        strategy=strategy_for(run.config.trainer, unused=task.unused_parameters),
    )
    store_model(run, GENERATOR, task.product())


def unlearning_training(run: AuditRun, name: str, data: AuditDataModule) -> Training:
    """A training of the audit's unlearning method on f+, for `run_trainings`; from scratch where the method is.

    Every deletion has the same seed, so an audit's f- is another audit's model of the wrong class.

    Args:
        run: the audit.
        name: name of the model.
        data: what is retained and deleted; the audit's own data or the same rearranged.
    """
    method = run.config.unlearning
    if method.from_scratch:
        split = method.from_scratch_split
        return classifier_training(run, name, "classifier", split, "unlearn", data=data, seeded_as=UNLEARNED)
    seed = seed_for(run.config.seed, UNLEARNED)
    original = run.folder.path(weights_file(ORIGINAL))
    return Training(
        name,
        weights_file(name),
        partial(unlearned_artefact, run, UNLEARNED, original, seed, data=data),
        partial(_make_forget, run, name, data, seed),
    )


def _make_forget(run: AuditRun, name: str, data: AuditDataModule, seed: int) -> None:
    store_model(run, name, forget(run, name, load_classifier(run, ORIGINAL), data, seed))


def forget(run: AuditRun, name: str, model: Classifier, data: AuditDataModule, seed: int) -> nn.Module:
    """Makes a model forget with the audit's method, of which it takes a copy: a method may keep what it computed.

    Args:
        run: the audit.
        name: name of the training, for its log and checkpoints.
        model: the model before, changed in place.
        data: what is retained and deleted.
        seed: seed of the unlearning.

    Returns:
        The model after; in a process that took no part, because the method cannot share its work, the model before.
    """
    method = copy.deepcopy(run.config.unlearning)
    task = UnlearningTask(model, method, data.num_classes, seed=seed)
    settings, place = run.config.trainer, ""
    divided = task.shares_devices or not uses_several_devices(settings)
    if not divided:
        settings, place = replace(settings, devices=1, num_nodes=1, strategy="auto"), ", on one device"
    run.console.print(f"unlearning with {type(method).__name__}: {name}{place}")
    if not (divided or run.is_rank_zero):
        return model
    with nullcontext() if divided else alone():
        fit(
            task,
            data.unlearning_view(batch_size=task.method.batch_size),
            name=name,
            key=run.key("unlearn"),
            epochs=task.method.epochs,
            run=run.folder,
            settings=settings,
            quiet=run.quiet,
            strategy=strategy_for(settings, unused=True),
        )
    return task.model


def classifier_training(
    run: AuditRun,
    name: str,
    section: str,
    split: str,
    stage: str,
    *,
    data: AuditDataModule | None = None,
    seeded_as: str | None = None,
) -> Training:
    """One of the audit's classifier trainings, for `run_trainings`.

    Args:
        run: the audit.
        name: name of the model.
        section: settings that describe it: `classifier` or `evaluator`.
        split: what it is trained on.
        stage: the stage it belongs to, whose key a checkpoint must have to be continued.
        data: where the split is; the audit's data by default.
        seeded_as: name that its seed is derived from; its own by default.
    """
    seed = seed_for(run.config.seed, seeded_as or name)
    settings: ClassifierSettings = getattr(run.config, section)
    return Training(
        name,
        weights_file(name),
        partial(classifier_artefact, run, seeded_as or name, section, split, seed, data=data),
        partial(_train_classifier, run, name, settings, split, stage, seed, data),
    )


def _train_classifier(
    run: AuditRun,
    name: str,
    settings: ClassifierSettings,
    split: str,
    stage: str,
    seed: int,
    data: AuditDataModule | None,
) -> None:
    store_model(run, name, fit_classifier(run, name, settings, split, stage, seed, data or run.data))


def fit_classifier(
    run: AuditRun,
    name: str,
    settings: ClassifierSettings,
    split: str,
    stage: str,
    seed: int,
    data: AuditDataModule,
) -> Classifier:
    """Trains a fresh classifier; arguments are those of `classifier_training`.

    Returns:
        The trained model, on the device of the training.

    Raises:
        RunError: the training diverged, or the model gives the same answer whatever it is shown.
    """
    run.console.print(f"training {name}: {settings.epochs} epochs on the {split} split")
    model = build_classifier(run, settings, seed)
    whole = WholeWeights("model")
    setting = "evaluator.model" if settings is run.config.evaluator else "classifier.model"
    check_classifier(model, data, setting)
    task = ClassifierTask(
        model,
        data.num_classes,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        label_smoothing=settings.label_smoothing,
        seed=seed,
    )
    fit(
        task,
        data.view(split, "test", batch_size=settings.batch_size, augment=settings.augment),
        name=name,
        key=run.key(stage),
        epochs=settings.epochs,
        run=run.folder,
        settings=run.config.trainer,
        quiet=run.quiet,
        accumulate_grad_batches=run.config.trainer.accumulate_grad_batches,
        gradient_clip_val=run.config.trainer.gradient_clip_val,
        strategy=strategy_for(run.config.trainer, shardable=True),
        callbacks=[whole],
    )
    if whole.weights is not None:  # this process has only its share of the parameters
        model = build_classifier(run, settings, seed)
        model.load_state_dict(whole.weights)
    check_finite(model, name)
    check_trained(model, data, name, setting)
    return model


def store_model(run: AuditRun, name: str, module: nn.Module) -> None:
    """Writes the weights of a trained model into the run folder, unless they are not finite."""
    check_finite(module, name)
    if run.is_rank_zero:
        weights = copy.deepcopy(module).cpu().state_dict()
        write_tensors(run.folder.path(weights_file(name)), weights, {"architecture": type(module).__name__})
