"""What a finished search leaves behind, as files that a later attempt or another audit can use in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrace_pl.attacks import Reconstruction
from retrace_pl.files import read_json, read_tensors, write_json, write_tensors
from retrace_pl.pipeline.cache import Artefact, ArtefactCache, Files, Job, place_file
from retrace_pl.pipeline.observers import SEARCH_LOG
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.report.tensorboard import search_log
from retrace_pl.searchers import PolicyState, save_policy

FACTS, TENSORS = "search.json", "candidates.safetensors"
POLICY_WEIGHTS, POLICY_SETTINGS = "policy.safetensors", "policy.json"
LOG_FILE = "events."
SHOWN, KEPT = ".tfevents.", ".kept."
"""TensorBoard opens every file below its folder with `tfevents` in its name."""
"""How the names of TensorBoard's files begin."""


@dataclass(frozen=True)
class SearchResult:
    """One finished search.

    Args:
        tensors: what was selected and, for the audited pair, every query.
        record: plain facts about the search.
        curve: rows (queries, best score, mean of the best).
        policy: the trained policy, where it is to be kept.
    """

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]
    curve: list[list[float]] = field(default_factory=list)
    policy: PolicyState | None = None


class SearchResults:
    """Keeps every finished search as soon as it is done, and the files of each until the stage has ended.

    Args:
        run: the audit.
        scratch: folder in the run for searches that no other audit can use, and for those being written.
    """

    def __init__(self, run: AuditRun, scratch: Path) -> None:
        self.run = run
        self.folder = scratch
        self.scratch = ArtefactCache(scratch, "--output", "done before the interruption")
        self.log = run.folder.path(SEARCH_LOG)
        self._files: dict[str, Files] = {}

    def job(self, artefact: Artefact, search: Callable[[], SearchResult], *, shared: bool) -> Job:
        """The search as a job: skipped where it is done already, kept in the cache or in the run folder otherwise.

        Args:
            artefact: what the result depends on; named by the search's label.
            search: searches.
            shared: whether another audit may want the result.
        """
        label = artefact.name
        cache = self.run.cache if shared and self.run.cache is not None else self.scratch

        def make() -> Files:
            log = search_log(self.log, label)
            before = _log_files(log)
            result = search()
            logged = {_kept(name): path for name, path in _log_files(log).items() if name not in before}
            self._files[label] = {**_write(result, self.folder / "new" / artefact.key), **logged}
            return self._files[label]

        def take(files: Files) -> None:
            for name, path in files.items():
                if name.startswith(LOG_FILE):
                    place_file(path, search_log(self.log, label) / name.replace(KEPT, SHOWN, 1))
            self._files[label] = files

        return Job(cache, artefact, make, take, self.run.console.print)

    def tensors(self, label: str) -> dict[str, Tensor]:
        """What a settled search selected."""
        return read_tensors(self._files[label][TENSORS])

    def facts(self, label: str) -> tuple[dict[str, Any], list[list[float]]]:
        """Record and curve of a settled search."""
        facts = read_json(self._files[label][FACTS])
        return facts["record"], facts["curve"]

    def policy(self, label: str) -> Files:
        """The files of a settled search's policy; empty where it has none."""
        return {name: path for name, path in self._files[label].items() if name in (POLICY_WEIGHTS, POLICY_SETTINGS)}

    def discard(self) -> None:
        """Removes what was kept in the run folder; the stage's own files hold all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def reconstruction_tensors(found: Reconstruction) -> dict[str, Tensor]:
    """The tensors of a reconstruction by name, without what it does not have."""
    tensors = {
        "instance": found.instance,
        "instance_latent": found.instance_latent,
        "instance_score": torch.tensor([found.instance_score]),
        "inputs": found.inputs,
        "scores": found.scores,
        "latents": found.latents,
    }
    return {name: value for name, value in tensors.items() if value is not None}


def _kept(name: str) -> str:
    """What a log is called in a cache, where TensorBoard would show it once more."""
    return name.replace(SHOWN, KEPT, 1)


def _log_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.name: path for path in folder.iterdir() if path.name.startswith(LOG_FILE)}


def _write(result: SearchResult, folder: Path) -> dict[str, Path]:
    files = {TENSORS: folder / TENSORS, FACTS: folder / FACTS}
    write_tensors(files[TENSORS], result.tensors)
    write_json(files[FACTS], {"record": result.record, "curve": result.curve})
    if result.policy is not None:
        files |= {name: folder / name for name in (POLICY_WEIGHTS, POLICY_SETTINGS)}
        save_policy(result.policy, files[POLICY_WEIGHTS])
    return files
