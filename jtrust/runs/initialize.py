"""A run that starts from what another has learned."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.networks.mlp import DEVIATION
from jtrust.paths import user_path
from jtrust.runs import brax_checkpoint
from jtrust.runs.arrays import by_name
from jtrust.runs.best import BEST
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory
from jtrust.runs.upgrades import upgraded
from jtrust.training import TrainState

# What goes together: values without what they are normalised by would be other functions.
_NORMALISER = "observation_statistics"
_PARTS = {"policy": ("policy",), "values": ("value", "target_statistics")}


@dataclasses.dataclass(frozen=True)
class Source:
    """What a run starts from.

    Attributes:
      path: of the other run.
      step: of the checkpoint taken.
      arrays: by the names of their places.
      network: the other run's, as far as shapes of arrays do not tell it.
      deviations: whether it has the policy's standard deviations.
    """

    path: str
    step: int
    arrays: dict[str, np.ndarray]
    network: dict[str, Any]
    deviations: bool = True

    @classmethod
    def open(cls, run_dir: str | os.PathLike) -> Source:
        """The newest whole checkpoint of a run; the best where it kept that. Or one of brax's PPO.

        Raises:
          BadArgument: no run there, or none of its checkpoints is whole.
        """
        if (of_brax := brax_checkpoint.find(user_path("initialize_from", run_dir))) is not None:
            return cls(str(run_dir), *brax_checkpoint.read(of_brax), deviations=False)
        try:
            directory, config = RunDirectory.open(run_dir)
            best = directory.path / BEST
            place = best if best.is_dir() and CheckpointReader(best).steps() else directory.path
            reader = CheckpointReader(place)
            whole = any((place / str(step) / "training").is_dir() for step in reader.steps())
            step, arrays = reader.newest_whole(None, policy_only=not whole)
        except checks.BadArgument as error:
            raise checks.BadArgument("initialize_from", error.value, error.remedy) from error
        return cls(str(run_dir), step, upgraded(arrays), _of_shape(config))


def initialized(state: TrainState, source: Source, config: RunConfig) -> tuple[TrainState, str]:
    """A first state with another run's policy, values and normaliser, and what was taken in words.

    The policy comes with what its observations are normalised by, or not at all; values only where
    that came, too. Optimisers, episodes and random keys are the new run's own.

    Raises:
      BadArgument: nothing fits.
    """
    wanted = by_name(state)
    unlike = {
        name: value for name, value in source.network.items()
        if _of_shape(config).get(name) != value
    }
    if unlike:
        shown = ", ".join(f"{k} {v}" for k, v in unlike.items())
        raise checks.BadArgument(
            "initialize_from", source.path, f"its networks have {shown}; give this run the same"
        )
    misfit = _misfit(source, wanted, (_NORMALISER,)) or _misfit(source, wanted, _PARTS["policy"])
    if misfit:
        raise checks.BadArgument("initialize_from", source.path, misfit)
    taken = ["policy" if source.deviations else "policy's means"]
    left = "" if source.deviations else "; deviations begin anew"
    places = [_NORMALISER, *_PARTS["policy"]]
    if why := _misfit(source, wanted, _PARTS["values"]):
        left += f"; values begin anew ({why})"
    else:
        taken.append("values")
        places += _PARTS["values"]
    arrays = {n: x for n, x in source.arrays.items() if n.split(".")[0] in places}

    def take(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in arrays:
            return leaf
        return jax.device_put(jnp.asarray(arrays[name]), leaf.sharding)

    state = jax.tree_util.tree_map_with_path(take, state)
    said = f"starts from the {', '.join(taken)} and normaliser of {source.path} at step"
    return state, f"{said} {source.step:,}{left}"


def _misfit(source: Source, wanted: dict[str, Any], places: tuple[str, ...]) -> str:
    """Why arrays in these places cannot be taken; "" where they can."""
    ours = {n: x for n, x in wanted.items() if n.split(".")[0] in places and x.size}
    theirs = {n: x for n, x in source.arrays.items() if n.split(".")[0] in places}
    for name in sorted(set(ours) | set(theirs)):
        if name not in theirs and not source.deviations and name.endswith(DEVIATION):
            continue
        if name not in theirs:
            return f"it has no {name}"
        if name not in ours:
            return f"it has {name}, which this run has not"
        if ours[name].shape != theirs[name].shape or ours[name].dtype != theirs[name].dtype:
            return (
                f"{name} is {list(theirs[name].shape)} there and {list(ours[name].shape)} here"
            )
    return ""


def _of_shape(config: RunConfig) -> dict[str, Any]:
    """What the shapes of arrays do not tell of a network."""
    names = ("activation", "squash", "min_std")
    return {name: config.network.get(name) for name in names}
