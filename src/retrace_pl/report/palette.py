"""Colours of the report, the same in every figure and in the style sheet, for light and dark.

The arms differ in hue (after Okabe and Ito, safe for the common colour-vision deficiencies), in lightness and in line
style.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DARK", "LIGHT", "LINES", "SPARE_LINES", "Theme"]


@dataclass(frozen=True)
class Theme:
    """One colour scheme.

    Args:
        name: ``light`` or ``dark``.
        ink: Text.
        muted: Secondary text.
        grid: Hairlines.
        paper: Background of the page.
        arms: Colour of each arm of the comparison.
        groups: Colour of the forget, retain and unseen groups of the trace histograms.
        spare: Colours for further rivals.
    """

    name: str
    ink: str
    muted: str
    grid: str
    paper: str
    arms: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    spare: tuple[str, ...] = ()

    def arm(self, name: str, index: int = 0) -> str:
        """Colour of an arm; rivals without one of their own take a spare by index."""
        return self.arms.get(name, self.spare[index % len(self.spare)])

    def colours(self) -> tuple[str, ...]:
        """Every colour of the theme, in the same order for every theme."""
        return (
            *(self.ink, self.muted, self.grid, self.paper),
            *self.arms.values(),
            *self.groups.values(),
            *self.spare,
        )


LIGHT = Theme(
    name="light",
    ink="#1c2024",
    muted="#59636e",
    grid="#d9dee3",
    paper="#ffffff",
    arms={
        "attack": "#c44e00",
        "prior": "#0b68ab",
        "matched_retrain": "#007a5a",
        "identity": "#6b7280",
        "holdout": "#8a6100",
        "null": "#9b2c6f",
        "never_trained": "#5a6e00",
        "wrong_class": "#2f5f9e",
        "random": "#8a4f9e",
    },
    groups={"forget": "#4535a8", "retain": "#8c949d", "unseen": "#1c2024"},
    spare=("#a3355c", "#4d7c0f", "#3f6f8f"),
)
DARK = Theme(
    name="dark",
    ink="#e8eaed",
    muted="#a3acb5",
    grid="#3a4149",
    paper="#14171a",
    arms={
        "attack": "#ff9550",
        "prior": "#63b6f2",
        "matched_retrain": "#45cfa4",
        "identity": "#a3acb5",
        "holdout": "#e6be55",
        "null": "#eb8fc6",
        "never_trained": "#bccb5a",
        "wrong_class": "#8db4ea",
        "random": "#d3a5e3",
    },
    groups={"forget": "#a79bff", "retain": "#7d8790", "unseen": "#e8eaed"},
    spare=("#f28bb0", "#a8d158", "#8fc4e0"),
)

SPARE_LINES: tuple[str, ...] = ("--", ":", "-.")
"""Line styles of arms without one of their own; the next one each time the spare colours are used up."""

LINES: dict[str, str | tuple[float, tuple[float, ...]]] = {
    "attack": "-",
    "matched_retrain": (0, (6, 2)),
    "identity": (0, (1, 1.6)),
    "random": (0, (5, 2, 1, 2)),
    "prior": (0, (3, 1.5)),
}
