"""Whether what a user gives again, or has around, is what a run was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from jtrust import checks
from jtrust.environments import Environment, describe
from jtrust.runs.spaces import action_to_json, observation_to_json
from jtrust.training import Trainer

if TYPE_CHECKING:
    from jtrust.runs.config import RunConfig


def check_trainer(config: RunConfig, trainer: Any) -> None:
    """Raises `BadArgument` where a trainer is not one that the run could have been begun with.

    Hyperparameters may be others: from here on they hold.
    """
    if not isinstance(trainer, Trainer):
        raise checks.BadArgument("trainer", trainer, "must be of jtrust.make_trainer")
    for name, theirs, ours in (
        ("trainer", type(trainer).__name__, config.trainer or Trainer.__name__),
        ("algorithm", trainer.algorithm.name, config.algorithm),
        ("num_envs", trainer.num_envs, config.num_envs),
        ("unroll_length", trainer.unroll_length, config.unroll_length),
        ("network", trainer.network, config.make_network()),
    ):
        if theirs != ours:
            raise checks.BadArgument(name, theirs, f"in the run it is {ours}")
    check_custom_network(config, "policy_network", trainer.custom_policy)
    check_custom_network(config, "value_network", trainer.custom_value)
    check_environment(config, trainer.environment)
    check_name(config, trainer.environment)


def check_environment(config: RunConfig, environment: Environment) -> None:
    """Raises `BadArgument` where observations or actions are not those of the run."""
    for what, theirs, ours in (
        ("observations", observation_to_json(environment), config.observation),
        ("actions", action_to_json(environment.action), config.action),
    ):
        if theirs != ours:
            raise checks.BadArgument(
                "env", environment.name, f"has {what} {theirs}; the run was trained on {ours}"
            )


def check_name(config: RunConfig, environment: Environment) -> None:
    """Raises `BadArgument` for another environment of a suite, wrapper or time limit.

    Environments of the user's own may have come by another name.
    """
    name, length = environment.name, environment.episode_length
    ours, theirs = (x.partition("+") for x in (config.env, name))
    both_named = "/" in ours[0] and "/" in theirs[0]
    wrapped_otherwise = ours[2] != theirs[2] and ":" not in ours[0]
    if (both_named and ours[0] != theirs[0]) or wrapped_otherwise:
        raise checks.BadArgument("env", name, f"the run was trained in {config.env}")
    if config.episode_length not in (0, length):
        raise checks.BadArgument(
            "env", name,
            f"cuts episodes after {length} steps; in the run it was {config.episode_length}",
        )


def check_custom_network(config: RunConfig, name: str, given: Any) -> None:
    """Raises `BadArgument` where the run's network `name` was a user's own and `given` is not
    one of that class, or the other way round."""
    wanted = config.own_networks.get(name)
    if wanted is None and given is not None:
        raise checks.BadArgument(
            name, type(given).__name__, "the run was trained with jtrust's own; leave it out"
        )
    if wanted is not None and type(given).__name__ != wanted:
        raise checks.BadArgument(
            name, None if given is None else type(given).__name__,
            f"the run was trained with a network of your own, {wanted}; from Python, give it "
            f"again: {name}={wanted}(...)",
        )


def check_random_keys(config: RunConfig) -> None:
    """Raises `BadArgument` where JAX's random keys are of another kind than the run's."""
    now = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    if config.random_keys not in ("", now):
        raise checks.BadArgument(
            "JAX_DEFAULT_PRNG_IMPL", now,
            f"the run's random keys are of the kind {config.random_keys}; to go on with it, set "
            f"JAX_DEFAULT_PRNG_IMPL={config.random_keys}",
        )


def describe_own(config: RunConfig, env: Any) -> Environment:
    """An environment that a user gave again from Python, described as the run has it.

    Raises:
      BadArgument: it is a name, or no environment.
    """
    if isinstance(env, str):
        raise checks.BadArgument(
            "env", env, "must be an environment and no name; leave it out, and the run's own, "
            f"{config.env}, is made again"
        )
    if isinstance(env, Environment):
        return env
    # An object that was wrapped, or randomised, has another name than what it was before.
    name = type(env).__name__ if "+" in config.env else config.env
    length: dict[str, Any] = (
        {"episode_length": config.episode_length} if config.episode_length else {}
    )
    return describe(env, name, **length)
