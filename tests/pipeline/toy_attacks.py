"""Small attacks and inferences that a configuration can name."""

from typing import ClassVar

import torch

from retrace_pl.attacks import Attack, Finding, InferenceAttack, NotApplicable, Reconstruction
from retrace_pl.searchers import RandomSearcher


class BestPublic(Attack):
    """The public inputs with the largest trace; no generator."""

    name: ClassVar[str] = "best_public"

    def __init__(self, top_k: int = 8) -> None:
        self.top_k = top_k

    def reconstruct(self, context):
        shown = context.public[: context.budget]
        scores = context.scorer(shown).score.cpu()
        best = scores.topk(self.top_k).indices
        return Reconstruction(
            instance=shown[best[:1]],
            instance_score=float(scores[best[0]]),
            inputs=shown[best],
            scores=scores[best],
            queries=len(shown),
            facts={"looked_at": len(shown)},
        )


class OneDirection(Attack):
    """Needs both models' parameters, asks for nothing else, and scores by a cost of its own."""

    name: ClassVar[str] = "one direction"

    def reconstruct(self, context):
        first, second = context.pair.networks()
        gap = sum(float((a - b).abs().sum()) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        inputs = torch.full((1, *context.public.shape[1:]), 0.5)
        return Reconstruction(inputs, gap, inputs, torch.tensor([gap]), 0, facts={"<b>gap</b>": gap})


class Unsuited(Attack):
    """Has nothing to work on, whatever the pair."""

    name: ClassVar[str] = "unsuited"

    def reconstruct(self, context):
        raise NotApplicable("unsuited: the pair has no\nleft <i>shoe</i>")


class Greedy(Attack):
    """Claims one query more than it may make."""

    name: ClassVar[str] = "greedy"

    def reconstruct(self, context):
        inputs = context.public[:1]
        return Reconstruction(inputs, 0.0, inputs, torch.zeros(1), context.budget + 1)


class LargestGap(InferenceAttack):
    """Which class lost most: the public inputs of that class, by f+, are those whose probabilities moved furthest."""

    name: ClassVar[str] = "largest_gap"

    def infer(self, context):
        outputs = context.pair.outputs(context.public)
        gaps = (outputs.original - outputs.unlearned).norm(dim=1)
        labels = outputs.original.argmax(1)
        means = torch.stack([gaps[labels == label].mean().nan_to_num() for label in range(outputs.original.shape[1])])
        return Finding({"class": int(means.argmax())}, len(context.public), {"gaps": means.cpu()})

    def judge(self, finding, pair, truth):
        assert finding.tensors["gaps"].shape == (10,)
        return {"correct": finding.answer["class"] in truth.deleted_classes, "unseen": len(truth.unseen)}


class NeedsWhite(InferenceAttack):
    """Asks for the models themselves."""

    name: ClassVar[str] = "needs_white"

    def infer(self, context):
        return Finding({"models": len(context.pair.networks())}, 0)

    def judge(self, finding, pair, truth):
        raise NotApplicable("nothing to compare with")


class WhiteSearcher(RandomSearcher):
    """Random search that insists on white-box access."""

    name: ClassVar[str] = "white"

    def _search(self, core, budget, seed, observer):
        core.scorer.pair.networks()
        super()._search(core, budget, seed, observer)
