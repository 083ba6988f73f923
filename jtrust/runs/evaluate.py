"""Looking at what a run has learned: `load_policy` and `evaluate`."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np

from jtrust import checks
from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.environments.compact import compact
from jtrust.environments.same import same_environment
from jtrust.environments.warp_physics import MORE_ROOM
from jtrust.networks import PolicyNetwork, RunningStatistics, make_policy_network
from jtrust.paths import user_path
from jtrust.policy import Policy
from jtrust.runs.best import BEST
from jtrust.runs.checkpoints import CheckpointReader, from_arrays
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory
from jtrust.runs.matching import check_custom_network, check_environment, describe_own
from jtrust.runs.reading import check_size
from jtrust.startup import check_platform
from jtrust.training import evaluate_policy


def load_policy(
    run_dir: str | os.PathLike, step: int | str | None = None, *,
    policy_network: nn.Module | None = None,
) -> Policy:
    """The policy of a run; neither its environment nor its optimiser is needed.

    Args:
      run_dir: the run's directory.
      step: the checkpoint of this step; by default the newest that can be read. "best": the one
        that `keep_best` kept.
      policy_network: the run's, where it was given to `train`.

    Returns:
      policy(observation, key=None) -> action. No key: the mode. Any leading batch axes.

    Raises:
      BadArgument: no run there, no such checkpoint, or none that can be read whole.
    """
    return load_with_config(run_dir, step, policy_network)[0]


def load_with_config(
    run_dir: str | os.PathLike, step: int | str | None = None,
    policy_network: nn.Module | None = None,
) -> tuple[Policy, RunConfig, int]:
    """(the policy as by `load_policy`, the run's configuration, the step of the checkpoint)."""
    check_platform()
    if step is not None and step != BEST:
        checks.whole_number("step", step, minimum=0, maximum=10**15)
    directory, config = RunDirectory.open(run_dir)
    action = config.action_space()
    sample, policy_key = config.observation_sample()
    check_custom_network(config, "policy_network", policy_network)
    inputs = math.prod(select(sample, policy_key).shape)
    network = make_policy_network(config.make_network(), inputs, action, policy_network)
    like = jax.eval_shape(
        lambda key, x: {
            "policy": network.init(key, x), "observation_statistics": RunningStatistics.zero(sample)
        },
        jax.random.key(0), select(sample, policy_key),
    )
    check_size(str(run_dir), like)
    reader = CheckpointReader(_place(directory.path, step))
    wanted = None if step == BEST else step
    step, arrays = reader.newest_whole(wanted, policy_only=True, like=like)  # type: ignore
    stored = from_arrays(arrays, like, str(reader.directory / str(step)))
    stored = jax.tree.map(jax.numpy.asarray, stored)
    statistics = stored["observation_statistics"].at(policy_key)
    return Policy(network, action, stored["policy"], statistics, policy_key), config, step


def _place(run_dir: Path, step: int | str | None) -> Path:
    """Where a checkpoint lies."""
    if step != BEST:
        return run_dir
    if not (run_dir / BEST).is_dir() or not CheckpointReader(run_dir / BEST).steps():
        raise checks.BadArgument(
            "best", True, f"{run_dir} kept none; train with --evaluate-every K --keep-best"
        )
    return run_dir / BEST


def evaluate(
    run_dir: str | os.PathLike,
    *,
    episodes: int = 64,
    seed: int = 0,
    step: int | str | None = None,
    stochastic: bool = False,
    env: Any = None,
    policy_network: nn.Module | None = None,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Evaluates a run's policy over whole episodes, each environment counted once.

    Args:
      run_dir: the run's directory.
      episodes: how many, side by side.
      seed: of the start states (and of the actions, if `stochastic`).
      step: the checkpoint of this step; by default the newest that can be read. "best": the one
        that `keep_best` kept.
      stochastic: sample actions; by default the policy's mode acts.
      env: the environment, where the run's own was an object and not a name; or another one with
        the same observations and actions, evaluated as it is.
      policy_network: the run's, where it was given to `train`.
      allow_code: call the MODULE:CALLABLE that the run names, though it was not this user's own
        jtrust that began the run.

    Returns:
      {"env", "algorithm", "step", "episodes", "return_mean", "return_std", "length_mean",
      "nonfinite"}, and where the environment tells costs "costs", the mean sum of each over an
      episode, by name. nonfinite is how many episodes ended in NaN or infinity: means and
      deviation are of the others alone, and None where there are none.

    Raises:
      BadArgument: as `load_policy`; or code to be called that nobody has allowed.
    """
    episodes = checks.whole_number("episodes", episodes, maximum=2**20, example=64)
    seed = checks.whole_number("seed", seed, minimum=0)
    policy, config, step = load_with_config(run_dir, step, policy_network)
    environment = environment_of(config, run_dir, env, allow_code)
    results = run_episodes(policy, environment, episodes, seed, stochastic)
    if crowded := int(np.sum(results["overflow"])):
        warnings.warn(f"in {crowded} of {episodes} episodes {MORE_ROOM}", stacklevel=2)
    whole = ~results["nonfinite"]
    returns, lengths = results["return"][whole], results["length"][whole]
    mean = lambda x: float(np.mean(x)) if x.size else None  # noqa: E731
    return {
        "env": environment.name,
        "algorithm": config.algorithm,
        "step": step,
        "episodes": episodes,
        "return_mean": mean(returns),
        "return_std": float(np.std(returns)) if returns.size else None,
        "length_mean": mean(lengths),
        "nonfinite": int(np.sum(~whole)),
    } | ({"costs": {
        name: mean(results[f"cost/{name}"][whole]) for name in environment.costs
    }} if environment.costs else {})


def environment_of(
    config: RunConfig, run_dir: str | os.PathLike, env: Any = None, allow_code: bool = False
) -> Environment:
    """What a run's policy acts in: the run's environment made again, or `env` in its place.

    Raises:
      BadArgument: as `evaluate`.
    """
    if env is None:
        environment = config.make_environment(user_path("RUN_DIR", run_dir), allow_code)
    else:
        environment = describe_own(config, env)
    environment = config.with_action_bins(environment)
    check_environment(config, environment)
    return environment


def run_episodes(
    policy: Policy, environment: Environment, episodes: int, seed: int = 0,
    stochastic: bool = False,
) -> dict[str, np.ndarray]:
    """Whole episodes of a policy: {"return", "length", "nonfinite", "overflow"}, [episodes] each.

    The same network in the same environment is compiled once, though both may be made anew for
    each call.
    """
    return jax.device_get(
        evaluate_policy(
            compact(same_environment(environment)), acting(policy, stochastic),
            (policy.params, policy.statistics), jax.random.key(seed), episodes,
            policy.initial_carry((episodes,)),
        )
    )


def acting(policy: Policy, stochastic: bool = False) -> Callable:
    """((params, statistics), carry, observations [N, O], keys [N]) -> (actions on the policy's
    scale, carry).

    The same function again for the same network, so that what was compiled for it serves.
    """
    try:
        return _acting(cast(Hashable, policy.network), policy.key, stochastic)
    except TypeError:  # a module of the user's own that cannot be hashed
        return _acting.__wrapped__(policy.network, policy.key, stochastic)


@functools.lru_cache(maxsize=8)
def _acting(network: PolicyNetwork, key: str | None, stochastic: bool) -> Callable:
    def act(params, carry, observation, keys):
        parameters, statistics = params
        inputs = statistics.normalize(select(observation, key))
        distribution, carry = network.apply(parameters, carry, inputs)
        if stochastic:
            return jax.vmap(lambda d, k: d.sample(k))(distribution, keys), carry
        return distribution.mode(), carry

    return act
