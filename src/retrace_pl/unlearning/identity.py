"""No unlearning at all: the sanity anchor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from retrace_pl.unlearning.base import UnlearningMethod
from retrace_pl.unlearning.search_space import Choice, Span


class Identity(UnlearningMethod):
    """Leaves the model as it is: the anchor on which every trace must be exactly zero.

    Rule: `theta = theta_0`. Needs no data. Source: control "identity" of the audit.

    Args:
        epochs: 0; more has no effect.
        kwargs: The other settings of `UnlearningMethod`; none has an effect.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    search_space: ClassVar[Mapping[str, Span | Choice]] = {}

    def __init__(self, epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, **kwargs)
