"""The command `retrace doctor`: whether an audit can run here, and what to do about what is missing.

It needs neither torch nor rich, which may be what is missing. It changes nothing but one temporary file in the output
folder, and the one question that it asks over the network ends after three seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from retrace_pl.errors import InputError, RunError

__all__ = ["Finding", "doctor", "examine"]

State = Literal["ok", "note", "missing"]
"""`missing` prevents an audit; a `note` is an optional part that is not there, or something worth knowing."""

PYTHON = (3, 11)
TIMEOUT = 3.0
"""Seconds after which a hub that does not answer counts as out of reach."""

LEAST_SPACE, MUCH_SPACE = 1e9, 10e9
"""Bytes that a small audit needs, and that one of several repeats on larger images may need."""

DATA_SETS = {
    "FashionMNIST": "Fashion-MNIST",
    "MNIST": "MNIST",
    "cifar-10-batches-py": "CIFAR-10",
    "cifar-100-python": "CIFAR-100",
}
"""Folder as torchvision lays it out -> data set."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        area: What it belongs to, such as `packages`.
        name: What was looked at.
        state: Whether it is there, and whether an audit needs it.
        value: What was found.
        remedy: What to do about it; empty where there is nothing to do.
    """

    area: str
    name: str
    state: State
    value: str
    remedy: str = ""


def doctor(arguments: list[str]) -> None:
    """Say what is installed, which devices and data are in reach, and what to do about what is missing."""
    try:
        options = make_parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"retrace doctor: {error}") from error
    found = list(examine(options.output, offline=options.offline))
    missing = [finding for finding in found if finding.state == "missing"]
    if options.json:
        report = {"can_run": not missing, "findings": [asdict(finding) for finding in found]}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(found, len(missing))) + "\n")
    if missing:
        raise RunError(f"an audit cannot run here: {', '.join(finding.name for finding in missing)}")


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="retrace doctor", description=doctor.__doc__, exit_on_error=False)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder that runs go to (default: runs)")
    parser.add_argument("--offline", action="store_true", help="ask nothing over the network")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON on standard output")
    return parser


def examine(output: Path, *, offline: bool = False) -> Iterator[Finding]:
    """Looks at everything in turn.

    Args:
        output: Folder that runs go to.
        offline: Ask nothing over the network.
    """
    yield from packages()
    yield from devices()
    yield from data_sets(offline=offline)
    yield from extras()
    yield from places(output)


def packages() -> Iterator[Finding]:
    """Python and what the package depends on: versions, and whether they lie in the range that it asks for."""
    wanted = ".".join(map(str, PYTHON))
    old = sys.version_info < PYTHON
    remedy = f"install Python {wanted} or newer" if old else ""
    yield Finding("packages", "python", "missing" if old else "ok", platform.python_version(), remedy)
    yield Finding("packages", "retrace_pl", "ok", version("retrace_pl"))
    for requirement in map(Requirement, requires("retrace_pl") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield package(requirement)


def package(requirement: Requirement) -> Finding:
    """One package that is needed.

    Args:
        requirement: Its name and range of versions.
    """
    name, wanted = requirement.name, str(requirement.specifier)
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding("packages", name, "missing", "not installed", f"pip install '{name}{wanted}'")
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding("packages", name, "missing", f"{found}, not {wanted}", f"pip install '{name}{wanted}'")
    return Finding("packages", name, "ok", found)


def devices() -> Iterator[Finding]:
    """Where training and searches can run: `trainer.accelerator` names one of them, `auto` takes the best."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu", "ok", f"{cores} cores, {platform.processor() or platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        yield Finding("devices", "torch", "missing", f"cannot be imported: {reason}", "install torch again")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            size = f"{properties.total_memory / 1e9:.0f} GB"
            yield Finding("devices", f"cuda:{index}", "ok", f"{properties.name}, {size}")
    else:
        built = torch.version.cuda
        remedy = "" if built is None else "nvidia-smi shows whether the driver sees one; audits run on the CPU as well"
        why = "torch was built without CUDA" if built is None else f"none is seen (torch was built for CUDA {built})"
        yield Finding("devices", "cuda", "note", why, remedy)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "ok", "Apple GPU")


def data_sets(*, offline: bool = False) -> Iterator[Finding]:
    """Which data an audit finds: bundled digits, the folder RETRACE_DATA, and the Hugging Face hub.

    Args:
        offline: Do not ask the hub.
    """
    bundled = importlib.util.find_spec("sklearn") is not None
    remedy = "" if bundled else "pip install scikit-learn"
    yield Finding("data", "digits", "ok" if bundled else "missing", "bundled with scikit-learn", remedy)
    yield _data_folder(os.environ.get("RETRACE_DATA"))
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        yield Finding("data", "hub", "note", "offline is asked for: only data sets in the cache or on disk")
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    reached = answers(endpoint)
    remedy = "" if reached else "put data sets below a folder and name it in RETRACE_DATA; digits need no network"
    yield Finding("data", "hub", "ok" if reached else "note", endpoint if reached else f"offline: {endpoint}", remedy)


def _data_folder(name: str | None) -> Finding:
    if not name:
        remedy = "set RETRACE_DATA to a folder with data sets; without it they are downloaded"
        return Finding("data", "RETRACE_DATA", "note", "not set", remedy)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return Finding("data", "RETRACE_DATA", "note", f"{folder} is no folder", "mend or unset RETRACE_DATA")
    below = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    seen = [title for part, title in DATA_SETS.items() if any((path / part).is_dir() for path in below)]
    return Finding("data", "RETRACE_DATA", "ok", f"{folder}: {', '.join(seen) or 'no data set of torchvision'}")


def answers(endpoint: str, timeout: float = TIMEOUT) -> bool:
    """Whether something listens behind an address; a proxy that stands between counts as well.

    Args:
        endpoint: URL.
        timeout: Seconds to wait.
    """
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    parts = urlsplit(proxy or endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reached = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((parts.hostname or "", port), timeout):
            reached.set()

    # A thread of its own, because looking up the name of a host has no timeout; a daemon, so that nobody waits for it.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(timeout)
    return reached.is_set()


def extras() -> Iterator[Finding]:
    """Optional parts: further searchers, notebooks, the documentation, a browser."""
    for name, module, purpose in (
        ("rl", "sb3_contrib", "TRPO, CrossQ, TQC as searchers"),
        ("notebooks", "nbclient", "`make notebooks`"),
        ("docs", "mkdocs", "`make docs`"),
    ):
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f"pip install 'retrace_pl[{name}]'"
        yield Finding("optional", name, "ok" if there else "note", purpose, remedy)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    remedy = "" if browser else "install chromium; reports open in any browser"
    yield Finding("optional", "chromium", "ok" if browser else "note", browser or "tests of the report", remedy)


def places(output: Path) -> Iterator[Finding]:
    """Whether the folder of the runs can be written, and how much room there is.

    Args:
        output: The folder; it need not exist yet.
    """
    there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    yield _writable(output, there)
    free = shutil.disk_usage(there).free
    state: State = "missing" if free < LEAST_SPACE else "note" if free < MUCH_SPACE else "ok"
    remedy = "" if state == "ok" else "free space, or choose another folder with --output"
    yield Finding("places", "disk space", state, f"{free / 1e9:.1f} GB free", remedy)


def _writable(output: Path, there: Path) -> Finding:
    remedy = "choose another folder with --output"
    if not there.is_dir():
        return Finding("places", "output", "missing", f"{there} is a file", remedy)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("places", "output", "missing", f"{there}: {error.strerror}", remedy)
    return Finding("places", "output", "ok", f"{output} can be written")


def _lines(found: list[Finding], missing: int) -> Iterator[str]:
    area = ""
    for finding in found:
        if finding.area != area:
            area = finding.area
            yield area
        yield f"  {finding.state:<8} {finding.name:<18} {finding.value}"
        if finding.remedy:
            yield f"           -> {finding.remedy}"
    yield f"an audit cannot run here; {missing} to mend" if missing else "an audit can run here"
