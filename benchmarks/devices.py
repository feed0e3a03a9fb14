"""One GPU against the CPU of the same machine: ``python benchmarks/devices.py [--quick] [--json FILE]``.

Needs a CUDA device and says so where there is none. Sizes are those of ``benchmarks/speed.py``: the models of the
packaged audits, untrained, since speed does not depend on what the weights are.

- ``search``: candidates per second of the PPO search, policy updates on the CPU included, on either device.
- ``busy``: share of the search's wall time in which the GPU runs a kernel or a copy, from torch's profiler.
- ``to_host``: bytes copied from the GPU to the host for each candidate. Latents and rewards cross to numpy, 4 (d + 1)
  bytes, and once more into the pool; an image would show.
- ``training``: records per second of one epoch of a classifier, in single precision and, on the GPU, in bf16-mixed.

Wall time, because a GPU works beside the processor: run it on an idle machine. Medians of the repeats, in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from _speed_setting import SIZES, networks
from retrace_pl.envs import LatentCore
from retrace_pl.models import ResNet18
from retrace_pl.searchers import SB3Searcher
from retrace_pl.tasks import ClassifierTask
from retrace_pl.traces import ModelPair, TraceScorer

NUM_ENVS = 512
QUERIES = {"digits": 20480, "fashion_mnist": 20480, "resnet18": 4096}


def require_gpu() -> str:
    """Name of the GPU.

    Raises:
        SystemExit: There is none.
    """
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/devices.py: torch sees no CUDA device here; run it on a machine with one (`retrace doctor` "
            "says what it sees)"
        )
    return torch.cuda.get_device_name()


def core_on(device: str, size: str, access: str) -> LatentCore:
    """The search problem of a size with its models on a device."""
    generator, first, second = (network.to(device).eval().requires_grad_(False) for network in networks(size))
    scorer = TraceScorer(ModelPair(first, second, access))
    scorer.fit(generator(torch.randn(64, generator.latent_dim, device=device)))
    return LatentCore(generator, scorer)


def timed(work: Callable[[], object]) -> float:
    """Wall seconds until the GPU has finished as well."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one run that is not counted, in turns."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(timed(work))
    return {name: statistics.median(values) for name, values in times.items()}


def search(size: str, access: str, queries: int, repeats: int) -> dict[str, Any]:
    """Speed of the search on both devices, and what the GPU does meanwhile."""
    cores = {device: core_on(device, size, access) for device in ("cpu", "cuda")}

    def run(device: str) -> Callable[[], object]:
        return lambda: SB3Searcher(num_envs=NUM_ENVS).search(cores[device], queries)

    times = medians({device: run(device) for device in cores}, repeats)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        seconds = timed(run("cuda"))
    on_gpu = [event for event in watched.events() if event.device_type == DeviceType.CUDA]
    busy = covered([(event.time_range.start, event.time_range.end) for event in on_gpu]) / 1e6
    return {
        "size": size,
        "access": access,
        "queries": queries,
        "cpu": queries / times["cpu"],
        "gpu": queries / times["cuda"],
        "ratio": times["cpu"] / times["cuda"],
        "busy": busy / seconds,
        "to_host": bytes_to_host(watched) / queries,
        "latent_and_reward": 4 * (cores["cuda"].latent_dim + 1),
    }


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def bytes_to_host(watched: profile) -> int:
    """Bytes of all copies from the GPU, which the profiler's trace holds."""
    path = Path(f"{time.time_ns()}.trace.json")
    try:
        watched.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    finally:
        path.unlink(missing_ok=True)
    copies = [event for event in events if event.get("cat") == "gpu_memcpy" and "DtoH" in event.get("name", "")]
    return sum(int(event["args"].get("bytes", 0)) for event in copies)


def training(records: int, repeats: int) -> dict[str, float]:
    """Records per second of ResNet-18 at 32x32 with 100 classes."""
    inputs, labels = torch.rand(records, 3, 32, 32), torch.randint(0, 100, (records,))

    def run(accelerator: str, precision: str) -> Callable[[], object]:
        task = ClassifierTask(ResNet18(3, 100), 100)
        loader = DataLoader(TensorDataset(inputs, labels), batch_size=128)
        names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        quiet: dict[str, Any] = dict.fromkeys(names, False)

        def epoch() -> None:
            Trainer(accelerator=accelerator, devices=1, max_epochs=1, precision=precision, **quiet).fit(task, loader)

        return epoch

    works = {"cpu": run("cpu", "32-true"), "gpu": run("gpu", "32-true"), "gpu, bf16-mixed": run("gpu", "bf16-mixed")}
    return {name: records / seconds for name, seconds in medians(works, repeats).items()}


def tables(rows: list[dict[str, Any]], trained: dict[str, float]) -> str:
    """The measurements as Markdown."""
    lines = ["| size | access | CPU, queries/s | GPU, queries/s | ratio | GPU busy | bytes to host | z and r |"]
    lines.append("|---" * 8 + "|")
    for row in rows:
        figures = f"{row['cpu']:.0f} | {row['gpu']:.0f} | {row['ratio']:.1f} | {row['busy']:.0%}"
        crossing = f"{row['to_host']:.0f} | {row['latent_and_reward']}"
        lines.append(f"| {row['size']} | {row['access']} | {figures} | {crossing} |")
    lines += ["", "| training ResNet-18 | records/s |", "|---|---|"]
    lines += [f"| {name} | {speed:.0f} |" for name, speed in trained.items()]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the smallest size, one repeat")
    parser.add_argument("--json", type=Path, help="write the measurements there and the tables beside it")
    options = parser.parse_args()
    gpu = require_gpu()
    sizes = list(SIZES)[:1] if options.quick else list(SIZES)
    repeats = 1 if options.quick else options.repeats
    rows = [search(size, access, QUERIES[size], repeats) for size in sizes for access in ("black", "white")]
    trained = training(1280 if options.quick else 12800, repeats)
    print(tables(rows, trained))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", *sys.argv])
        facts = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "torch": torch.__version__}
        facts |= {
            "hardware": f"{gpu}; {torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"
        }
        options.json.write_text(json.dumps({**facts, "search": rows, "training": trained}, indent=2) + "\n")
        text = f"`{command}`, {facts['date']}, {facts['hardware']}, torch {facts['torch']}.\n\n"
        options.json.with_suffix(".md").write_text(text + tables(rows, trained) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
