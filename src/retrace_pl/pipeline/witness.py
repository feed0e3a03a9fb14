"""Notes what an attack asked the two models for: the access it really used, which its name does not tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from retrace_pl.traces import SIGNALS, ModelPair, PairResponse

PARAMETERS = "parameters"
"""What `ModelPair.networks` hands over."""


class WitnessedPair(ModelPair):
    """A model pair that remembers which of its signals were asked for; arguments are those of `ModelPair`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._asked: set[str] = set()

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Both models themselves; see `ModelPair.networks`."""
        found = super().networks()
        self._asked.add(PARAMETERS)
        return found

    def respond(self, inputs: Any, signals: Collection[str] | None = None, **options: Any) -> PairResponse:
        """What each model yields; see `ModelPair.respond`."""
        self._asked.update(self.access.signals if signals is None else signals)
        return super().respond(inputs, signals, **options)

    def forget(self) -> None:
        """Begins a new note."""
        self._asked.clear()

    def asked(self) -> list[str]:
        """What was asked for since `forget`: signals in the order of `SIGNALS`, then `parameters`."""
        return [name for name in (*SIGNALS, PARAMETERS) if name in self._asked]
