"""Lightning modules: what is trained or measured batch by batch."""

from __future__ import annotations

from retrace_pl.tasks.base import BaseTask
from retrace_pl.tasks.classifier import ClassifierTask
from retrace_pl.tasks.generator import GeneratorTask

__all__ = ["BaseTask", "ClassifierTask", "GeneratorTask"]
