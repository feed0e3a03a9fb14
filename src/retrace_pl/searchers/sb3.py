"""Any Stable-Baselines3 or sb3-contrib algorithm as a searcher."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from retrace_pl.envs import LatentCore
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.errors import InputError, NotApplicable
from retrace_pl.searchers.base import PolicyState, Searcher, SearchObserver
from retrace_pl.searchers.randomness import isolated_global_random
from retrace_pl.searchers.training_log import kl_to_prior, training_scalars
from retrace_pl.searchers.warm_start import start_from_elites

__all__ = ["SB3Searcher", "resolve_algorithm"]

_REPORTS = 200
_REPLAY = 200_000  # transitions: 150 MB with 64 latent coordinates, which a transition holds three times
# A policy's state is the latent its episode starts from, fresh noise. A wide network learns the few noises of a rollout
# by heart instead of moving the mean of all its actions; with 16 units and many short rollouts PPO does the latter.
_POLICY: dict[str, dict[str, Any]] = {"PPO": {"net_arch": (16,), "log_std_init": -1.2}}
_ANY_POLICY: dict[str, Any] = {"net_arch": (64, 64), "log_std_init": -0.5}
_CONTRIB_HINT = "install it with: pip install 'retrace_pl[rl]'"

# What a setting that is left open (None) becomes; the first entry that names it wins: the algorithm, then its family.
_TUNED: dict[str, dict[str, Any]] = {
    "PPO": {
        "n_steps": 1,
        "learning_rate": 1e-2,
        "n_epochs": 10,
        "batch_size": 256,
        "clip_range": 0.2,
        "normalize_advantage": True,
    },
    "A2C": {"learning_rate": 3e-3, "normalize_advantage": True},
    "TRPO": {"learning_rate": 3e-3, "batch_size": 256, "normalize_advantage": True},
    "on-policy": {"n_steps": 2, "gamma": 1.0, "gae_lambda": 1.0, "learning_rate": 3e-3},
    "off-policy": {"gamma": 0.99, "learning_rate": 1e-3, "batch_size": 256, "gradient_steps": 16},
}


def resolve_algorithm(algorithm: str | type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """The algorithm class behind a short name, a dotted name or a class.

    Raises:
        InputError: Nothing is found under the name, sb3-contrib is missing, or it is no on- or off-policy SB3
        algorithm.
    """
    found = _import_algorithm(algorithm) if isinstance(algorithm, str) else algorithm
    if not (isinstance(found, type) and issubclass(found, OnPolicyAlgorithm | OffPolicyAlgorithm)):
        raise InputError(
            f"searcher.algorithm: {algorithm} is not an on-policy or off-policy Stable-Baselines3 algorithm; "
            "use a name such as PPO, A2C, SAC, TD3, TRPO or the dotted name of such a class"
        )
    return found


def _import_algorithm(name: str) -> Any:
    modules = [name.rpartition(".")[0]] if "." in name else ["stable_baselines3", "sb3_contrib"]
    for module in modules:
        try:
            found = getattr(import_module(module), name.rpartition(".")[2], None)
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "sb3_contrib":
                raise InputError(f"searcher.algorithm: cannot import {name}: {error}") from error
            raise InputError(f"searcher.algorithm: {name} needs sb3-contrib; {_CONTRIB_HINT}") from error
        if found is not None:
            return found
    raise InputError(f"searcher.algorithm: there is no algorithm {name} in {' or '.join(modules)}")


class SB3Searcher(Searcher):
    """Stable-Baselines3 reinforcement learning in latent space, PPO by default.

    The policy is an MLP from the current latent to the next one. Settings left open (``None``) take the value
    that was tuned for the algorithm, or the algorithm's own default; a setting that the algorithm does not have is
    refused. Queries that no longer fill a whole rollout are spent on samples of the final policy, so that the budget
    is used exactly.

    Source: ReTrace (ICLR 2026), PPO with clipping 0.1 or 0.2 over one-step episodes. With ``ent_coef = tau`` (the
    default) and ``normalize_advantage = False`` (not it) PPO optimises exactly the paper's KL-regularised objective.

    Args:
        algorithm: Class, short name (PPO, A2C, SAC, TD3, TRPO, ...) or dotted name of a Stable-Baselines3 algorithm.
        num_envs: Candidates per environment step.
        n_steps: Steps per environment and update; on-policy algorithms only. Small rollouts matter: many updates.
        learning_rate: Learning rate of all networks.
        net_arch: Widths of the policy's and the value function's hidden layers.
        log_std_init: Initial log standard deviation of the actions; on-policy algorithms only.
        ent_coef: Weight of the entropy bonus; the latent settings' ``tau`` where on-policy algorithms leave it open.
        n_epochs: Passes over each rollout.
        batch_size: Minibatch size; where it is left open, at most a whole rollout.
        clip_range: PPO's clipping, 0.1 or 0.2 in the paper.
        gae_lambda: 1 makes the advantage of a one-step episode ``r - V(z)``, as in the paper.
        gamma: Discount, irrelevant for one-step episodes.
        normalize_advantage: Standardise the advantages of each minibatch.
        gradient_steps: Updates per environment step; off-policy algorithms only.
        exploration_std: Standard deviation of the action noise; deterministic off-policy algorithms (TD3, DDPG) only.
        algorithm_kwargs: Further arguments of the algorithm's constructor.
        device: Where the policy is trained; the CPU is the faster place for such a small network.
        warm_start: Queries of the budget spent on samples of the prior first; the policy then starts at the best of
            them (:mod:`retrace_pl.searchers.warm_start`); to hold many of them it wants a wide ``net_arch``, such as
            (64, 64). On-policy algorithms only.

    Example:
        >>> from retrace_pl.envs.toys import toy_core
        >>> searcher = SB3Searcher("PPO", num_envs=64)
        >>> len(searcher.search(toy_core(), budget=256)), searcher.policy_state() is not None
        (256, True)
    """

    name: ClassVar[str] = "sb3"

    def __init__(
        self,
        algorithm: str | type[BaseAlgorithm] = "PPO",
        num_envs: int = 128,
        n_steps: int | None = None,
        learning_rate: float | None = None,
        net_arch: tuple[int, ...] | None = None,
        log_std_init: float | None = None,
        ent_coef: float | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        clip_range: float | None = None,
        gae_lambda: float | None = None,
        gamma: float | None = None,
        normalize_advantage: bool | None = None,
        gradient_steps: int | None = None,
        exploration_std: float | None = None,
        algorithm_kwargs: dict[str, Any] | None = None,
        device: str = "cpu",
        warm_start: int = 0,
    ) -> None:
        if num_envs < 1:
            raise InputError(f"searcher.num_envs must be at least 1, got {num_envs}")
        self.algorithm = resolve_algorithm(algorithm)
        self.on_policy = issubclass(self.algorithm, OnPolicyAlgorithm)
        if warm_start < 0 or (warm_start and not self.on_policy):
            raise InputError("searcher.warm_start must not be negative, and 0 for off-policy algorithms")
        self.warm_start = warm_start
        self.num_envs = num_envs
        policy = _ANY_POLICY | _POLICY.get(self.algorithm.__name__, {})
        self.net_arch: tuple[int, ...] = tuple(policy["net_arch"] if net_arch is None else net_arch)
        self.log_std_init: float = policy["log_std_init"] if log_std_init is None else log_std_init
        self.exploration_std = exploration_std
        self.device = device
        explicit = {
            "n_steps": n_steps,
            "learning_rate": learning_rate,
            "ent_coef": ent_coef,
            "n_epochs": n_epochs,
            "batch_size": batch_size,
            "clip_range": clip_range,
            "gae_lambda": gae_lambda,
            "gamma": gamma,
            "normalize_advantage": normalize_advantage,
            "gradient_steps": gradient_steps,
        }
        given = {name: value for name, value in explicit.items() if value is not None} | (algorithm_kwargs or {})
        self._accepted = set(inspect.signature(self.algorithm.__init__).parameters)
        self._refuse_unknown(given)
        family = _TUNED["on-policy" if self.on_policy else "off-policy"]
        tuned = family | _TUNED.get(self.algorithm.__name__, {})
        self.settings: dict[str, Any] = {k: v for k, v in tuned.items() if k in self._accepted} | given
        if self.on_policy and batch_size is None and "batch_size" in self.settings:
            self.settings["batch_size"] = min(self.settings["batch_size"], self.rollout_queries())
        self._model: BaseAlgorithm | None = None
        self._latent: dict[str, Any] = {}

    def _refuse_unknown(self, given: dict[str, Any]) -> None:
        own = {"self", "policy", "env", "seed", "device", "policy_kwargs", "tensorboard_log", "_init_setup_model"}
        extra = sorted(set(given) - (self._accepted - own))
        if not self.on_policy and "n_steps" in given:
            extra.append("n_steps (a multi-step return there)")
        if self.exploration_std is not None and (self.on_policy or "ent_coef" in self._accepted):
            extra.append("exploration_std")
        if extra:
            raise InputError(f"searcher: {self.algorithm.__name__} has no setting {', '.join(extra)}; leave it out")

    @property
    def policy_kwargs(self) -> dict[str, Any]:
        """Plain settings of the policy network."""
        plain: dict[str, Any] = {"net_arch": list(self.net_arch)}
        return plain | ({"log_std_init": self.log_std_init} if self.on_policy else {})

    def rollout_queries(self) -> int:
        """Queries between two updates."""
        return self.num_envs * (int(self.settings["n_steps"]) if self.on_policy else 1)

    def _search(self, core: LatentCore, budget: int, seed: int, observer: SearchObserver) -> None:
        rollout = self.rollout_queries()
        left = budget - core.queries - self.warm_start
        whole = left // rollout * rollout
        if whole < rollout * (1 if self.on_policy else 2):
            raise NotApplicable(
                f"a budget of {left} queries allows {self.algorithm.__name__} no update: a rollout takes {rollout}; "
                "raise the budget or lower searcher.num_envs or searcher.warm_start"
            )
        with isolated_global_random(seed):
            model: Any = self._build(core, budget, seed)
            if self.warm_start:
                start_from_elites(core, model.policy, self.warm_start, seed)
            watch = _Watch(core, observer, every=budget // _REPORTS)
            model.learn(whole, callback=watch, log_interval=None)
            self._spend_rest(core, model)
        observer.on_update(core.queries, core.pool, core.scalars() | training_scalars(model))
        self._model = model
        self._latent = {"latent_dim": core.latent_dim, "latent": asdict(core.settings)}

    def _build(self, core: LatentCore, budget: int, seed: int) -> BaseAlgorithm:
        settings = dict(self.settings)
        if self.on_policy and "ent_coef" in self._accepted:
            settings.setdefault("ent_coef", core.settings.tau)
        if not self.on_policy:
            settings.setdefault("learning_starts", self.num_envs)
            settings.setdefault("buffer_size", min(budget, _REPLAY))
            settings.setdefault("train_freq", (1, "step"))
            if "ent_coef" not in self._accepted and "action_noise" not in settings:
                std = np.full(core.latent_dim, 0.3 if self.exploration_std is None else self.exploration_std)
                settings["action_noise"] = NormalActionNoise(np.zeros(core.latent_dim), std)
        env = LatentVecEnv(core, self.num_envs)
        policy_kwargs = self.policy_kwargs
        if self.algorithm is PPO:  # the library's own epsilon, and one fused step for the many small parameters
            policy_kwargs = {"optimizer_kwargs": {"eps": 1e-5, "fused": True}, **policy_kwargs}
        try:
            model = self.algorithm(
                "MlpPolicy", env, seed=seed, device=self.device, policy_kwargs=policy_kwargs, **settings
            )
        except (AssertionError, ValueError, TypeError) as error:
            raise InputError(f"searcher: {self.algorithm.__name__} refuses these settings: {error}") from error
        model.set_logger(Logger(folder=None, output_formats=[]))
        return model

    @staticmethod
    def _spend_rest(core: LatentCore, model: Any) -> None:
        """Spend what is left, less than a rollout, on samples of the final policy."""
        while core.remaining:
            n = min(core.remaining, model.n_envs)
            done, latents = False, core.reset(n)
            while not done and core.remaining >= n:
                action, _ = model.predict(latents.cpu().numpy(), deterministic=False)
                latents, _, _, done = core.step(torch.as_tensor(action))

    def policy_state(self) -> PolicyState | None:
        """Weights and settings of the last search's policy; see :func:`retrace_pl.searchers.policy.save_policy`."""
        if self._model is None:
            return None
        weights = {name: value.detach().cpu().clone() for name, value in self._model.policy.state_dict().items()}
        settings = {
            "algorithm": f"{self.algorithm.__module__}.{self.algorithm.__qualname__}",
            "policy_kwargs": self.policy_kwargs,
        }
        return weights, settings | self._latent


class _Watch(BaseCallback):
    """Reports rewards, scores, KL to the prior and SB3's own numbers after rollouts, at most 200 times a search."""

    def __init__(self, core: LatentCore, observer: SearchObserver, every: int) -> None:
        super().__init__()
        self._every = every
        self._reported = 0
        self._core = core
        self._observer = observer
        self._reward = float("nan")

    def _on_step(self) -> bool:
        self._reward = float(np.mean(self.locals["rewards"]))
        return True

    def _on_rollout_end(self) -> None:
        if self._core.queries - self._reported < self._every:
            return
        self._reported = self._core.queries
        scalars = self._core.scalars() | {"reward/mean": self._reward} | training_scalars(self.model)
        kl = kl_to_prior(self.model, self._core)
        if kl is not None:
            scalars["kl/prior"] = kl
        self._observer.on_update(self._core.queries, self._core.pool, scalars)
