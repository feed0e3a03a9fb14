"""Reversed guidance: decode what the original model believed and the unlearned one no longer does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from retrace_pl.attacks.base import Attack, AttackContext, NotApplicable, Reconstruction
from retrace_pl.attacks.class_inference import infer_classes
from retrace_pl.envs import CandidatePool, random_stream
from retrace_pl.errors import InputError
from retrace_pl.models.text_generator import GuidedGenerator
from retrace_pl.searchers import NullObserver
from retrace_pl.traces import ModelPair

__all__ = ["ReversedGuidance"]

_CLASS_SHARE = 4
"""Inferring the class may take the budget over this."""

_SMALLEST = 1e-6
"""Probabilities are not taken smaller than this before their logarithm."""

_LEADERS = 64
_BATCH = 512


class ReversedGuidance(Attack):
    """Decodes the generator's texts token by token towards what f+ says about a class and f- no longer does.

    Source: Wu et al. (NeurIPS 2025, arXiv 2505.24379), for language models before and after unlearning:
    ``log p+ + w (log p+ - log p-)`` of the next token, among the tokens that a filter leaves. Here two classifiers are
    audited, which have no next token. With the frozen generator as prior, Bayes' rule makes a language model of the
    deleted class c out of either, ``q(x_t | x_<t) ~ p_G(x_t | x_<t, z) p_c(x_<=t)`` (Yang and Klein, NAACL 2021), and
    the guidance between these two is, up to a constant,

    ``x_t = argmax log p_G(x_t | x_<t, z) + log p+_c(x_<=t) + w (log p+_c(x_<=t) - log p-_c(x_<=t))``

    over the ``candidates`` likeliest tokens under p_G (the filter); ``x_<=t`` is the text so far, ended there. z is
    drawn from the prior, so that texts differ. Black-box; no search and no gradient: cheap per idea, not per query.

    A query is one begun text shown to both models: ``candidates`` of them for every token, and one more for the trace
    score of the finished text, by which the best are chosen. Texts are decoded for as long as the budget lasts for a
    whole one of the greatest length.

    Args:
        label: Class c, or several that take turns. Inferred as by ``ClassInference`` where it is not given, with a
            quarter of the budget at most.
        weight: w; 0 is decoding guided by f+ alone.
        candidates: Tokens that are ranked at every place.
        top_k: Texts of the reconstruction, those with the highest trace scores.
        batch_size: Texts decoded at once.

    Raises:
        InputError: A setting is out of range.
    """

    name: ClassVar[str] = "reversed_guidance"

    def __init__(
        self,
        label: int | list[int] | None = None,
        weight: float = 2.0,
        candidates: int = 8,
        top_k: int = 64,
        batch_size: int = 32,
    ) -> None:
        for setting, count in (("candidates", candidates), ("top_k", top_k), ("batch_size", batch_size)):
            if count < 1:
                raise InputError(f"reversed_guidance.{setting} must be at least 1, got {count}")
        if not 0 <= weight < math.inf:
            raise InputError(f"reversed_guidance.weight must not be negative, got {weight}")
        labels = [label] if isinstance(label, int) else label
        if labels is not None and (not labels or min(labels) < 0):
            raise InputError(f"reversed_guidance.label must be one or more classes from 0 on, got {label}")
        self.labels = labels
        self.weight = weight
        self.candidates = candidates
        self.top_k = top_k
        self.batch_size = batch_size

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Infer the class if need be, decode texts while the budget lasts, and take the best of them.

        Raises:
            InputError: ``label`` is no class of the models.
            NotApplicable: There are no models, the generator does not build its samples step by step, no class can be
                inferred, or the budget is too small for a single text.
        """
        pair, generator = context.pair, context.generator
        if pair is None:
            raise NotApplicable("reversed guidance needs both models")
        if not isinstance(generator, GuidedGenerator):
            raise NotApplicable(
                f"{type(generator).__name__} does not build its samples step by step, so there is no step to guide"
            )
        labels, facts, spent = self._classes(context)
        whole = self.candidates * generator.guided_steps + 1
        if context.budget - spent < whole:
            raise NotApplicable(
                f"reversed guidance needs up to {whole} queries for one text and has {context.budget - spent} of "
                f"{context.budget}; raise the budget or lower reversed_guidance.candidates"
            )
        random = random_stream(context.seed, "reversed guidance")
        guide = _Guide(pair, self.weight, spent)
        found: list[Tensor] = []
        scores = torch.empty(0)
        curve: list[tuple[int, float, float]] = []
        observer, no_latents = context.observer or NullObserver(), CandidatePool(1)
        observer.on_start(context.budget)
        try:
            while (n := min(self.batch_size, (context.budget - guide.queries) // whole)) > 0:
                aims = [labels[(len(scores) + row) % len(labels)] for row in range(n)]
                guide.aims = torch.tensor(aims, device=pair.device)
                noise = torch.randn(n, generator.latent_dim, generator=random)
                samples = generator.guided(context.latent.project(noise).to(pair.device), guide, self.candidates)
                new = context.scorer(samples).score.detach().to("cpu", torch.float32)
                guide.queries += n
                found.append(samples.cpu())
                scores = torch.cat([scores, new])
                best = scores.topk(min(_LEADERS, len(scores))).values
                curve.append((guide.queries, float(best[0]), float(best.mean())))
                scalars = {"score/best": curve[-1][1], "score/top64": curve[-1][2], "score/batch": float(new.mean())}
                observer.on_update(guide.queries, no_latents, scalars)
        finally:
            observer.on_end()
        rows = scores.argsort(descending=True, stable=True)[: self.top_k]
        chosen = torch.cat(found)[rows]
        facts |= {"labels": labels, "weight": self.weight, "candidates": self.candidates, "texts": len(scores)}
        return Reconstruction(
            instance=chosen[:1].clone(),
            instance_score=float(scores[rows[0]]),
            inputs=chosen,
            scores=scores[rows],
            queries=guide.queries,
            curve=curve,
            facts=facts,
        )

    def _classes(self, context: AttackContext) -> tuple[list[int], dict[str, Any], int]:
        """The classes to aim at, facts about them, and the queries that it took."""
        if self.labels is not None:
            return self.labels, {"label_given": True}, 0
        labels, facts, queries = infer_classes(replace(context, budget=context.budget // _CLASS_SHARE), self.name)
        return labels, {"label_given": False, "class_inference": facts}, queries


class _Guide:
    """What the models add to a token's log-probability; counts the texts that it is shown.

    Args:
        pair: The models.
        weight: w.
        queries: Queries made before.

    Attributes:
        aims: The class of every text that is being decoded, int64 [n].
    """

    def __init__(self, pair: ModelPair, weight: float, queries: int) -> None:
        self.pair = pair
        self.weight = weight
        self.queries = queries
        self.aims = torch.empty(0, dtype=torch.int64)

    def __call__(self, samples: Tensor, texts: Tensor) -> Tensor:
        """``log p+_c + w (log p+_c - log p-_c)`` of begun texts ``[m, L]`` with the numbers ``[m]``."""
        self.queries += len(samples)
        aims = self.aims[texts]
        return torch.cat(
            [
                self._of(part, aim)
                for part, aim in zip(torch.split(samples, _BATCH), torch.split(aims, _BATCH), strict=True)
            ]
        )

    def _of(self, samples: Tensor, aims: Tensor) -> Tensor:
        outputs = self.pair.outputs(samples)
        classes = outputs.original.shape[1]
        if int(aims.max()) >= classes:
            raise InputError(
                f"reversed_guidance.label: {int(aims.max())} is no class of a model with {classes} outputs"
            )
        before, after = (
            probabilities.gather(1, aims[:, None])[:, 0].clamp_min(_SMALLEST).log()
            for probabilities in (outputs.original, outputs.unlearned)
        )
        return before + self.weight * (before - after)
