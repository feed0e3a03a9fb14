"""The cells of an arena: what each of them audits, under which name, and in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from retrace_pl.arena.choices import AttackChoice, MethodChoice, choose_attacks, choose_methods
from retrace_pl.arena.config import ArenaConfig
from retrace_pl.arena.measures import IDENTITY, RETRAIN
from retrace_pl.arena.record import CELLS, RUN, SCHEMA, CellRecord, read_if_whole, record_path
from retrace_pl.data import AuditDataModule
from retrace_pl.data.splits import resolve_classes
from retrace_pl.errors import InputError
from retrace_pl.pipeline.api import override_options
from retrace_pl.pipeline.parsing import Request, find_config
from retrace_pl.pipeline.parsing import parse as parse_audit
from retrace_pl.pipeline.run_folder import fingerprint
from retrace_pl.pipeline.runner import stage_keys

NEEDED_CONTROLS = ("prior", "matched_retrain")
"""Controls without which no figure of an attack is shown."""


@dataclass(frozen=True)
class Cell:
    """One audit of an arena: plain values alone, so that any process on any machine can run it.

    Args:
        method: name of the unlearning method.
        class_name: its class.
        strength: factor on its own strength.
        seed: seed of the audit and of its splits.
        forget_class: the deleted class, or None for what the base audit deletes.
        access: what the auditor may see.
        attack: name of the attack.
        overrides: every setting of the base audit that the cell changes, by dotted name.
        settings_hash: hash of every setting behind the cell's figures.
    """

    method: str
    class_name: str
    strength: float
    seed: int
    forget_class: int | str | None
    access: str
    attack: str
    overrides: Mapping[str, Any]
    settings_hash: str

    @property
    def id(self) -> str:
        """Readable name of the cell and of its folder, the same in every run: `scrub-x1-seed0-class3-black-ppo`."""
        deleted = [] if self.forget_class is None else [f"class{_plain(self.forget_class)}"]
        parts = [_plain(self.method), f"x{self.strength:g}", f"seed{self.seed}", *deleted, self.access]
        return "-".join([*parts, _plain(self.attack)])

    @property
    def run(self) -> str:
        """The audit's run folder, relative to the arena's."""
        return f"{CELLS}/{self.id}/{RUN}"

    def record(self, status: str, error: str | None = None) -> CellRecord:
        """A record of this cell without figures.

        Args:
            status: `done` or `failed`.
            error: why it failed, in one line.
        """
        return CellRecord(
            id=self.id,
            method=self.method,
            class_name=self.class_name,
            strength=self.strength,
            seed=self.seed,
            forget_class=self.forget_class,
            access=self.access,
            attack=self.attack,
            status="done" if status == "done" else "failed",
            settings_hash=self.settings_hash,
            error=error,
            run=self.run,
        )

    def stored(self, output: Path) -> CellRecord | None:
        """What an earlier run recorded for this cell with the same settings, or None.

        Args:
            output: the arena's folder.
        """
        record = read_if_whole(record_path(output, self.id))
        return record if record is not None and record.settings_hash == self.settings_hash else None


@dataclass(frozen=True)
class Plan:
    """An arena with every name resolved.

    Args:
        audit: configuration file of the base audit.
        cells: the cells, in the order in which they should start.
        data: the base audit's data module, not set up.
    """

    audit: Path
    cells: tuple[Cell, ...]
    data: AuditDataModule

    def find(self, name: str) -> Cell:
        """The cell with an id.

        Raises:
            InputError: there is none.
        """
        for cell in self.cells:
            if cell.id == name:
                return cell
        raise InputError(f"--cell {name}: the arena has no such cell; `--dry-run` lists its {len(self.cells)} cells")

    def check_data(self, classes: Sequence[int | str]) -> None:
        """Opens the data, which downloads it once before several processes want it, and checks the forget classes.

        Args:
            classes: the classes to delete.

        Raises:
            InputError: the data cannot be had, or has no such class.
        """
        known = self.data.source.open().classes
        found: dict[tuple[int, ...], int | str] = {}
        for name in classes:
            try:
                index = resolve_classes(name, known)
            except InputError as error:
                raise InputError(f"forget_classes: {str(error).removeprefix('forget_class: ')}") from error
            if index in found:  # the intervals would count one class as two
                raise InputError(f"forget_classes: {found[index]!r} and {name!r} are the same class; name it once")
            found[index] = name

    def records(self, output: Path) -> tuple[list[CellRecord], list[str]]:
        """The records of the cells that have run with these settings, and the ids of those that have not.

        Args:
            output: the arena's folder.
        """
        stored = [(cell, cell.stored(output)) for cell in self.cells]
        return [found for _, found in stored if found], [cell.id for cell, found in stored if found is None]


def make_plan(config: ArenaConfig, folder: Path) -> Plan:
    """Resolves every name of an arena's settings and lists its cells.

    Args:
        config: the settings.
        folder: where relative paths start: that of the arena's configuration file.

    Raises:
        InputError: something the settings name does not exist, or does not fit the base audit.
    """
    audit = _audit_file(config.audit, folder)
    base = _base(audit, config.overrides)
    if config.forget_classes and base.config.data.deletion != "class":
        raise InputError(f"forget_classes: the audit {config.audit} deletes single records; leave forget_classes out")
    shared = dict(config.overrides)
    if base.config.trainer.threads is None:
        shared["trainer.threads"] = 1  # several cells run beside each other; torch would give each of them every core
    methods, attacks = choose_methods(config, folder), choose_attacks(config, folder)
    classes: list[int | str | None] = [*config.forget_classes] or [None]
    # Strength has no effect on the anchors: cells that differ in nothing else would be the same cell again.
    rules = [
        (method, strength)
        for method in methods
        for strength in ((1.0,) if method.class_name in (RETRAIN, IDENTITY) else config.strengths)
    ]
    axes = product(config.seeds, classes, config.access, attacks, rules)
    cells = [
        _cell(config.name, base.settings, shared, method, strength, seed, deleted, access, attack)
        for seed, deleted, access, attack, (method, strength) in axes
    ]
    ids = [cell.id for cell in cells]
    for name in ids:
        if ids.count(name) > 1:
            raise InputError(
                f"methods, strengths, attacks or forget_classes: two cells are called {name}; change or drop one"
            )
    return Plan(audit, tuple(in_good_order(cells)), base.config.data)


def in_good_order(cells: list[Cell]) -> list[Cell]:
    """Puts first, one after the other, a cell of every group that shares artefacts.

    What cells share is made by the first of them, and the others wait for it: models by seed and forget class, the
    controls' searches also by access level and attack. Cells that run at the same time should therefore belong to
    different groups until each group's artefacts are there. After that, cells next to each other differ in the method,
    so that two access levels of one method do not wait for the same unlearned model.

    Args:
        cells: the cells, grouped by seed and forget class, then access level and attack.
    """
    models: set[Any] = set()
    searches: set[Any] = set()

    def rank(cell: Cell) -> int:
        model = (cell.seed, cell.forget_class)
        search = (*model, cell.access, cell.attack)
        first_of_models, first_of_searches = model not in models, search not in searches
        models.add(model)
        searches.add(search)
        return 0 if first_of_models else 1 if first_of_searches else 2

    return sorted(cells, key=rank)  # stable, and `key` is called once a cell, in order


def _cell(
    arena: str,
    base: Mapping[str, Any],
    shared: Mapping[str, Any],
    method: MethodChoice,
    strength: float,
    seed: int,
    deleted: int | str | None,
    access: str,
    attack: AttackChoice,
) -> Cell:
    own: dict[str, Any] = {"seed": seed, "data.seed": seed, "access": access, **attack.overrides}
    if deleted is not None:
        own["data.forget_class"] = deleted
    own["unlearning"] = method.at(strength)
    replaced = {**{name: value for name, value in own.items() if name in base}, "name": None}
    cell = Cell(
        method=method.name,
        class_name=method.class_name,
        strength=strength,
        seed=seed,
        forget_class=deleted,
        access=access,
        attack=attack.name,
        overrides={**shared, **own},
        settings_hash=fingerprint([SCHEMA, stage_keys({**base, **replaced})["evaluate"], own]),
    )
    cell.overrides["name"] = f"{arena}: {cell.id}"  # type: ignore[index]
    return cell


def _audit_file(name: str, folder: Path) -> Path:
    if (folder / name).is_file():
        return folder / name
    try:
        return find_config(name).resolve()
    except InputError as error:
        raise InputError(str(error).replace("--config", "audit:", 1)) from error


def _base(audit: Path, overrides: Mapping[str, Any]) -> Request:
    """The audit that every cell varies."""
    try:
        base = parse_audit("audit", "", [f"--config={audit}", *override_options(overrides)])
    except InputError as error:
        raise InputError(f"audit or overrides: {error}") from error
    for control in NEEDED_CONTROLS:
        if control not in base.config.audit.controls:
            raise InputError(
                f"overrides.audit.controls: {control} is missing; the arena shows no attack without its controls"
            )
    return base


def _plain(value: Any) -> str:
    """A value as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", str(value)).strip("_.") or "_"
