"""What the speed benchmark measures with: untrained models of three sizes, a clock, and a stopwatch around the loop.

Weights are untrained where only time counts: timings do not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from retrace_pl.envs import CandidatePool, LatentCore
from retrace_pl.models import DCGAN, ResNet18, ResNetCIFAR, SmallCNN
from retrace_pl.searchers import SB3Searcher
from retrace_pl.searchers import sb3 as sb3_searcher
from retrace_pl.traces import ModelPair, TraceScorer

SIZES = ("digits", "fashion_mnist", "resnet18")


def networks(size: str) -> tuple[DCGAN, nn.Module, nn.Module]:
    """Generator, f+ and f- as in ``configs/audit/``: digits, Fashion-MNIST, CIFAR-100 with ResNet-18."""
    torch.manual_seed(0)
    if size == "digits":
        return DCGAN((1, 16, 16), latent_dim=64), SmallCNN(1, 10, width=16), SmallCNN(1, 10, width=16)
    if size == "fashion_mnist":
        first, second = (ResNetCIFAR(1, 10, depth=8, width=8) for _ in range(2))
        return DCGAN((1, 32, 32), latent_dim=64, width=16), first, second
    return DCGAN((3, 32, 32), latent_dim=128, width=64), ResNet18(3, 100), ResNet18(3, 100)


def build(
    size: str, access: str, memory_format: str = "contiguous", autocast: str = "none", compiled: bool = False
) -> tuple[nn.Module, TraceScorer]:
    """A frozen generator and a scorer fitted on generated images; the last three are ways to run the models."""
    generator, first, second = networks(size)
    generator = generator.eval().requires_grad_(False)
    ways: dict[str, Any] = {"memory_format": memory_format, "autocast": autocast, "compile": compiled}
    scorer = TraceScorer(ModelPair(first, second, access, **ways))
    scorer.fit(generator(torch.randn(64, generator.latent_dim)))
    return generator, scorer


def seconds(action: Callable[[], object]) -> float:
    """Processor time of one call: with one thread the time it takes on an idle machine, whatever else is running."""
    start = time.process_time()
    action()
    return time.process_time() - start


def medians(actions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every action; the actions take turns."""
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return {name: statistics.median(values) for name, values in times.items()}


def together(size: str) -> tuple[Callable[[Tensor], object], Callable[[Tensor], object]]:
    """Both models' forward passes one after the other, and as one pass over their stacked weights (torch.func)."""
    _, first, second = networks(size)
    pair = [model.eval().requires_grad_(False) for model in (first, second)]
    stacked = stack_module_state(pair)

    def one(parameters: Any, buffers: Any, images: Tensor) -> Tensor:
        return torch.as_tensor(functional_call(pair[0], (parameters, buffers), (images,)))

    return lambda images: [model(images) for model in pair], lambda images: vmap(one, (0, 0, None))(*stacked, images)


def bare(generator: nn.Module, scorer: TraceScorer, queries: int, batch: int) -> None:
    """Generate and score, in the search's batches, and keep nothing."""
    latents = torch.randn(batch, int(generator.latent_dim))  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(queries // batch):
            scorer(generator(latents))


@contextmanager
def _timed(clock: dict[str, float], owner: Any, method: str, label: Callable[..., str]) -> Iterator[None]:
    original = getattr(owner, method)

    def run(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return original(*arguments, **options)
        finally:
            clock[label(*arguments)] += time.process_time() - start

    with patch.object(owner, method, run):
        yield


def profile(generator: nn.Module, scorer: TraceScorer, queries: int, num_envs: int) -> dict[str, float]:
    """Share of a PPO search's time that each part takes; the shares add up to 1."""
    core = LatentCore(generator, scorer)
    clock: dict[str, float] = defaultdict(float)
    models = {"original": "f+ (forward, and backward for white-box access)", "unlearned": "f-"}
    with (
        _timed(clock, core, "generate", lambda *_: "generator"),
        _timed(clock, scorer.pair, "_without_gradient", lambda name, *_: models[name]),
        _timed(clock, scorer.pair, "_with_gradient", lambda name, *_: models[name]),
        _timed(clock, scorer, "deltas", lambda *_: "scoring, all"),
        _timed(clock, scorer, "combine", lambda *_: "differences and score"),
        _timed(clock, core, "_record", lambda *_: "pool and curve"),
        _timed(clock, ActorCriticPolicy, "forward", lambda *_: "policy: actions"),
        _timed(clock, PPO, "train", lambda *_: "policy: updates"),
        _timed(clock, sb3_searcher, "training_scalars", lambda *_: "log"),
        _timed(clock, sb3_searcher, "kl_to_prior", lambda *_: "log"),
        _timed(clock, CandidatePool, "add", lambda *_: "pool and curve"),
    ):
        total = seconds(lambda: SB3Searcher(num_envs=num_envs).search(core, queries))
    models_alone = sum(clock[name] for name in models.values())
    clock["differences and score"] += clock.pop("scoring, all") - models_alone
    shares = {name: value / total for name, value in clock.items()}
    return shares | {"everything else (Stable-Baselines3, conversions, Python)": 1 - sum(shares.values())}
