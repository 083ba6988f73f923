"""Episodes as pictures: what stands in a frame, from where, and with which words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jtrust.deploy import camera as cameras
from jtrust.deploy.captions import measured, number, with_words
from jtrust.deploy.clips import Clip
from jtrust.deploy.page import body_poses, scene_of
from jtrust.deploy.pictures import Painter
from jtrust.deploy.scene import Scene
from jtrust.deploy.settings import Settings

_STRIP = 6  # pictures of an episode in a strip
_HOLD = 0.7  # seconds that an episode's last picture stands


def frames(
    painter: Painter, scene: Scene, clips: Sequence[Clip], settings: Settings, heading: str
) -> Iterator[np.ndarray]:
    """Pictures of episodes, one episode after another: uint8 [H, W, 3]."""
    rate = settings.rate(scene.dt)
    hold = round(_HOLD * float(rate)) if len(clips) > 1 or settings.suffix == ".gif" else 0
    for clip in clips:
        last = None
        for last in _drawn(painter, scene, clip, settings, heading, clip.frames(scene.dt, rate)):
            yield last
        if last is not None:
            yield from [last] * hold


def strips(
    painter: Painter, scene: Scene, clips: Sequence[Clip], settings: Settings, heading: str
) -> list[list[np.ndarray]]:
    """A few pictures of each episode, evenly spread over it."""
    return [
        list(_drawn(
            painter, scene, clip, settings, heading,
            np.unique(np.linspace(0, clip.steps, _STRIP).round().astype(int)),
        )) for clip in clips
    ]


def _drawn(
    painter: Painter, scene: Scene, clip: Clip, settings: Settings, heading: str,
    steps: np.ndarray,
) -> Iterator[np.ndarray]:
    bounds = cameras.find_bounds(scene.model, clip.poses)
    shots = cameras.shots(scene.model, bounds, scene.dt, settings.camera)
    ground = cameras.lowest_floor(scene.model, bounds)
    requests = (
        {"pose": {k: v[s] for k, v in clip.poses.items()}, "camera": shots[s], "ground": ground}
        for s in steps
    )
    for step, pixels in zip(steps, painter.draw(requests), strict=True):
        now = {name: float(values[step]) for name, values in clip.measures.items()}
        yield with_words(
            pixels, (clip.title, heading),
            (
                f"step {step:,}   return {number(float(clip.returns[step]))}   {measured(now)}",
                f"{step * scene.dt:.2f} s",
            ),
        )


def page_data(
    scene: Scene, clips: Sequence[Clip], settings: Settings, heading: str
) -> dict[str, Any]:
    """What `page.write_page` takes."""
    bounds = [cameras.find_bounds(scene.model, clip.poses) for clip in clips]
    grounds = [cameras.lowest_floor(scene.model, b) for b in bounds]
    ground = None if grounds[0] is None else min(g for g in grounds if g is not None)
    data, bodies = scene_of(scene.model, ground)
    radius = max(b.radius for b in bounds)
    first = cameras.shots(scene.model, bounds[0], scene.dt, cameras.FREE)[0]
    stride = max(1, round(1 / (settings.fps * scene.dt)))
    return {
        **data, "subtitle": heading, "radius": radius, "tile": _tile(radius),
        "follows": any(b.travels for b in bounds),
        "camera": {k: first[k] for k in ("distance", "azimuth", "elevation")},
        "episodes": [
            _episode(scene, clip, b, bodies, stride) for clip, b in zip(clips, bounds, strict=True)
        ],
    }


def _tile(radius: float) -> float:
    """Metres of a floor's two tiles: about as large as what moves over it."""
    return float(2.0 ** np.round(np.log2(max(radius, 1e-6))))


def _episode(
    scene: Scene, clip: Clip, bounds: cameras.Bounds, bodies: Sequence[int], stride: int
) -> Mapping[str, Any]:
    kept = np.arange(0, clip.steps + 1, stride)
    shots = cameras.shots(scene.model, bounds, scene.dt, cameras.FREE)
    series = {"return": clip.returns, "reward": clip.rewards, **{
        {"kl": "KL"}.get(name, name): values for name, values in clip.measures.items()
    }}
    return {
        "title": clip.title, "length": clip.length, "dt": scene.dt * stride, "stride": stride,
        "frames": len(kept),
        "poses": body_poses(scene.model, {k: v[kept] for k, v in clip.poses.items()}, bodies),
        "path": np.array([shots[s]["lookat"] for s in kept], np.float32),
        "series": {name: values[kept].astype(np.float32) for name, values in series.items()},
    }
