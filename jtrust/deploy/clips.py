"""Which of the recorded episodes are shown, and what of them."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np

from jtrust import checks
from jtrust.deploy.captions import number
from jtrust.deploy.recording import Recording


@dataclasses.dataclass(frozen=True)
class Clip:
    """One episode, of which K steps are shown.

    Attributes:
      which: "best", "median", "worst", "episode" where there is only one, or "broken".
      title: what to call it.
      episode: its number.
      total: its whole return.
      length: its whole number of steps.
      poses: by field of `mujoco.MjData`, [K + 1, ...]; nothing where there is no model.
      rewards, returns: of the step that led to each pose, and the sum so far, [K + 1].
      measures: by name, [K + 1].
      observations, actions: [K, ...] where they were asked for.
    """

    which: str
    title: str
    episode: int
    total: float
    length: int
    poses: dict[str, np.ndarray]
    rewards: np.ndarray
    returns: np.ndarray
    measures: dict[str, np.ndarray]
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """K."""
        return len(self.rewards) - 1

    def frames(self, dt: float, rate: Fraction) -> np.ndarray:
        """Which poses are shown at `rate` pictures a second, of steps that take `dt` seconds."""
        count = int(np.floor(self.steps * dt * float(rate) + 1e-6)) + 1
        steps = np.rint(np.arange(count) / (float(rate) * dt)).astype(int)
        return np.minimum(steps, self.steps)

    def told(self) -> dict[str, Any]:
        """What `jtrust render --json` says of it."""
        return {
            "which": self.which, "episode": self.episode, "return": self.total,
            "length": self.length, "steps_shown": self.steps,
        }


def choose_clips(recording: Recording) -> list[Clip]:
    """The best, the median and the worst of the episodes that did not break, in that order.

    Of two, best and worst; of one, that one. Where all broke, the one that went on the longest.

    Raises:
      BadArgument: none has so much as a first pose.
    """
    count = len(recording.returns)
    drawable = recording.begun_whole
    if not drawable.any():
        raise checks.BadArgument(
            "episodes", count, "all of them begin with NaN or infinity; there is nothing to draw"
        )
    whole = np.flatnonzero(drawable & ~recording.nonfinite)
    if not whole.size:
        steps = np.where(drawable, recording.lengths, -1)
        return [_clip(recording, int(np.argmax(steps)), "broken", "ended in NaN or infinity")]
    order = whole[np.argsort(recording.returns[whole], kind="stable")]
    picks = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    if len(order) == 2:
        del picks["median"]
    if len(order) == 1:
        picks = {"episode": order[0]}
    return [
        _clip(
            recording, int(i), which,
            f"{which} of {count}" if which != "episode" else f"episode {i}"
        ) for which, i in picks.items()
    ]


def _clip(recording: Recording, episode: int, which: str, name: str) -> Clip:
    steps = recording.steps_of(episode)
    rewards = np.concatenate([[0.0], recording.rewards[:steps, episode]])
    total = float(recording.returns[episode])
    kept = lambda x: None if x is None else x[:steps, episode]  # noqa: E731
    return Clip(
        which, f"{name}: return {number(total)}", episode, total,
        int(recording.lengths[episode]),
        {k: v[: steps + 1, episode] for k, v in recording.poses.items()},
        rewards, np.cumsum(rewards),
        {k: _with_end(v[:steps, episode]) for k, v in recording.measures.items()},
        kept(recording.observations), kept(recording.actions),
    )


def _with_end(values: np.ndarray) -> np.ndarray:
    """A measure of the state before each step, [K], as of each pose, [K + 1]: nobody has measured
    the last."""
    return np.concatenate([values, values[-1:]]) if len(values) else np.full(1, np.nan)
