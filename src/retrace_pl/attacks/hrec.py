"""HRec: what the last layer gives away about a deleted record, turned back into an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from retrace_pl.attacks.base import Attack, AttackContext, NotApplicable, Reconstruction
from retrace_pl.attacks.feature_inversion import InversionLog, invert_features, latent_start, pixel_start
from retrace_pl.attacks.feature_search import search_features
from retrace_pl.attacks.hrec_linear import (
    Factors,
    kronecker_product,
    leading_factors,
    logit_product,
    scale_to_constant,
    softmax_hessian_product,
    with_constant,
)
from retrace_pl.attacks.linear_head import HeadReader, find_head, head_matrix
from retrace_pl.attacks.parameter_difference import parameter_difference
from retrace_pl.envs import random_stream
from retrace_pl.errors import InputError

__all__ = ["HRec"]

Estimate = Literal["hessian", "kronecker", "difference", "outputs"]
Space = Literal["generator", "pixels"]

_SAME_FEATURES = 1e-3
"""Relative change of the public features up to which only the head counts as changed."""


@dataclass(frozen=True)
class _Recovered:
    """What the last layer gives away.

    Args:
        features: phi of the deleted data ``[F]``, float64.
        centre: Mean feature of the public inputs ``[F]``.
        factors: Singular pair behind it.
        scaled_by: Where the scale of phi comes from.
        feature_change: Relative difference between both models' features of the public inputs.
    """

    features: Tensor
    centre: Tensor
    factors: Factors
    scaled_by: str
    feature_change: float

    @property
    def label(self) -> int:
        """The class whose probability the deleted data pulled up: where the residual p - e_y is least."""
        return int(self.factors.right.argmin())

    @property
    def scope(self) -> str:
        """How much of the theory holds for this pair."""
        if self.feature_change <= _SAME_FEATURES:
            return "head only: the features of a single deleted record; of several, their residual-weighted mean"
        return "beyond the method's linear scope: a prototype, the residual-weighted mean feature of what was deleted"


class HRec(Attack):
    """Reads the deleted data's features and label off the change of the last layer, and inverts the features.

    Source: Bertran et al., "Reconstruction Attacks on Machine Unlearning: Simple Models are Vulnerable" (NeurIPS 2024,
    arXiv 2405.20272); there is no public code. White-box. Where both last layers are minimisers over the same
    features phi, ``theta+ - theta- = -H^-1 g`` with ``g = phi (p - e_y)^T`` of the deleted record. The gradient is
    estimated with the Hessian of public features; its leading singular pair is (phi, residual), the residual is least
    at the label, and an input with these features is sought by gradient descent. See
    :mod:`retrace_pl.attacks.hrec_linear` for the equations.

    The theory covers one record and a linear model, or a deep one whose last layer alone was refitted. For a deleted
    class g is a sum, so that phi is its residual-weighted mean feature: a prototype, not a record. Where unlearning
    changed the features too, f+'s are used for everything, and the difference of the heads is only meaningful as far
    as both feature spaces agree: not after retraining from scratch, whose head has other coordinates. ``facts``
    says which case it was.

    Every public input and every evaluated candidate is one query, although only f+ is asked about candidates.

    Args:
        inversion: ``generator`` seeks a latent, under the same prior as every attack with the audit's generator, by
            descent or, where the generator's samples are no continuous numbers (texts), by CMA-ES with as many
            evaluations; ``pixels`` seeks the input itself, with a penalty on its total variation and no prior.
        starts: Descents at once, each from its own start; their ends are the reconstruction.
        steps: Evaluations of every start; as many as the budget allows where left out.
        learning_rate: Adam's step size, in latent coordinates (standard deviation 1) or in pixels.
        tv_weight: Weight of the mean total variation, for ``pixels`` alone.
        estimate: How the gradient comes out of the two models. ``hessian`` is the published way; ``kronecker`` takes
            the Hessian for a Kronecker product; ``difference`` takes it for the identity, right for one step of
            gradient ascent; ``outputs`` (ours) replaces the difference of the heads by that of the logits on
            public inputs, which needs no common feature space.
        weight_decay: L2 penalty per record that both models were trained with (lambda / n), part of the Hessian; not
            for ``outputs``.
        centre: Compare features after taking off their public mean. The published cosine is without, and then mostly
            compares what all features have in common.
        public_records: Public inputs used at most; half of the budget at most.
        batch_size: Public inputs evaluated at once.

    Raises:
        InputError: A setting is out of range.
    """

    name: ClassVar[str] = "hrec"

    def __init__(
        self,
        inversion: Space = "generator",
        starts: int = 64,
        steps: int | None = None,
        learning_rate: float = 0.05,
        tv_weight: float = 0.01,
        estimate: Estimate = "hessian",
        weight_decay: float = 0.0,
        centre: bool = True,
        public_records: int = 2048,
        batch_size: int = 256,
    ) -> None:
        for name, choices, value in (("inversion", Space, inversion), ("estimate", Estimate, estimate)):
            if value not in get_args(choices):
                raise InputError(f"attack.{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
        for name, number in (("starts", starts), ("public_records", public_records), ("batch_size", batch_size)):
            if number < 1:
                raise InputError(f"attack.{name} must be at least 1, got {number}")
        if steps is not None and steps < 1:
            raise InputError(f"attack.steps must be at least 1, got {steps}")
        if learning_rate <= 0 or tv_weight < 0 or weight_decay < 0:
            raise InputError("attack: learning_rate must be positive, tv_weight and weight_decay not negative")
        self.inversion: Space = inversion
        self.starts = starts
        self.steps = steps
        self.learning_rate = learning_rate
        self.tv_weight = tv_weight
        self.estimate: Estimate = estimate
        self.weight_decay = weight_decay
        self.centre = centre
        self.public_records = public_records
        self.batch_size = batch_size

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Recover the features and the label, then invert the features.

        Raises:
            AccessError: Black- or gray-box access.
            NotApplicable: There are no models or no public inputs, no linear head, heads that cannot be compared, or
                too small a budget.
        """
        if context.pair is None or context.public is None or len(context.public) == 0:
            raise NotApplicable("hrec needs both models and public inputs")
        parameter_difference(context.pair)  # refuses pairs whose parameters cannot be compared
        networks = context.pair.networks()
        public = self._public(context.public, context.budget, context.seed)
        name = find_head(networks[0], context.pair.behaviour, public[:1].to(context.pair.device))
        queries = len(public) + 1
        readers = [HeadReader(network, context.pair.behaviour, name) for network in networks]
        if self.estimate != "outputs" and torch.equal(*(head_matrix(reader.head) for reader in readers)):
            raise NotApplicable("the last layer is the same in both models, so it says nothing; other layers changed")
        steps = (context.budget - queries) // self.starts
        if steps < 1:
            raise NotApplicable(
                f"hrec: {queries} queries go to public inputs, which leaves none of {context.budget} for "
                f"{self.starts} starts; raise the budget or lower attack.starts or attack.public_records"
            )
        steps = steps if self.steps is None else min(steps, self.steps)
        recovered = self._recover(readers, public)
        return self._invert(context, readers[0], recovered, public, queries, steps)

    def _public(self, public: Tensor, budget: int, seed: int) -> Tensor:
        """A random part of the public inputs that the settings and half of the budget allow."""
        n = max(1, min(self.public_records, (budget - 1) // 2))
        if len(public) <= n:
            return public
        return public[torch.randperm(len(public), generator=random_stream(seed, "hrec public"))[:n]]

    def _recover(self, readers: list[HeadReader], public: Tensor) -> _Recovered:
        """Features and label of the deleted data from both heads and the public inputs, with f+'s features."""
        (features, logits), (others, other_logits) = (reader.read(public, self.batch_size) for reader in readers)
        heads = [head_matrix(reader.head) for reader in readers]
        has_bias = readers[0].head.bias is not None
        phi = with_constant(features) if has_bias else features
        change = heads[0] - heads[1]
        if self.estimate == "outputs":
            moved = logits - other_logits
            product = logit_product(phi, logits, moved - moved.mean(dim=1, keepdim=True))
        elif self.estimate == "difference":
            product = change
        else:
            multiply = softmax_hessian_product if self.estimate == "hessian" else kronecker_product
            product = multiply(phi, heads[0], change, regularisation=self.weight_decay * len(phi))
        factors = leading_factors(-product, phi.mean(dim=0))
        centre = features.mean(dim=0)
        left = factors.left[: features.shape[1]]
        if has_bias and float(factors.left[-1]) > 1e-6:
            found, scaled_by = scale_to_constant(factors.left), "constant coordinate"
        else:  # as long along the mean feature as the mean feature itself
            found, scaled_by = left * (centre @ centre / (left @ centre).clamp_min(1e-12)), "mean public feature"
        feature_change = float((features - others).norm() / features.norm().clamp_min(1e-30))
        return _Recovered(found, centre, factors, scaled_by, feature_change)

    def _invert(
        self,
        context: AttackContext,
        reader: HeadReader,
        recovered: _Recovered,
        public: Tensor,
        queries: int,
        steps: int,
    ) -> Reconstruction:
        random = random_stream(context.seed, "hrec start")
        device = reader.head.weight.device
        centre = recovered.centre.float().to(device) if self.centre else None

        def features(inputs: Tensor) -> Tensor:
            return reader(inputs)[0].float()

        box: tuple[float, float] | None = None
        latent_dim: int | None = None
        if self.inversion == "generator":
            start, render = latent_start(context.generator, context.latent, self.starts, random)
            with torch.no_grad():
                continuous = render(start[:1].to(device)).is_floating_point()
            if not continuous:
                result = search_features(
                    context,
                    features,
                    recovered.features,
                    centre,
                    spent=queries,
                    budget=steps * self.starts,
                    k=self.starts,
                )
                result.facts = self._facts(recovered, result.scores, len(public), steps) | {
                    "inversion": "generator, by search"
                }
                return result
            latent_dim = start.shape[1]
        else:
            start, render, box = pixel_start(public, self.starts, random)
        log = InversionLog(context, latent_dim, queries, steps * self.starts)
        try:
            found = invert_features(
                features,
                recovered.features.float().to(device),
                start.to(device),
                render,
                centre=centre,
                steps=steps,
                learning_rate=self.learning_rate,
                tv_weight=self.tv_weight if self.inversion == "pixels" else 0.0,
                box=box,
                watch=log,
            )
        finally:
            log.end()
        inputs, scores = found.inputs.cpu(), found.cosines.cpu()
        latents = None if latent_dim is None else context.latent.project(found.variables.cpu())
        return Reconstruction(
            instance=inputs[:1].clone(),
            instance_score=float(scores[0]),
            inputs=inputs,
            scores=scores,
            queries=log.queries,
            curve=log.curve,
            instance_latent=None if latents is None else latents[:1].clone(),
            latents=latents,
            pool=log.pool,
            facts=self._facts(recovered, scores, len(public), steps),
        )

    def _facts(self, recovered: _Recovered, scores: Tensor, public_records: int, steps: int) -> dict[str, Any]:
        return {
            "inferred_label": recovered.label,
            "singular_ratio": recovered.factors.ratio,
            "cosine_best": float(scores[0]),
            "cosine_mean": float(scores.mean()),
            "feature_change": recovered.feature_change,
            "scope": recovered.scope,
            "scaled_by": recovered.scaled_by,
            "estimate": self.estimate,
            "inversion": self.inversion,
            "public_records": public_records,
            "steps": steps,
        }
