"""One attack on two models that were not made here: what it needs, its stages in order, and the keys that skip them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import nn

from retrace_pl.data.paths import existing_file
from retrace_pl.errors import InputError
from retrace_pl.external.config import PairSettings
from retrace_pl.external.inputs import Material, RecordSet
from retrace_pl.external.opening import ModelOpener, OpenedModel
from retrace_pl.external.parsing import PairRequest
from retrace_pl.external.validation import (
    CHECKED,
    REPEATABLE,
    allowed_access,
    check_classes,
    check_model,
    declared_inputs,
)
from retrace_pl.files import atomic_path, read_json, write_json
from retrace_pl.pipeline.cache import ArtefactCache, file_hash
from retrace_pl.pipeline.code import own_code
from retrace_pl.pipeline.run_folder import RunFolder, fingerprint
from retrace_pl.pipeline.runner import ARTEFACT_VERSION
from retrace_pl.pipeline.training import calm_lightning
from retrace_pl.report.progress import StageProgress, terminal
from retrace_pl.traces import Access

__all__ = ["ANSWERS", "CHECKS", "PairRun"]

STAGES = ("check", "generator", "attack", "evaluate", "report")
CHECKS, ANSWERS = "checks.json", "answers"

ORIGINAL, UNLEARNED, REFERENCE, NULL, EVALUATOR = "original", "unlearned", "reference", "null", "evaluator"
_RETRIES, _RETRIED_BATCHES = 0.1, 10
"""How much more than its plan needs a black box may be sent where no budget is set: a share, or some whole batches."""


@dataclass
class PairRun:
    """Everything that the stages need.

    Args:
        settings: The settings.
        folder: The run folder.
        quiet: No progress output.
        console: Progress output (standard error).
        opener: Opens models and keeps the answers of black boxes.
        opened: The models by role.
        material: The kind of records that the models take.
        access: What the attack may see.
        public: The public records, in the form of candidates.
        deleted: The deleted records, where they were given.
        heldout: Unseen records of the same kind, where they were given.
        models: The models with their preprocessing, once they were checked.
        classes: Number of classes, once the models were checked.
        cache: None; stands where an audit has a cache that it shares with others.
    """

    settings: PairSettings
    folder: RunFolder
    quiet: bool
    console: Console
    opener: ModelOpener
    opened: dict[str, OpenedModel]
    material: Material
    access: Access
    public: RecordSet
    deleted: RecordSet | None
    heldout: RecordSet | None
    models: dict[str, nn.Module] = field(default_factory=dict)
    classes: int = 0
    cache: ArtefactCache | None = None
    _keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, request: PairRequest, opener: ModelOpener) -> PairRun:
        """Opens models and data, and refuses what cannot be used before anything is asked or trained.

        Raises:
            InputError: A model, a data set or a setting cannot be used.
        """
        settings = request.settings
        folder = RunFolder(request.output)
        calm_lightning()
        if settings.search.trainer.threads is not None:
            torch.set_num_threads(settings.search.trainer.threads)
        opened = {role: opener.open(role) for role in settings.models.roles}
        attacked = [model for role, model in opened.items() if role != EVALUATOR]
        material = declared_inputs(settings.models.declared, list(opened.values())).material(settings)
        for role, model in opened.items():
            material.check(f"--{role}", model.inputs)
        for box in opener.black_boxes:
            box.present = material.present
        data = settings.data
        public = material.read(
            data.public,
            "--public",
            exclude=data.exclude_classes,
            limit=data.public_size,
            seed=settings.search.seed,
        )
        judging = {
            name: None if value is None else material.read(value, f"--{name}")
            for name, value in (("deleted", data.deleted), ("heldout", data.heldout))
        }
        material.take_public(public)
        run = cls(
            settings=settings,
            folder=folder,
            quiet=request.quiet,
            console=terminal(request.quiet),
            opener=opener,
            opened=opened,
            material=material,
            access=allowed_access(settings.models.access, attacked),
            public=public,
            deleted=judging["deleted"],
            heldout=judging["heldout"],
        )
        run.set_budgets()
        return run

    # --- Budget -----------------------------------------------------------------------------------------------------

    @property
    def top_k(self) -> int:
        """Candidates that one search selects."""
        return int(getattr(self.settings.search.attack, "top_k", 64))

    def needed_queries(self, role: str) -> int:
        """Most inputs that the plan asks a model for, attempts that fail left out.

        The first batch twice, every public record once, every candidate of each search that the model takes part in,
        the selected ones again (generated in other batches they may differ in the last digit), as many samples of the
        prior, and the records that judge.
        """
        search = self.settings.search
        pairs = {UNLEARNED: search.repeats + len(search.rivals), REFERENCE: search.repeats, NULL: search.repeats}
        searches = {name: count for name, count in pairs.items() if name in self.opened}
        candidates = search.queries + self.top_k + 1
        judged = sum(len(records) for records in (self.deleted, self.heldout) if records is not None)
        drawn = search.repeats * (self.top_k + 1)
        if role == EVALUATOR:
            return 2 * CHECKED + judged + (sum(searches.values()) + 1) * (self.top_k + 1) + drawn
        own = sum(searches.values()) + 1 if role == ORIGINAL else searches[role]
        return 2 * CHECKED + len(self.public) + own * candidates + drawn + judged

    def set_budgets(self) -> None:
        """Sets the limit of every black box, and says what the plan needs.

        Raises:
            InputError: The plan needs more than the budget allows.
        """
        needed: dict[int, int] = {}
        options: dict[int, list[str]] = {}
        for role, model in self.opened.items():
            if model.module in self.opener.black_boxes:
                needed[id(model.module)] = needed.get(id(model.module), 0) + self.needed_queries(role)
                options.setdefault(id(model.module), []).append(model.option)
        budget = self.settings.models.budget
        for box in self.opener.black_boxes:
            wanted, named = needed[id(box)], ", ".join(options[id(box)])
            if budget is not None and budget < wanted:
                raise InputError(
                    f"--endpoint-budget: {budget} is below the {wanted} queries that the plan needs for {named}; raise "
                    "it, or lower --queries, --repeats or --public-size"
                )
            spare = max(math.ceil(_RETRIES * wanted), _RETRIED_BATCHES * box.batch_size)
            box.budget = wanted + spare if budget is None else budget
            self.console.print(
                f"{named}: up to {wanted:,} queries, failed attempts left out; {box.store.asked:,} were sent before, "
                f"at most {box.budget:,} will be",
                markup=False,
            )

    # --- Keys -------------------------------------------------------------------------------------------------------

    def key(self, stage: str) -> str:
        """Hash of everything that a stage's files depend on."""
        if not self._keys:
            self._keys = self._all_keys()
        return self._keys[stage]

    def _all_keys(self) -> dict[str, str]:
        plain = self.settings.plain

        def part(*names: str) -> dict[str, Any]:
            return {name: plain[name] for name in names}

        def key(*parts: Any) -> str:
            return fingerprint([ARTEFACT_VERSION, *parts, *own_code(list(parts))])

        identities = {role: dict(model.identity) for role, model in self.opened.items()}
        attacked = {role: value for role, value in identities.items() if role != EVALUATOR}
        public, material = self.public.hash(), self.material.facts()
        check = key(identities, material, part("outputs"), public)
        weights = self.settings.generator_weights
        own = part("generator_pretrained") if plain["generator_pretrained"] is not None else {}
        generator = key(
            part("generator", "seed") | own,
            public,
            weights and file_hash(existing_file(weights, "--generator-weights")),
        )
        search = part("searcher", "attack", "rivals", "latent", "traces", "queries", "repeats", "deletion")
        attack = key(attacked, material, part("outputs"), str(self.access), generator, search)
        judging = [None if records is None else records.hash() for records in (self.deleted, self.heldout)]
        evaluation = part("level", "bootstrap_samples", "thresholds", "name", "deleted_classes")
        evaluate = key(attack, identities.get(EVALUATOR), judging, evaluation)
        return dict(zip(STAGES, (check, generator, attack, evaluate, key(evaluate)), strict=True))

    # --- Stages -----------------------------------------------------------------------------------------------------

    def stage(self, name: str, work: Callable[[PairRun], list[str]]) -> None:
        """Runs one stage, or skips it where its files are there already."""
        key = self.key(name)
        if self.folder.is_done(name, key):
            self.console.print(f"[dim]{name:<10} done already[/dim]")
            return
        later = STAGES[STAGES.index(name) + 1 :]
        self.folder.begin(name, tuple(other for other in later if not self.folder.is_done(other, self.key(other))))
        self.store_config()
        self.console.print(f"[bold]{name}[/bold]")
        start = time.perf_counter()
        with StageProgress(name, self.console):
            outputs = work(self)
        seconds = time.perf_counter() - start
        self.folder.finish(name, key, outputs, seconds)
        self.console.print(f"{name:<10} {seconds:.1f} s")

    def store_config(self) -> None:
        """Writes the settings as they run; secrets in headers stay names of environment variables."""
        with atomic_path(self.folder.path("config.yaml")) as temporary:
            temporary.write_text(self.settings.text, encoding="utf-8")

    def take_models(self) -> None:
        """Puts the models behind the preprocessing, in the form that the check found."""
        facts: Mapping[str, Any] = read_json(self.folder.path(CHECKS))["models"]
        for role, model in self.opened.items():
            self.models[role] = self.material.prepare(model.module, facts[role]["outputs"])
        self.classes = int(facts[ORIGINAL]["classes"])


def check(run: PairRun) -> list[str]:
    """Shows every model the first public records, before the search asks anything."""
    batch = run.public.inputs[:CHECKED]
    checked = {
        role: check_model(model, run.material, run.settings.models.outputs, batch) for role, model in run.opened.items()
    }
    check_classes(list(checked.values()))
    for role, model in checked.items():
        facts = model.facts()
        run.console.print(
            f"--{role}: {facts['format']}, {facts['classes']} classes, returns {facts['outputs'].replace('_', '-')}",
            markup=False,
        )
        if model.repeatability > REPEATABLE:
            run.console.print(
                f"--{role} answers the same {run.material.noun} differently, by up to {model.repeatability:.2g}: "
                "smaller gaps between the models mean nothing",
                style="yellow",
                markup=False,
            )
    preprocessing = {name: value for name, value in run.material.facts().items() if value is not None}
    write_json(
        run.folder.path(CHECKS),
        {"models": {role: model.facts() for role, model in checked.items()}, "preprocessing": preprocessing},
    )
    return [CHECKS]
