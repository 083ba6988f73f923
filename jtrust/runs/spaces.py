"""Observations and actions as config.json has them."""

from __future__ import annotations

import dataclasses
from typing import Any

from jtrust.environments import Environment
from jtrust.environments.base import ActionSpace


def observation_to_json(environment: Environment) -> dict[str, Any]:
    """Shapes and types of what the networks read, and which network reads which."""
    write = lambda x: {"shape": list(x.shape), "dtype": str(x.dtype)}  # noqa: E731
    used = environment.used(environment.observation)
    if environment.policy_key is None:
        return write(used)
    return {
        "dictionary": {key: write(spec) for key, spec in used.items()},
        "policy": environment.policy_key, "value": environment.value_key,
    }


def action_to_json(action: ActionSpace) -> dict[str, Any]:
    """The space's kind, and what it is made with."""
    return {"kind": type(action).__name__.lower(), **dataclasses.asdict(action)}
