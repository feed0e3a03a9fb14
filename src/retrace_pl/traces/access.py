"""Access levels: what an auditor may see of the two models, and which signals that allows."""

from __future__ import annotations

from enum import StrEnum

from retrace_pl.errors import AccessError, InputError

__all__ = ["SIGNALS", "Access"]

SIGNALS: tuple[str, ...] = ("prediction", "loss", "gradient")
"""The three trace signals, in the order of the access level that each one needs."""


class Access(StrEnum):
    """What the auditor sees: output probabilities (black), losses as well (gray), input gradients as well (white)."""

    BLACK = "black"
    GRAY = "gray"
    WHITE = "white"

    @classmethod
    def parse(cls, value: str) -> Access:
        """Return the level named `value`.

        Raises:
            InputError: There is no such level.
        """
        try:
            return cls(value)
        except ValueError:
            raise InputError(f"access: {value!r} is not a level; choose one of {', '.join(cls)}") from None

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals this level allows, in the order of `SIGNALS`."""
        return SIGNALS[: list(Access).index(self) + 1]

    def allows(self, signal: str) -> bool:
        """Say whether `signal` can be computed at this level.

        Raises:
            InputError: `signal` is not one of `SIGNALS`.
        """
        if signal not in SIGNALS:
            raise InputError(f"signal: {signal!r} is unknown; choose from {', '.join(SIGNALS)}")
        return signal in self.signals

    def require(self, signal: str) -> None:
        """Let `signal` pass, or refuse it.

        Raises:
            AccessError: The level does not allow `signal`.
            InputError: `signal` is not one of `SIGNALS`.
        """
        if not self.allows(signal):
            needed = list(Access)[SIGNALS.index(signal)]
            raise AccessError(f"access: the {signal} signal needs access={needed}, this audit has access={self}")
