"""What attacks that optimise inputs directly, without a generator, must know about those inputs."""

from __future__ import annotations

from torch import Tensor

from retrace_pl.attacks.base import AttackContext, NotApplicable
from retrace_pl.errors import InputError
from retrace_pl.models import ClassifierBehaviour
from retrace_pl.traces import ModelPair

__all__ = ["Box", "check_box", "classifier_pair", "input_shape"]

Box = tuple[float, float] | None
"""Lower and upper bound of every number of an input; None for none."""


def classifier_pair(context: AttackContext) -> ModelPair:
    """The pair, if its models are classifiers over one floating-point tensor.

    Raises:
        InputError: There is no pair.
        NotApplicable: The models are of another kind.
    """
    if context.pair is None:
        raise InputError("this attack needs a model pair; the context has none")
    behaviour = context.pair.behaviour
    if not isinstance(behaviour, ClassifierBehaviour):
        raise NotApplicable(
            f"the attack moves the inputs of a classifier over one floating-point tensor; {type(behaviour).__name__} "
            "describes models of another kind"
        )
    public: object = context.public
    if public is not None and not (isinstance(public, Tensor) and public.is_floating_point() and public.ndim > 1):
        raise NotApplicable("the attack moves the numbers of an input; these inputs are no floating-point tensors")
    return context.pair


def input_shape(context: AttackContext) -> tuple[int, ...]:
    """Shape of one input, read off the public inputs or else off the generator; no model is asked.

    Raises:
        InputError: Neither tells.
    """
    if context.public is not None and len(context.public) > 0:
        return tuple(context.public.shape[1:])
    shape = getattr(context.generator, "output_shape", None)
    if not shape:
        raise InputError("the shape of an input is unknown: give public inputs, or a generator with output_shape")
    return tuple(int(side) for side in shape)


def check_box(attack: str, box: Box) -> Box:
    """The bounds as a tuple of floats.

    Raises:
        InputError: They are no interval.
    """
    if box is None:
        return None
    low, high = (float(bound) for bound in box)
    if not low < high:
        raise InputError(f"{attack}.box must be two bounds, the lower one first, got {list(box)}")
    return low, high
