"""The zoo by name: the names that presets, the command line and result tables use."""

from __future__ import annotations

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import UnlearningMethod
from retrace_pl.unlearning.gradient_ascent import GradientAscent
from retrace_pl.unlearning.identity import Identity
from retrace_pl.unlearning.negative_gradient import NegativeGradient
from retrace_pl.unlearning.retain_finetune import RetainFineTune
from retrace_pl.unlearning.retrain import Retrain

METHODS: dict[str, type[UnlearningMethod]] = {
    "retrain": Retrain,
    "retain_finetune": RetainFineTune,
    "gradient_ascent": GradientAscent,
    "negative_gradient": NegativeGradient,
    "identity": Identity,
}
"""Name -> class. `configs/unlearning/NAME.yaml` holds its published settings, `configs/unlearning/SETTING/NAME.yaml`
the preset tuned for a data set and architecture."""


def get_method(name: str) -> type[UnlearningMethod]:
    """Finds a method of the zoo.

    Args:
        name: A key of METHODS, such as "negative_gradient".

    Returns:
        The class.

    Raises:
        InputError: The zoo has no such method.
    """
    if name not in METHODS:
        raise InputError(f"method: the zoo has no {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
