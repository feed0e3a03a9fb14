"""Ranges of the settings that `retrace tune` searches."""

from __future__ import annotations

from dataclasses import dataclass

from retrace_pl.errors import InputError


@dataclass(frozen=True)
class Span:
    """A range of numbers; whole numbers if both ends are.

    Args:
        low: Smallest value.
        high: Largest value, included.
        log: Whether the logarithm is searched evenly; `low` must then be above 0.

    Raises:
        InputError: The range is empty, or logarithmic and not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"a search range from {self.low} to {self.high} is empty; give the smaller number first")
        if self.log and self.low <= 0:
            raise InputError(f"a logarithmic search range cannot start at {self.low}; start above 0")

    @property
    def whole(self) -> bool:
        """Whether the range holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """A few values to choose from.

    Args:
        values: Plain values.

    Raises:
        InputError: There is none.
    """

    values: tuple[str | int | float | bool, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("a search choice needs at least one value")
