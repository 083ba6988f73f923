"""Looking at what a run has learned: `load_policy` and `evaluate`."""

from __future__ import annotations

import math
import os
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jtrust import checks
from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.environments.compact import compact
from jtrust.networks import make_policy_network
from jtrust.normalization import Moments
from jtrust.own_networks import own_policy
from jtrust.policy import Policy
from jtrust.runs.checkpoints import CheckpointReader, from_arrays
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory
from jtrust.training import evaluate_policy


def load_policy(
    run_dir: str | os.PathLike, step: int | None = None, *,
    policy_network: nn.Module | None = None,
) -> Policy:
    """The policy of a run; neither its environment nor its optimiser is needed.

    Args:
      run_dir: the run's directory.
      step: the checkpoint of this step; by default the newest that can be read.
      policy_network: the run's, where it was given to `train`.

    Returns:
      policy(observation, key=None) -> action. No key: the mode. Any leading batch axes.

    Raises:
      BadArgument: no run there, no such checkpoint, or none that can be read whole.
    """
    return _load(run_dir, step, policy_network)[0]


def _load(
    run_dir: str | os.PathLike, step: int | None, policy_network: nn.Module | None
) -> tuple[Policy, RunConfig, int]:
    if step is not None:
        checks.whole_number("step", step, minimum=0, maximum=10**15)
    directory, config = RunDirectory.open(run_dir)
    action = config.action_space()
    sample, policy_key = config.observation_sample()
    config.check_own_network("policy_network", policy_network)
    own = own_policy(policy_network, math.prod(select(sample, policy_key).shape), action)
    network = make_policy_network(config.make_network(), action, own)
    like = jax.eval_shape(
        lambda key, x: {
            "policy": network.init(key, x), "observation_moments": Moments.zero(sample)
        },
        jax.random.key(0), select(sample, policy_key),
    )
    reader = CheckpointReader(directory.path)
    step, arrays = reader.newest_whole(step, policy_only=True)
    stored = from_arrays(arrays, like, str(reader.directory / str(step)))
    stored = jax.tree.map(jax.numpy.asarray, stored)
    moments = stored["observation_moments"].at(policy_key)
    return Policy(network, action, stored["policy"], moments, policy_key), config, step


def evaluate(
    run_dir: str | os.PathLike,
    *,
    episodes: int = 64,
    seed: int = 0,
    step: int | None = None,
    stochastic: bool = False,
    env: Any = None,
    policy_network: nn.Module | None = None,
) -> dict[str, Any]:
    """Evaluates a run's policy over whole episodes, each environment counted once.

    Args:
      run_dir: the run's directory.
      episodes: how many, side by side.
      seed: of the start states (and of the actions, if `stochastic`).
      step: the checkpoint of this step; by default the newest that can be read.
      stochastic: sample actions; by default the policy's mode acts.
      env: the environment, where the run's own was an object and not a name; or another one with
        the same observations and actions, evaluated as it is.
      policy_network: the run's, where it was given to `train`.

    Returns:
      {"env", "algorithm", "step", "episodes", "return_mean", "return_std", "length_mean"}.

    Raises:
      BadArgument: as `load_policy`.
    """
    episodes = checks.whole_number("episodes", episodes, maximum=2**20, example=64)
    seed = checks.whole_number("seed", seed, minimum=0)
    policy, config, step = _load(run_dir, step, policy_network)
    environment = config.make_environment() if env is None else config.describe_own(env)
    environment = config.with_action_bins(environment)
    config.check_environment(environment)
    results = run_episodes(policy, environment, episodes, seed, stochastic)
    return {
        "env": environment.name,
        "algorithm": config.algorithm,
        "step": step,
        "episodes": episodes,
        "return_mean": float(np.mean(results["return"])),
        "return_std": float(np.std(results["return"])),
        "length_mean": float(np.mean(results["length"])),
    }


def run_episodes(
    policy: Policy, environment: Environment, episodes: int, seed: int = 0,
    stochastic: bool = False,
) -> dict[str, np.ndarray]:
    """Whole episodes of a policy: {"return", "length", "nonfinite"}, [episodes] each."""

    def act(params, observation, keys):
        distribution = policy.distribution(*params, observation)
        if stochastic:
            return jax.vmap(lambda d, k: d.sample(k))(distribution, keys)
        return distribution.mode()

    return jax.device_get(
        evaluate_policy(
            compact(environment), act, (policy.params, policy.moments), jax.random.key(seed),
            episodes,
        )
    )
