"""Models of which only answers are seen: a Python callable, or an HTTP endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrace_pl.data.paths import one_line
from retrace_pl.errors import RunError
from retrace_pl.external.answers import AnswerStore
from retrace_pl.external.outputs import SUM_TOLERANCE
from retrace_pl.external.questions import ArrayQuestions, Questions

__all__ = ["Ask", "BlackBox", "checked_probabilities", "python_callable"]

Floats = NDArray[np.float32]

Ask = Callable[[Questions, Callable[[int], None]], Any]
"""Sends n questions and returns the answer; calls its second argument with n before every attempt."""


class BlackBox(nn.Module):
    """A module whose forward asks somebody else for probabilities.

    Every input is asked for once: answers are kept in `store`, and an input that comes again, in this run or a resumed
    one, is answered from there. What counts against the budget is every input that was sent, also in attempts that
    failed, because a server may have counted those too.

    Args:
        name: What it is, for messages.
        ask: Sends one batch.
        store: Answers so far.
        batch_size: Inputs of one batch.
        budget: Most inputs that may ever be sent with this store; None sets no limit.
        limit_option: The option that raises the budget, for messages.

    Attributes:
        present: Puts inputs [n, ...] into the form that they are asked about in; float32 numbers unless set.
    """

    present: Callable[[Tensor], Questions]

    def __init__(
        self,
        name: str,
        ask: Ask,
        store: AnswerStore,
        batch_size: int,
        budget: int | None = None,
        limit_option: str = "--endpoint-budget",
    ) -> None:
        super().__init__()
        self.name = name
        self.ask = ask
        self.store = store
        self.batch_size = batch_size
        self.budget = budget
        self.limit_option = limit_option
        self.classes = store.classes
        self.present = ArrayQuestions

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [n, ...] to probabilities [n, K], without gradients.

        Raises:
            RunError: The budget does not allow the new inputs, nobody answers, or the answer is none.
        """
        return torch.from_numpy(self._answers(self.present(inputs))).to(inputs.device)

    def fresh(self, inputs: Tensor) -> Tensor:
        """Asks for inputs [n, ...] although they may have been answered before; the answers are not kept."""
        questions = self.present(inputs)
        rows = range(len(questions))
        parts = [
            self._asked(questions.rows(rows[start : start + self.batch_size]))
            for start in range(0, len(questions), self.batch_size)
        ]
        return torch.from_numpy(np.concatenate(parts))

    def _answers(self, questions: Questions) -> Floats:
        keys = questions.keys()
        new = {key: row for row, key in enumerate(keys)}  # the same input twice in a batch is one question
        missing = [
            row for (key, row), known in zip(new.items(), self.store.find(list(new)), strict=True) if known is None
        ]
        for start in range(0, len(missing), self.batch_size):
            rows = missing[start : start + self.batch_size]
            self.store.add([keys[row] for row in rows], self._asked(questions.rows(rows)))
        found = [answer for answer in self.store.find(keys) if answer is not None]
        return np.stack(found)

    def _asked(self, questions: Questions) -> Floats:
        answer = self.ask(questions, self._charge)
        probabilities = checked_probabilities(answer, len(questions), self.classes, self.name)
        self.classes = probabilities.shape[1]
        return probabilities

    def _charge(self, inputs: int) -> None:
        if self.budget is not None and self.store.asked + inputs > self.budget:
            raise RunError(
                f"{self.name}: {self.store.asked} of {self.budget} queries are used and {inputs} more are needed; "
                f"the answers so far are kept, raise {self.limit_option} and run the same command again"
            )
        self.store.count(inputs)


def checked_probabilities(answer: Any, n: int, classes: int | None, name: str) -> Floats:
    """The answer of a black box as float32 [n, K], if that is what it is.

    Args:
        answer: What came back: nested lists, an array or a tensor.
        n: Inputs that were sent.
        classes: Number K of classes of earlier answers; None before the first.
        name: Who answered, for messages.

    Raises:
        RunError: It is no such array, not finite, or its rows are no probabilities.
    """
    try:
        if isinstance(answer, Tensor):
            answer = answer.detach().to("cpu", torch.float64).numpy()
        values = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RunError(f"{name} answers with no array of numbers: {one_line(error)}") from error
    wanted = f"[{n}, {'classes' if classes is None else classes}]"
    if values.ndim != 2 or len(values) != n or values.shape[1] < 2 or classes not in (None, values.shape[1]):
        raise RunError(
            f"{name} answers with shape {list(values.shape)} to {n} inputs; probabilities {wanted} are expected"
        )
    if not np.isfinite(values).all():
        raise RunError(f"{name} answers with values that are not finite")
    worst = float(np.abs(values.sum(axis=1) - 1).max())
    if values.min() < -SUM_TOLERANCE or worst > SUM_TOLERANCE:
        raise RunError(
            f"{name} answers with rows that are no probabilities (smallest value {values.min():.3g}, sums off 1 by "
            f"up to {worst:.3g}); it must return probabilities, not scores"
        )
    return values.clip(min=0).astype(np.float32)


def python_callable(function: Callable[[Any], Any], name: str) -> Ask:
    """A callable of float32 numbers [n, ...] or of a list of n texts that returns probabilities [n, K], to ask."""

    def ask(questions: Questions, charge: Callable[[int], None]) -> Any:
        charge(len(questions))
        try:
            return function(questions.argument())
        except Exception as error:
            raise RunError(f"{name} fails: {one_line(error)}") from error

    return ask
