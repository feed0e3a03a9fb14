"""The controls of an audit: what each compares against and what it isolates.

An attack number alone says nothing: a generator that knows the class, or a model pair that differs by training noise,
produces "reconstructions" too. Every control answers one such objection. This is what a control is called and what it
means, for settings and reports; what it runs, at the audited budget, is planned in `pipeline.search_plan`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from retrace_pl.errors import InputError

__all__ = ["CONTROLS", "Control", "ControlRegistry", "get_control", "parse_controls"]


@dataclass(frozen=True)
class Control:
    """One control of an audit.

    Args:
        id: Name in settings and in ``metrics.json`` (``controls.<id>``).
        title: Column heading for people.
        isolates: What the difference to this control is *not* explained by.
        summary: One plain line for people.
        original: Role of the first model of the pair, or None where no models are queried.
        unlearned: Role of the second model of the pair, or None where no models are queried.
        searched: Whether the same search runs on this pair at the audited budget.
        uses: What is judged where no search of its own runs, e.g. ``"generator samples"``.
    """

    id: str
    title: str
    isolates: str
    summary: str
    original: str | None = None
    unlearned: str | None = None
    searched: bool = False
    uses: str = ""

    @property
    def pair(self) -> tuple[str, str] | None:
        """Roles of the two models, or None for a control without models."""
        if self.original is None or self.unlearned is None:
            return None
        return self.original, self.unlearned


class ControlRegistry(Mapping[str, Control]):
    """Controls by id, in the order in which a report shows them."""

    def __init__(self, controls: Iterable[Control] = ()) -> None:
        self._controls: dict[str, Control] = {}
        for control in controls:
            self.register(control)

    def register(self, control: Control) -> Control:
        """Adds a control and returns it.

        Raises:
            InputError: If the id is taken.
        """
        if control.id in self._controls:
            raise InputError(f"control '{control.id}' is registered already: choose another id")
        self._controls[control.id] = control
        return control

    def __getitem__(self, name: str) -> Control:
        return self._controls[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._controls)

    def __len__(self) -> int:
        return len(self._controls)


CONTROLS = ControlRegistry(
    [
        Control(
            id="prior",
            title="Prior only",
            isolates="what the generator produces without asking any model",
            summary="Samples of the generator, drawn at random: no model was queried.",
            uses="generator samples",
        ),
        Control(
            id="matched_retrain",
            title="Matched retrain",
            isolates="leakage that even perfect unlearning leaves behind",
            summary="The same attack, had the model been retrained from scratch without the deleted data.",
            original="original",
            unlearned="retrained",
            searched=True,
        ),
        Control(
            id="identity",
            title="Identity",
            isolates="faults of the instrument: with nothing deleted every trace must be zero",
            summary="The same attack on the original model compared with itself.",
            original="original",
            unlearned="original",
            searched=True,
        ),
        Control(
            id="null",
            title="Null",
            isolates="training noise: two models differ by their seeds alone",
            summary="The same attack on two models trained on the same data with different seeds: nothing was deleted.",
            original="original",
            unlearned="reseeded",
            searched=True,
        ),
        Control(
            id="never_trained",
            title="Never trained",
            isolates="what the public data yields through any two models",
            summary="The same attack on two models of which neither ever saw the deleted data.",
            original="retrained",
            unlearned="retrained with another seed",
            searched=True,
        ),
        Control(
            id="wrong_class",
            title="Wrong class",
            isolates="what any deleted class leaves behind, whichever it is",
            summary="The same attack after the same method deleted another class; judged against the deleted one.",
            original="original",
            unlearned="unlearned of another class",
            searched=True,
        ),
        Control(
            id="holdout",
            title="Hold-out",
            isolates="memory of the records from knowledge of their class",
            summary="The same candidates, compared with unseen records of the class instead of the deleted ones.",
            uses="the audited candidates against unseen records of the deleted class",
        ),
    ]
)
"""The controls of an audit; further ones are registered in the same way."""


def get_control(name: str | None, registry: Mapping[str, Control] = CONTROLS) -> Control:
    """Looks a control up by id; hyphens count as underscores, and None as ``null``, which YAML reads as None.

    Raises:
        InputError: If no control has that name.
    """
    name = "null" if name is None else name
    key = name.strip().lower().replace("-", "_")
    if key in registry:
        return registry[key]
    close = difflib.get_close_matches(key, list(registry), n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise InputError(f"controls: unknown control '{name}': {hint}Choose from {', '.join(registry)}")


def parse_controls(names: Iterable[str | None], registry: Mapping[str, Control] = CONTROLS) -> tuple[Control, ...]:
    """Resolves a list of names into controls, in registry order and without repeats.

    Args:
        names: Control ids, or ``"all"``.
        registry: Where to look.

    Raises:
        InputError: If a name is unknown or ``names`` is a bare string.
    """
    if isinstance(names, str):
        raise InputError(f"controls must be a list such as [prior, matched_retrain], not the text '{names}'")
    wanted: set[str] = set()
    for name in names:
        wanted |= set(registry) if name == "all" else {get_control(name, registry).id}
    return tuple(control for key, control in registry.items() if key in wanted)
