"""Reads what an audit left behind; nothing here computes a result."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from retrace_pl.audit import lookup
from retrace_pl.errors import InputError, RunError
from retrace_pl.metrics import Glossary, glossary_of

__all__ = ["RunData", "can_be_drawn"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RunData:
    """The readable results of one run.

    Args:
        folder: The run folder.
        metrics: Content of ``metrics.json``.
        curves: Content of ``curves.json``: rows (queries, best score, mean of the best) for each search; may be
            empty.
        tensors: Content of ``evaluation.safetensors``; may be empty.
        config: Text of ``config.yaml``; may be empty.
        texts: Content of ``texts.json``: candidates that are texts by the names of their tensors; may be empty.
    """

    folder: Path
    metrics: dict[str, Any]
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    config: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> RunData:
        """Reads a run folder; only ``metrics.json`` has to be there.

        Raises:
            InputError: If the folder or its ``metrics.json`` does not exist.
            RunError: If a file is damaged or of a schema this version does not know.
        """
        path = folder / "metrics.json"
        if not path.is_file():
            raise InputError(f"{path} does not exist: run `retrace evaluate` on this folder first")
        metrics = _json(path)
        if not isinstance(metrics, dict) or metrics.get("schema") != 1:
            raise RunError(f"{path} is not of schema 1: write it again with `retrace evaluate`")
        curves_path, tensors_path, config_path, texts_path = (
            folder / name for name in ("curves.json", "evaluation.safetensors", "config.yaml", "texts.json")
        )
        return cls(
            folder=folder,
            metrics=metrics,
            curves=_json(curves_path) if curves_path.is_file() else {},
            tensors=_tensors(tensors_path) if tensors_path.is_file() else {},
            config=config_path.read_text(encoding="utf-8", errors="replace") if config_path.is_file() else "",
            texts=_texts(texts_path) if texts_path.is_file() else {},
        )

    @property
    def glossary(self) -> Glossary:
        """Words for the metrics of the kind of data that the run is about."""
        return glossary_of(self.metrics)

    @property
    def title(self) -> str:
        """The audit's name and what was deleted, as far as the run knows it; not escaped."""
        name, setting = str(self.metrics.get("name") or "Audit"), self.metrics.get("setting") or {}
        classes, count = [str(label) for label in setting.get("deleted_classes") or []], setting.get("deleted_records")
        if classes and setting.get("deletion") == "class":
            last = f" and {classes[-1]}" if len(classes) > 1 else ""
            named = ", ".join(classes[:-1] if last else classes) + last
            return f"{name}: {'classes' if last else 'class'} {named} deleted"
        return f"{name}: {count} record{'' if count == 1 else 's'} deleted" if count else name

    @property
    def verdict(self) -> str:
        """`leak`, `no_evidence` or `invalid`; `metrics["verdict_reason"]` says why."""
        return str(self.metrics["verdict"])

    @property
    def candidates(self) -> Array | list[str] | None:
        """What the attack found: images [k, C, H, W] in [0, 1] or k texts; None where the files hold neither."""
        name = "attack.distribution"
        return self.texts[name] if name in self.texts else self.images(name)

    @property
    def report(self) -> Path | None:
        """The HTML report, or None where it was not written."""
        return self._existing("report.html")

    @property
    def tensorboard(self) -> Path | None:
        """Folder of the TensorBoard logs, or None where nothing was logged."""
        return self._existing("tensorboard")

    def _existing(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

    def get(self, path: str) -> Any:
        """Value of ``metrics.json`` at a dotted path, or None."""
        return lookup(self.metrics, path)

    def number(self, path: str) -> float | None:
        """Number of ``metrics.json`` at a dotted path, or None where it is missing, null or not a number."""
        value = self.get(path)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def images(self, name: str) -> Array | None:
        """Images [k, C, H, W] in [0, 1], or None where they are missing or the candidates are not pictures."""
        array = self.tensors.get(name)
        return array if array is not None and can_be_drawn(array) else None

    def vector(self, name: str) -> Array | None:
        """A one-dimensional tensor without its values that are not finite, or None."""
        array = self.tensors.get(name)
        if array is None or array.ndim != 1:
            return None
        return array[np.isfinite(array)]


def can_be_drawn(array: Array) -> bool:
    """Whether an array is a batch of grey or colour pictures [k, 1|3, H, W]."""
    return bool(array.ndim == 4 and array.shape[1] in (1, 3) and array.size)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): delete it and run `retrace evaluate` again") from error


def _texts(path: Path) -> dict[str, list[str]]:
    """Lists of texts by name; anything else in the file is left out."""
    stored = _json(path)
    found = stored.items() if isinstance(stored, dict) else ()
    return {
        str(name): texts
        for name, texts in found
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    }


def _tensors(path: Path) -> dict[str, Array]:
    try:
        return {name: np.asarray(array, dtype=np.float32) for name, array in load_file(path).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): delete it and run `retrace evaluate` again") from error
