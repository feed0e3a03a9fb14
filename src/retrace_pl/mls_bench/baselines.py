"""The benchmark's four baselines exactly as published; the zoo's classes have the settings of the methods' papers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from retrace_pl.unlearning import SCRUB, BadTeacher, NegativeGradient, RetainFineTune, UnlearningMethod
from retrace_pl.unlearning.teachers import prepared


class PublishedBadTeacher(BadTeacher):
    """MLS-Bench's bad_teacher: the zoo's, with the benchmark's way of drawing the random teacher.

    Rule: that of `BadTeacher` in form "mls_bench", with inherited batch-norm statistics. The benchmark draws the
    weights of convolutions and linear layers anew and sets linear biases and batch normalisation back, but leaves the
    biases of convolutions as they were trained; so do we.

    Args:
        kwargs: The settings of `BadTeacher`.
    """

    @torch.no_grad()
    def prepare(self, model: nn.Module) -> None:
        """Makes both teachers.

        Args:
            model: The original model.
        """
        super().prepare(model)
        teacher = prepared(self.incompetent, self.name)
        for source, target in zip(model.modules(), teacher.modules(), strict=True):
            if isinstance(source, nn.Conv2d) and isinstance(target, nn.Conv2d) and target.bias is not None:
                assert source.bias is not None
                target.bias.copy_(source.bias)


BASELINES: dict[str, Callable[..., UnlearningMethod]] = {
    "retain_finetune": RetainFineTune,
    "negative_gradient": partial(NegativeGradient, form="mls_bench"),
    "bad_teacher": partial(PublishedBadTeacher, form="mls_bench", statistics="inherited"),
    "scrub": partial(SCRUB, temperature=4.0, alpha=0.01, gamma=0.99, msteps=2, batch_norm="update"),
}
"""Name -> factory that takes the benchmark's recipe: epochs, lr, batch_size, optimizer, weight_decay."""
