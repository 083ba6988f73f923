"""Which settings the members of a sweep have: lists of values, crossed or side by side."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jtrust import checks
from jtrust.advantages import GAE
from jtrust.algorithms import Algorithm
from jtrust.algorithms.actor_critic import by_name_of_value_fit
from jtrust.networks import NetworkConfig
from jtrust.training import Trainer, make_trainer
from jtrust.training.build import ProgramOptions

Settings = dict[str, Any]

# What one value is a sequence of, already.
_LAYERS = ("policy_layers", "value_layers")
_NUMBERS = ("num_envs", "unroll_length", "action_bins")
_OF_NETWORK = tuple(f.name for f in dataclasses.fields(NetworkConfig))
# Directory names have at most 255 bytes on most file systems.
_LONGEST_NAME = 200


def as_values(name: str, given: Any) -> list[Any] | None:
    """The values of a setting that was given as a list of them; None for a single one.

    Raises:
      BadArgument: an empty list, or one that has a value twice.
    """
    if not isinstance(given, (list, tuple)):
        return None
    if name in _LAYERS:
        if given and not any(isinstance(x, (list, tuple)) for x in given):
            return None
        given = [tuple(x) if isinstance(x, (list, tuple)) else x for x in given]
    values = list(given)
    if not values:
        raise checks.BadArgument(name, given, "must have at least one value")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise checks.BadArgument(name, value, "is in the list twice; give each value once")
    return values


def combinations(varied: Mapping[str, list[Any]], crossed: bool) -> list[Settings]:
    """One setting of each name: all combinations, or the first of each list, the second, ...

    Raises:
      BadArgument: lists of different lengths that are to be taken side by side.
    """
    if crossed:
        rows = itertools.product(*varied.values())
    else:
        lengths = {name: len(values) for name, values in varied.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{n} {name}" for name, n in lengths.items())
            raise checks.BadArgument(
                "zip", True, f"takes lists of one length, and there are {shown}"
            )
        rows = zip(*varied.values(), strict=True) if varied else [()]  # type: ignore[assignment]
    return [dict(zip(varied, row, strict=True)) for row in rows]


def seeds_of(given: Any, first: int = 0) -> list[int]:
    """Seeds: how many, from `first` on; or which.

    Raises:
      BadArgument: none, one twice, or what is no seed.
    """
    if isinstance(given, (list, tuple, range)):
        values = as_values("seeds", list(given)) or []
        return [checks.whole_number("seeds", seed, minimum=0) for seed in values]
    count = checks.whole_number("seeds", given, maximum=100_000, example=8)
    return list(range(first, first + count))


def member_name(settings: Mapping[str, Any], seed: int) -> str:
    """A directory's name: `max_kl=0.01,seed=3`."""
    parts = [f"{name}={_shown(value)}" for name, value in (*settings.items(), ("seed", seed))]
    return ",".join(parts)[-_LONGEST_NAME:].lstrip(".-,")


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "x".join(map(str, value))
    return re.sub(r"[^\w.+-]+", "-", str(value))


@dataclasses.dataclass(frozen=True)
class Base:
    """What the members of a sweep have in common, and what is made of it for each.

    Attributes:
      env: an `Environment`, a name or an object, or a `Trainer`.
      algorithms: by name; of each, what was given. One for a trainer, its own.
      options: of `make_trainer`; for a trainer none.
      fixed: settings that all of them have.
    """

    env: Any
    algorithms: Mapping[str, Algorithm]
    options: ProgramOptions
    fixed: Settings = dataclasses.field(default_factory=dict)

    def trainer(self, settings: Mapping[str, Any], devices: Any) -> Trainer:
        """The trainer with some settings in place of its own.

        Args:
          settings: by the names of the algorithm's arguments, of `NetworkConfig`, or of
            `make_trainer`; `algorithm` by name.
          devices: for `make_trainer`.

        Raises:
          BadArgument: a setting that there is not, or a value that will not do.
        """
        left = {**self.fixed, **settings}
        name = left.pop("algorithm", None) or next(iter(self.algorithms))
        algorithm = self.algorithms[name]
        if isinstance(self.env, Trainer):
            return _changed(self.env, left)
        options: Any = dict(self.options)
        options |= {k: left.pop(k) for k in _NUMBERS if k in left}
        network = {k: left.pop(k) for k in _OF_NETWORK if k in left}
        if network:
            shape = options.get("network") or NetworkConfig()
            options["network"] = dataclasses.replace(shape, **network)
        algorithm = _replaced(algorithm, left, algorithm.name)
        return make_trainer(self.env, algorithm, devices=devices, **options)


def _replaced(part: Any, changes: Mapping[str, Any], of: str) -> Any:
    """A dataclass with some fields changed.

    Raises:
      BadArgument: it has no such field.
    """
    fields = [f.name for f in dataclasses.fields(part)]
    for name, value in changes.items():
        if name not in fields:
            raise checks.BadArgument(
                name, value, f"{of} has no such setting; it has {', '.join(sorted(fields))}"
            )
    return dataclasses.replace(part, **changes) if changes else part


def _changed(trainer: Trainer, settings: Mapping[str, Any]) -> Trainer:
    """A trainer with other hyperparameters; the program that it was made for stays."""
    of_gae = {f.name for f in dataclasses.fields(GAE)}
    of_fit = by_name_of_value_fit()
    parts: dict[str, dict[str, Any]] = {"gae": {}, "value_fit": {}, "algorithm": {}}
    for name, value in settings.items():
        if name in (*_NUMBERS, *_OF_NETWORK):
            raise checks.BadArgument(
                name, value, "the trainer has its own; give the environment and the algorithm in "
                "its place, and it may be a list"
            )
        if name in of_gae:
            parts["gae"][name] = value
        elif name in of_fit:
            parts["value_fit"][of_fit[name]] = value
        else:
            parts["algorithm"][name] = value
    of = trainer.algorithm.name
    changed = dataclasses.replace(trainer, **{
        part: _replaced(getattr(trainer, part), changes, of) for part, changes in parts.items()
    })
    # An algorithm that is told the same by name says what holds, too.
    known = [f.name for f in dataclasses.fields(changed.algorithm)]
    apart = {k: v for k, v in settings.items() if k in known}
    return dataclasses.replace(
        changed, algorithm=dataclasses.replace(changed.algorithm, **apart)
    )


def named_algorithms(given: Algorithm | Sequence[Algorithm]) -> dict[str, Algorithm]:
    """Algorithms by their names.

    Raises:
      BadArgument: none, or two of one name.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    found: dict[str, Algorithm] = {}
    for one in several:
        if not isinstance(one, Algorithm):
            raise checks.BadArgument(
                "algorithm", one, "must be an algorithm, such as jtrust.TRPO(), or a list of them"
            )
        if one.name in found:
            raise checks.BadArgument(
                "algorithm", one.name, "is in the list twice; vary its settings by their names"
            )
        found[one.name] = one
    if not found:
        raise checks.BadArgument("algorithm", given, "must have at least one value")
    return found


