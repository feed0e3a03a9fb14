"""Boundary shrink: every record to forget gets the label of the class that lies nearest to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.models import behaviour_of
from retrace_pl.unlearning.base import Batch, BatchNorm, UnlearningMethod, at_least
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import frozen_copy, prepared


class BoundaryShrink(UnlearningMethod):
    """Trains the records to forget on the nearest other class, found by one adversarial step (Boundary Shrink).

    Rule: `x' = clip(x + epsilon sign(grad_x CE(f+(x), y)), 0, 1)`, `y' = argmax_{k != y} f+(x')_k`, then descend
    `L({(x, y')})` on the unperturbed x. Needs the forget records alone. Of texts, x is the output of the embedding
    layer, epsilon counts in root mean squares of a text's embeddings, and nothing is clipped.
    Source: Chen et al., "Boundary Unlearning" (CVPR 2023), equations for the boundary shrink.

    The argmax leaves the record's own class out, so that a record which the adversarial step does not carry over the
    boundary gets the runner-up there instead of the label it should lose. f+ is the original model, kept frozen in
    eval mode: labels do not drift while the model moves. Nothing protects the retained records: the classes that
    receive the deleted one grow, and with many steps the whole model follows; look at `retain_acc`.

    Args:
        epochs: Passes over the records to forget.
        lr: Learning rate, multiplied by `strength`; 1e-5 is published, with SGD.
        batch_size: Records per batch.
        epsilon: Size of the adversarial step in units of pixel intensity (of texts: of the embeddings' root mean
            square), 0 to 1; a large one leads past the nearest class.
        batch_norm: "freeze" by default, because batches of the deleted class alone would take over the statistics.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range, or the inputs are neither floating-point images nor token ids.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget"})
    strength_scales_lr: ClassVar[bool] = True
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-6, 1e-2, log=True),
        "epochs": Span(1, 20),
        "epsilon": Span(0.005, 0.3, log=True),
        "optimizer": Choice(("sgd", "adam")),
        "batch_size": Choice((32, 64)),
    }

    def __init__(
        self,
        epochs: int = 10,
        lr: float = 1e-5,
        batch_size: int = 64,
        epsilon: float = 0.1,
        batch_norm: BatchNorm = "freeze",
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, batch_norm=batch_norm, **kwargs)
        at_least("epsilon", epsilon, 0, self.name)
        if epsilon > 1:
            raise InputError(f"{self.name}.epsilon is {epsilon}; pixels lie in [0, 1], so set it to 1 or less.")
        self.epsilon = epsilon
        self._original: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model, which finds the new labels."""
        self._original = frozen_copy(model)

    def nearest_labels(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The class on the other side of the nearest boundary of the original model.

        Args:
            inputs: Images `[n, C, H, W]` with pixels in [0, 1], or token ids `[n, L]` for a text classifier.
            labels: Their own classes `[n]`.

        Returns:
            Another class for each, `[n]`, int64.

        Raises:
            InputError: The inputs have no gradient.
        """
        original = prepared(self._original, self.name)
        behaviour = behaviour_of(original)
        behaviour.size(inputs)  # refuses inputs that are of another kind than the model's
        with torch.enable_grad():
            points = behaviour.differentiable(original, inputs)
            loss = behaviour.losses(behaviour.forward(original, inputs, points), labels).sum()
            (gradient,) = torch.autograd.grad(loss, points)
        with torch.no_grad():
            moved = behaviour.moved(inputs, points, gradient.sign(), self.epsilon)
            logits = behaviour.forward(original, inputs, moved)
            return logits.scatter(1, labels[:, None], float("-inf")).argmax(1)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends the loss of the forget batch on its new labels; see `UnlearningMethod.unlearn_step`."""
        inputs, labels = forget_batch
        nearest = self.nearest_labels(inputs, labels)
        loss = self.forget_mean(functional.cross_entropy(model(inputs), nearest, reduction="none"), forget_batch)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
