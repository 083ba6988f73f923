"""`config.json` as it is read: a run directory may come from anywhere, so nothing in it is trusted.

Every field is checked for type and range before anything is made of it, and no number in it makes
anything large: sizes that a run could not have are refused, not tried.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import jax

from jtrust import checks
from jtrust.environments import Bins, Box, Discrete
from jtrust.environments.base import ActionSpace
from jtrust.version import __version__

FORMAT = 1
MOST_BYTES = 2**24
# A policy larger than this is no policy of jtrust's, but a number that somebody made up.
MOST_POLICY_BYTES = 4 * 2**30
_MOST_LAYERS = 256
_MOST_DEPTH = 50
_MOST_OBSERVATIONS = 1000

_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "bool": bool, "dict[str, Any]": dict,
}
_RANGES = {
    "num_envs": (1, 2**24), "unroll_length": (1, 2**15), "seed": (0, 2**31 - 1),
    "total_steps": (1, 10**15), "checkpoint_every": (1, 2**31 - 1), "devices": (1, 2**24),
    "episode_length": (0, 2**31 - 1), "keep_checkpoints": (0, 2**31 - 1),
}


def read_json(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
      ValueError: it is none, or goes deeper than anything that jtrust writes.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [found], 0
    while level:
        if depth > _MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        inner = [x.values() if isinstance(x, dict) else x for x in level
                 if isinstance(x, (dict, list))]
        level, depth = [y for x in inner for y in x], depth + 1
    return found


def read_fields(text: str, where: str) -> dict[str, Any]:
    """The object that `config.json` holds.

    Raises:
      BadArgument: where there is none, or one of a format that this version does not read.
    """
    try:
        fields = read_json(text)
    except ValueError as error:
        raise checks.BadArgument(
            "RUN_DIR", where, f"its config.json is no JSON ({error}); it has been damaged"
        ) from error
    found = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(found, bool) or found != FORMAT:
        raise checks.BadArgument(
            "RUN_DIR", where,
            f"its config.json is of format {_shown(found)}; jtrust {__version__} reads format "
            f"{FORMAT}",
        )
    return fields


def check_fields(fields: Mapping[str, Any], types: Mapping[str, str], where: str) -> None:
    """Raises `BadArgument` for a field of a wrong type, or of a value that no run has.

    Args:
      fields: of `config.json`, all of them.
      types: of each, as `RunConfig` annotates it.
      where: what to call the run.
    """
    for name, kind in types.items():
        value = fields[name]
        good = isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
        if good and name in _RANGES:
            low, high = _RANGES[name]
            good = low <= value <= high
        if not good:
            raise _no(where, name, value)
    for name, value in fields["own_networks"].items():
        if name not in ("policy_network", "value_network") or not isinstance(value, str):
            raise _no(where, "own_networks", fields["own_networks"])
    for name in ("policy_layers", "value_layers"):
        layers = fields["network"].get(name)
        if isinstance(layers, list) and len(layers) > _MOST_LAYERS:
            raise _no(where, f"network.{name}", layers)
    for name in ("wandb_id", "mlflow_id"):
        if not re.fullmatch(r"[\w-]{0,64}", fields[name], re.ASCII):
            raise _no(where, name, fields[name])
    if not _is_evaluation(fields["evaluation"]):
        raise _no(where, "evaluation", fields["evaluation"])
    try:
        action_space(fields["action"])
    except (checks.BadArgument, TypeError, ValueError, OverflowError) as error:
        raise _no(where, "action", fields["action"]) from error
    if not _is_observation(fields["observation"]):
        raise _no(where, "observation", fields["observation"])


def _is_evaluation(fields: Mapping[str, Any]) -> bool:
    """Whether these are fields of `jtrust.runs.evaluation.Evaluations`."""
    good = {
        "every": lambda x: type(x) is int and 0 < x < 2**31,
        "keep_best": lambda x: x is True,
        "stop_at": lambda x: checks.is_number(x) and math.isfinite(x),
    }
    known = all(name in good and good[name](value) for name, value in fields.items())
    return known and (not fields or "every" in fields)


def action_space(fields: Mapping[str, Any]) -> ActionSpace:
    """The space of actions that `config.json` describes.

    Raises:
      ValueError, TypeError: it describes none.
    """
    fields = dict(fields)
    kind = fields.pop("kind", None)
    spaces = {"bins": Bins, "box": Box, "discrete": Discrete}
    if not isinstance(kind, str) or kind not in spaces:
        raise ValueError(f"there is no space of actions {kind!r}")
    return spaces[kind](**fields)


def check_size(where: str, policy: Any) -> None:
    """Raises `BadArgument` where a policy, a pytree of shapes and types, would take more memory
    than any policy does."""
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(policy))
    if size > MOST_POLICY_BYTES:
        raise checks.BadArgument(
            "RUN_DIR", where,
            f"its config.json asks for a policy of {size / 2**30:,.0f} GiB; "
            f"{MOST_POLICY_BYTES // 2**30} GiB is the most that is opened",
        )


def _is_observation(found: Mapping[str, Any]) -> bool:
    if "dictionary" not in found:
        return _is_vector(found)
    parts, keys = found["dictionary"], (found.get("policy"), found.get("value"))
    return (
        isinstance(parts, dict) and len(parts) <= _MOST_OBSERVATIONS
        and all(map(_is_vector, parts.values()))
        and all(isinstance(key, str) and key in parts for key in keys)
    )


def _is_vector(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    shape, dtype = found.get("shape"), found.get("dtype")
    return (
        isinstance(shape, list) and len(shape) == 1 and isinstance(dtype, str)
        and type(shape[0]) is int and 1 <= shape[0] <= 2**31 - 1
    )


def _no(where: str, name: str, value: Any) -> checks.BadArgument:
    return checks.BadArgument("RUN_DIR", where, f"its config.json has {name} = {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        return checks.short(repr(value))
    except (ValueError, RecursionError):  # numbers of thousands of digits
        return f"something of type {type(value).__name__}"
