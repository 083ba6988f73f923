"""`render`: what a run's policy does, as a video, an animation, a page or a strip of pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jtrust import checks
from jtrust.deploy import files
from jtrust.deploy.choosing import way_to
from jtrust.deploy.clips import choose_clips
from jtrust.deploy.measures import check_names, find_measures
from jtrust.deploy.recording import Measure, Recording, record
from jtrust.deploy.scene import Scene, find_scene
from jtrust.deploy.settings import MOST_EPISODES, Settings, settings_for, suffix_of
from jtrust.environments import Environment
from jtrust.environments.warp_physics import MORE_ROOM
from jtrust.paths import user_path
from jtrust.policy import Policy
from jtrust.runs.evaluate import environment_of, load_with_config

_MOST_BYTES = 4 * 2**30  # of what is kept of episodes


def render(
    run_dir: str | os.PathLike, *, output: str | os.PathLike | None = None, episodes: int = 16,
    seed: int = 0, step: int | str | None = None, stochastic: bool = False,
    show: Sequence[str] = (),
    width: int | None = None, height: int | None = None, fps: float | None = None,
    seconds: float | None = None, camera: str | None = None, env: Any = None,
    policy_network: nn.Module | None = None, value_network: nn.Module | None = None,
    allow_code: bool = False, say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Shows what a run's policy does: the best, the median and the worst of some episodes.

    Episodes are those of `jtrust.evaluate` with the same seed and number.

    Args:
      run_dir: the run's directory.
      output: file to write, .mp4, .gif, .html or .png (a strip of pictures); of an environment
        without a MuJoCo model .png or .html (a plot). By default `render.mp4` in the run's
        directory, `render.html` where no video can be made here, `render.png` without a model.
      episodes: how many, side by side; 1 shows that one.
      seed, step, stochastic, env, policy_network, allow_code: as for `jtrust.evaluate`.
      show: what stands beside the return: "kl", of the checkpoint before to this one, and
        "value", what the value function makes of each state.
      width, height: pixels; by default 640 x 480, of .gif and each picture of .png 320 x 240.
      fps: frames a second, by default 30, of .gif 20; never more than steps of the environment.
      seconds: of each episode, from its beginning; by default 60, of .gif 5.
      camera: name of one of the model's, or "free"; by default one that follows the robot.
      value_network: the run's, where it was given to `train`.
      say: told, in a line each, what is done.

    Returns:
      {"output", "format", "drawn_by", "env", "algorithm", "step", "episodes", "return_mean",
      "return_std", "length_mean", "nonfinite", "frames", "shown"}. `drawn_by` is the OpenGL that
      drew ("egl", ...), "browser" of a page, "matplotlib" of a plot; `shown` has, for each episode
      that is shown, {"which", "episode", "return", "length", "steps_shown"}.

    Raises:
      BadArgument: as `jtrust.evaluate`; or nothing can be drawn, or written, as asked.
    """
    episodes = checks.whole_number("episodes", episodes, maximum=MOST_EPISODES, example=16)
    seed = checks.whole_number("seed", seed, minimum=0)
    show = check_names(show)
    given = {"width": width, "height": height, "fps": fps, "seconds": seconds, "camera": camera}
    if output is not None:
        output = user_path("output", output)
        settings_for(suffix_of(output), **given)
        files.check_writable(output)
    policy, config, step = load_with_config(run_dir, step, policy_network)
    environment = environment_of(config, run_dir, env, allow_code)
    measures = find_measures(
        show, user_path("RUN_DIR", run_dir), config, step, policy, environment, policy_network,
        value_network,
    )
    found = render_policy(
        policy, environment, output or user_path("RUN_DIR", run_dir) / "render", episodes=episodes,
        seed=seed, stochastic=stochastic, measures=measures,
        heading=f"{environment.name}, {config.algorithm}, {step:,} steps", say=say, **given,
    )
    return {**found, "algorithm": config.algorithm, "step": step}


def render_policy(
    policy: Policy, environment: Environment, output: str | os.PathLike, *, episodes: int = 16,
    seed: int = 0, stochastic: bool = False,
    measures: Mapping[str, tuple[Measure, Any]] | None = None, heading: str = "",
    say: Callable[[str], None] = lambda line: None, **how: Any,
) -> dict[str, Any]:
    """Shows what a policy does in an environment; `render` without a run.

    Args:
      policy: who acts.
      environment: in what.
      output: file to write, as for `render`; without a suffix one is chosen.
      episodes, seed, stochastic, say: as for `render`.
      measures: what stands beside the return: as for `recording.record`.
      heading: what stands on every picture.
      **how: `width`, `height`, `fps`, `seconds`, `camera`, as for `render`.

    Returns:
      As `render`, without "algorithm" and "step".

    Raises:
      BadArgument: as `render`.
    """
    episodes = checks.whole_number("episodes", episodes, maximum=MOST_EPISODES, example=16)
    heading = checks.short(heading or environment.name)
    scene = find_scene(environment)
    with way_to(user_path("output", output), environment, scene, how, say) as way:
        recording = _recorded(
            policy, environment, scene, way.settings, episodes, seed, stochastic, measures, say
        )
        clips = choose_clips(recording)
        say(f"drawing {way.output} by {way.drawn_by}")
        count = way.write(clips, heading)
    return {
        "output": str(way.output), "format": way.settings.suffix[1:], "drawn_by": way.drawn_by,
        "env": environment.name, "episodes": episodes, **_summary(recording),
        "frames": count, "shown": [clip.told() for clip in clips],
    }


def _recorded(
    policy: Policy, environment: Environment, scene: Scene | None, settings: Settings,
    episodes: int, seed: int, stochastic: bool,
    measures: Mapping[str, tuple[Measure, Any]] | None, say: Callable[[str], None],
) -> Recording:
    dt = (environment.dt or 1.0) if scene is None else scene.dt
    # An episode without a model has no seconds; its plot has a thousand steps at the most.
    most = min(
        max(1, int(settings.seconds / dt + 1e-6)) if scene is not None else 1000,
        environment.episode_length,
    )
    numbers = 64 if scene is None else scene.model.nq + 7 * scene.model.nmocap + 1
    if (size := 4 * most * episodes * numbers) > _MOST_BYTES:
        raise checks.BadArgument(
            "episodes", episodes,
            f"of {most:,} steps would take {size / 2**30:,.0f} GiB; ask for fewer, or for fewer "
            "seconds"
        )
    if settings.suffix == ".gif" and scene is not None:
        pictures = 3 * (settings.seconds + 1) * float(settings.rate(dt))
        if pictures * settings.width * settings.height > files.MOST_GIF_PIXELS:
            raise checks.BadArgument(
                "output", ".gif", f"of {settings.width} x {settings.height} pixels and "
                f"{pictures:,.0f} pictures would be gigantic; ask for fewer seconds or pixels, or "
                "write .mp4"
            )
    say(f"{episodes} episodes of {environment.name}")
    recording = record(
        policy, environment, episodes, seed=seed, stochastic=stochastic, most_steps=most,
        measures=measures, observe=scene is None,
    )
    if crowded := int(np.sum(recording.overflow)):
        warnings.warn(f"in {crowded} of {episodes} episodes {MORE_ROOM}", stacklevel=4)
    return recording


def _summary(recording: Recording) -> dict[str, Any]:
    """Returns and lengths, as `jtrust.evaluate` has them."""
    whole = ~recording.nonfinite
    returns, lengths = recording.returns[whole], recording.lengths[whole]
    mean = lambda x: float(np.mean(x)) if x.size else None  # noqa: E731
    return {
        "return_mean": mean(returns),
        "return_std": float(np.std(returns)) if returns.size else None,
        "length_mean": mean(lengths), "nonfinite": int(np.sum(~whole)),
    }
