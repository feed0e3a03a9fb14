"""What a black box is sent: arrays of numbers or texts, with a key for each that its answer is kept by."""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retrace_pl.external.answers import KEY_BYTES, input_keys

__all__ = ["ArrayQuestions", "Encoding", "Questions", "TextQuestions"]

Encoding = Literal["base64", "list"]


class Questions(ABC):
    """Inputs in the form that somebody else is asked about them."""

    @abstractmethod
    def __len__(self) -> int:
        """How many."""

    @abstractmethod
    def keys(self) -> list[bytes]:
        """A hash of each; equal questions have equal ones, whatever batch they come in."""

    @abstractmethod
    def rows(self, numbers: Sequence[int]) -> Self:
        """Some of them."""

    @abstractmethod
    def argument(self) -> Any:
        """What a Python function is called with."""

    @abstractmethod
    def content(self, encoding: Encoding) -> Any:
        """What an endpoint is sent under ``inputs``."""


class ArrayQuestions(Questions):
    """Numbers [n, ...] as float32, such as images [n, C, S, S].

    Args:
        inputs: The numbers.
    """

    def __init__(self, inputs: Tensor | NDArray[np.float32]) -> None:
        self.array: NDArray[np.float32] = (
            inputs.detach().cpu().float().contiguous().numpy() if isinstance(inputs, Tensor) else inputs
        )

    def __len__(self) -> int:
        return len(self.array)

    def keys(self) -> list[bytes]:
        """Hashes of their shape and bytes."""
        return input_keys(self.array)

    def rows(self, numbers: Sequence[int]) -> Self:
        """Some of them."""
        return type(self)(self.array[list(numbers)])

    def argument(self) -> NDArray[np.float32]:
        """A copy of the array."""
        return self.array.copy()

    def content(self, encoding: Encoding) -> Any:
        """Base64 of little-endian float32 with its shape, or nested lists."""
        if encoding == "list":
            return self.array.tolist()
        data = base64.b64encode(self.array.astype("<f4").tobytes()).decode("ascii")
        return {"shape": list(self.array.shape), "dtype": "float32", "data": data}


class TextQuestions(Questions):
    """Texts as they are.

    Args:
        texts: The texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def keys(self) -> list[bytes]:
        """Hashes of their UTF-8."""
        return [
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES, key=b"text").digest()
            for text in self.texts
        ]

    def rows(self, numbers: Sequence[int]) -> Self:
        """Some of them."""
        return type(self)([self.texts[number] for number in numbers])

    def argument(self) -> list[str]:
        """A list of strings."""
        return list(self.texts)

    def content(self, encoding: Encoding) -> list[str]:
        """A list of strings, whatever the encoding of numbers is."""
        return list(self.texts)
