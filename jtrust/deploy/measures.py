"""What `--show` puts on a picture beside the return: a value, a KL divergence."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from jtrust import checks
from jtrust.deploy.recording import Measure
from jtrust.environments import Environment
from jtrust.networks import has_memory
from jtrust.policy import Policy
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.config import RunConfig
from jtrust.runs.evaluate import load_with_config
from jtrust.runs.restoring import restore

MEASURES = ("kl", "value")


def check_names(show: Any) -> tuple[str, ...]:
    """`show` as a tuple without repetitions.

    Raises:
      BadArgument: it is none, or names what there is not.
    """
    if isinstance(show, str) or not isinstance(show, Sequence):
        raise checks.BadArgument("show", show, f"must be a list of {' and '.join(MEASURES)}")
    return tuple(dict.fromkeys(checks.one_of("show", name, MEASURES) for name in show))


def find_measures(
    show: Sequence[str], run_dir: str | os.PathLike, config: RunConfig, step: int,
    policy: Policy, environment: Environment, policy_network: nn.Module | None,
    value_network: nn.Module | None,
) -> dict[str, tuple[Measure, Any]]:
    """The functions that `recording.record` takes, and their parameters, by name.

    "kl" is D_KL(policy of the checkpoint before || this one) in each state, in nats; "value" what
    the value function makes of it, in units of reward.

    Raises:
      BadArgument: there is no checkpoint before, or this one holds a policy alone.
    """
    found: dict[str, tuple[Measure, Any]] = {}
    if show and has_memory(config.make_network(), policy_network):
        raise checks.BadArgument(
            "show", " ".join(show), "is of single states, and this run's networks have a memory; "
            "leave it out",
        )
    if "kl" in show:
        found["kl"] = _kl(run_dir, step, policy, policy_network)
    if "value" in show:
        found["value"] = _value(
            run_dir, config, step, environment, policy_network, value_network
        )
    return found


def _kl(
    run_dir: str | os.PathLike, step: int, policy: Policy, policy_network: nn.Module | None
) -> tuple[Measure, Any]:
    earlier = [s for s in CheckpointReader(os.path.expanduser(run_dir)).steps() if s < step]
    if not earlier:
        raise checks.BadArgument(
            "show", "kl", f"is to the checkpoint before, and there is none before step {step}"
        )
    old = load_with_config(run_dir, earlier[-1], policy_network)[0]

    def kl(params: Any, observation: Any) -> Any:
        (of_old, old_statistics), (of_new, new_statistics) = params
        before = policy.distribution(of_old, old_statistics, observation)
        return before.kl_divergence(policy.distribution(of_new, new_statistics, observation))

    return kl, ((old.params, old.statistics), (policy.params, policy.statistics))


def _value(
    run_dir: str | os.PathLike, config: RunConfig, step: int, environment: Environment,
    policy_network: nn.Module | None, value_network: nn.Module | None,
) -> tuple[Measure, Any]:
    path = os.path.expanduser(run_dir)
    try:
        CheckpointReader(path).check_training_state()
    except checks.BadArgument as error:
        raise checks.BadArgument(
            "show", "value", "the run holds a policy alone, without a value function"
        ) from error
    trainer = config.make_trainer(environment, 1, policy_network, value_network)
    state, _ = restore(trainer, path, step)
    # Of a training state what values are made of, and neither environments nor optimisers.
    nothing = {
        field.name: None for field in dataclasses.fields(state)
        if field.name not in ("value", "observation_statistics", "target_statistics")
    }
    state = dataclasses.replace(state, **nothing)  # type: ignore[arg-type]
    return trainer.agent.values, state
