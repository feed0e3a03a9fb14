"""Where gradient matching moves: the numbers of an input, or the embeddings of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import AttackContext, NotApplicable
from retrace_pl.attacks.gradient_matching import GradientMatcher, Match, Template
from retrace_pl.attacks.inputs import Box, classifier_pair, input_shape
from retrace_pl.models.behaviour import DiscreteBehaviour
from retrace_pl.traces import ModelPair

__all__ = ["EmbeddingSpace", "InputSpace", "NumberSpace", "input_space"]


class InputSpace(Protocol):
    """Where candidates are moved, and how they are read as inputs.

    Attributes:
        pair: The models.
        box: Bounds of every number; None for none.
        unit: Length of one unit of the learning rate.
        discrete: Whether inputs are names, which cannot be moved themselves.
    """

    pair: ModelPair
    box: Box
    unit: float
    discrete: bool

    def reserved(self, restarts: int) -> int:
        """Queries that the descents must leave over."""
        ...

    def matcher(self, model: nn.Module, direction: Mapping[str, Tensor]) -> GradientMatcher:
        """What compares candidates with a direction."""
        ...

    def start(self, random: torch.Generator) -> Tensor:
        """Where a descent begins."""
        ...

    def read(self, match: Match, matcher: GradientMatcher, labels: Tensor) -> Match:
        """The inputs that a descent found, on the CPU, with the cosine that they have."""
        ...

    def numbers(self, match: Match) -> int:
        """How many numbers a descent moves."""
        ...

    def facts(self) -> dict[str, Any]:
        """Plain facts about what was read."""
        ...


class NumberSpace:
    """The inputs themselves, where they are floating-point numbers; see `InputSpace`.

    Raises:
        NotApplicable: They are not.
    """

    unit = 1.0
    discrete = False

    def __init__(self, context: AttackContext, count: int, box: Box) -> None:
        self.pair = classifier_pair(context)
        self.box = box
        self._context = context
        self._count = count

    def reserved(self, restarts: int) -> int:
        """None."""
        return 0

    def matcher(self, model: nn.Module, direction: Mapping[str, Tensor]) -> GradientMatcher:
        """Compares inputs."""
        return GradientMatcher(model, self.pair.behaviour, direction)

    def start(self, random: torch.Generator) -> Tensor:
        """N(0, 1), ``[u, ...]``."""
        return torch.randn(self._count, *input_shape(self._context), generator=random)

    def read(self, match: Match, matcher: GradientMatcher, labels: Tensor) -> Match:
        """What was found, as it is."""
        return Match(match.inputs.float().cpu(), match.cosine, match.variation)

    def numbers(self, match: Match) -> int:
        """All of the inputs'."""
        return match.inputs.numel()

    def facts(self) -> dict[str, Any]:
        """None."""
        return {}


class EmbeddingSpace:
    """The embeddings of tokens, read as the nearest tokens by angle; see `InputSpace`.

    Texts have the median length of the public ones. A start is normal noise with the root mean square of all word
    embeddings, which is also the unit of the learning rate; there is no box. A descent's end is read as tokens, and the
    cosine of these is what counts: one more query for every text and restart, and one for finding out which parameters
    lie behind the embeddings.

    Raises:
        NotApplicable: There are no public texts, or they leave no place free.
    """

    box: Box = None
    discrete = True

    def __init__(self, pair: ModelPair, behaviour: DiscreteBehaviour, public: Tensor | None, count: int) -> None:
        if public is None or len(public) == 0:
            raise NotApplicable("gradient matching at the embeddings learns the length of a text from public ones")
        self.pair = pair
        self._behaviour = behaviour
        self._count = count
        blanks, free = behaviour.blanks(public, count)
        if not bool(free.any()):
            raise NotApplicable("the public texts are too short: no token of a typical one is left to be found")
        self._inputs, self._free = blanks.to(pair.device), free.to(pair.device)
        self._model = pair.networks()[0]
        self.unit = behaviour.scale(self._model)
        self._continuous: list[float] = []

    def reserved(self, restarts: int) -> int:
        """One for every text of every restart, and one for every text before them."""
        return self._count * (restarts + 1)

    def matcher(self, model: nn.Module, direction: Mapping[str, Tensor]) -> GradientMatcher:
        """Compares embeddings at the free places."""
        with torch.inference_mode(False):
            known = self.pair.behaviour.differentiable(model, self._inputs).detach().float()
        return GradientMatcher(model, self.pair.behaviour, direction, Template(self._inputs, self._free, known))

    def start(self, random: torch.Generator) -> Tensor:
        """Noise as loud as an embedding, ``[u, L, E]``."""
        width = self.pair.behaviour.differentiable(self._model, self._inputs).shape[2]
        return self.unit * torch.randn(*self._inputs.shape, width, generator=random)

    def read(self, match: Match, matcher: GradientMatcher, labels: Tensor) -> Match:
        """The nearest tokens, ``[u, L]``, int64, and their own cosine."""
        self._continuous.append(match.cosine)
        tokens = self._behaviour.nearest(self._model, self._inputs, self._free, match.inputs)
        with torch.inference_mode(False), torch.enable_grad():
            points = self.pair.behaviour.differentiable(matcher.model, tokens)
            cosine = float(matcher.cosine(points, labels.to(points.device)).detach())
        return Match(tokens.cpu(), cosine, match.variation)

    def numbers(self, match: Match) -> int:
        """Those of the embeddings at the free places."""
        width = self.pair.behaviour.differentiable(self._model, self._inputs).shape[2]
        return int(self._free.sum()) * width

    def facts(self) -> dict[str, Any]:
        """The cosines before the tokens were read."""
        return {"embedding_cosines": sorted(self._continuous, reverse=True)}


def input_space(context: AttackContext, count: int, box: Box) -> InputSpace:
    """Where `count` joint inputs of an audit can be moved.

    Raises:
        AccessError: Inputs are discrete, and access is not white-box.
        InputError: There is no pair.
        NotApplicable: The models are no classifiers over numbers or embedded names.
    """
    if context.pair is not None and isinstance(context.pair.behaviour, DiscreteBehaviour):
        return EmbeddingSpace(context.pair, context.pair.behaviour, context.public, count)
    return NumberSpace(context, count, box)
