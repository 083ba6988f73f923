"""From where a picture is taken: the model's own camera, or one that follows the robot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FREE = "free"
_SMOOTH = 0.4  # seconds: a camera that follows each jolt makes the ground shake
_MARGIN = 1.35
_TALL = 1.7  # half of what a camera that tracks sees, in radii of what it tracks


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where the bodies that move are, over some poses.

    Attributes:
      centres: their middle in each pose, [F, 3].
      low, high: of all of them, over all poses, [3] each.
      radius: of the largest sphere about `centres` that held them in a pose.
    """

    centres: np.ndarray
    low: np.ndarray
    high: np.ndarray
    radius: float

    @property
    def travels(self) -> bool:
        """Whether they go away, so that a camera has to follow."""
        return float(np.max(self.high[:2] - self.low[:2])) > 6 * self.radius


def find_bounds(model: Any, poses: Mapping[str, np.ndarray]) -> Bounds:
    """Bounds over poses, {field of `MjData`: [F, ...]}."""
    import mujoco

    data = mujoco.MjData(model)
    geoms = _moving(model)
    reach = model.geom_rbound[geoms][:, None]
    count = len(poses["qpos"])
    centres, low, high, radius = np.zeros((count, 3)), [], [], 1e-3
    for f in range(count):
        for field, value in poses.items():
            getattr(data, field)[:] = value[f]
        mujoco.mj_kinematics(model, data)
        at = data.geom_xpos[geoms]
        low.append((at - reach).min(axis=0))
        high.append((at + reach).max(axis=0))
        centres[f] = (at.min(axis=0) + at.max(axis=0)) / 2
        away = np.linalg.norm(at - centres[f], axis=1) + reach[:, 0]
        radius = max(radius, float(away.max()))
    return Bounds(centres, np.min(low, axis=0), np.max(high, axis=0), radius)


def _moving(model: Any) -> np.ndarray:
    """Numbers of the geoms that can move and are seen; of all that have an end where none can."""
    import mujoco

    ends = (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE) & (
        model.geom_type != mujoco.mjtGeom.mjGEOM_HFIELD
    )
    seen = ends & (model.geom_group < 3) & (model.geom_rbound > 0)
    moves = (model.body_weldid != 0) | (model.body_mocapid >= 0)
    for chosen in (seen & moves[model.geom_bodyid], seen, ends):
        if chosen.any():
            return np.flatnonzero(chosen)
    return np.arange(model.ngeom)


def lowest_floor(model: Any, bounds: Bounds) -> float | None:
    """Height of the floor that a model without one is given; None where it has one."""
    import mujoco

    floors = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
    if np.isin(model.geom_type, floors).any():
        return None
    return float(bounds.low[2] - 0.1 * bounds.radius)


def names(model: Any) -> list[str]:
    """What `--camera` may be: the model's cameras by name, and "free"."""
    return [*(name for i in range(model.ncam) if (name := model.camera(i).name)), FREE]


def shots(
    model: Any, bounds: Bounds, dt: float, wanted: str | None = None
) -> list[dict[str, Any]]:
    """A camera for each pose, as `painter.py` takes it.

    By default, where nothing goes away, the model's first camera that stands still; else its first
    that tracks a robot as a whole; else a free one.

    Args:
      model: the `mujoco.MjModel`.
      bounds: over the poses, F.
      dt: seconds between them.
      wanted: one of `names`.
    """
    count = len(bounds.centres)
    if wanted is None:
        chosen = _of_model(model, bounds)
    else:
        chosen = None if wanted == FREE else {"id": int(model.camera(wanted).id)}
    return _free(model, bounds, dt) if chosen is None else [chosen] * count


def _of_model(model: Any, bounds: Bounds) -> dict[str, Any] | None:
    """The model's own camera that serves; None where there is none."""
    import mujoco

    modes, carriers = model.cam_mode, model.cam_bodyid
    tracking = (mujoco.mjtCamLight.mjCAMLIGHT_TRACK, mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
    # Of a robot's whole, not of its hand.
    follow = np.isin(modes, tracking) & (carriers > 0) & (model.body_parentid[carriers] == 0)
    still = (modes == mujoco.mjtCamLight.mjCAMLIGHT_FIXED) & (carriers == 0)
    if still.any() and not bounds.travels:
        return {"id": int(np.argmax(still))}
    if not follow.any():
        return None
    chosen = int(np.argmax(follow))
    away = float(np.linalg.norm(model.cam_poscom0[chosen]))
    # As near as all of it is seen between the words.
    angle = 2 * np.degrees(np.arctan2(_TALL * bounds.radius, max(away, 1e-6)))
    return {"id": chosen, "fovy": float(np.clip(angle, 15, 90))}


def _free(model: Any, bounds: Bounds, dt: float) -> list[dict[str, Any]]:
    """A free camera that follows, or that sees all of what stays where it is."""
    count = len(bounds.centres)
    if bounds.travels:
        lookat, radius = _smooth(bounds.centres, dt), bounds.radius
    else:
        lookat = np.tile((bounds.low + bounds.high) / 2, (count, 1))
        radius = float(np.linalg.norm(bounds.high - bounds.low)) / 2
    wide, tall = np.ptp([bounds.low[:2], bounds.high[:2]], axis=0).max(), np.ptp(
        [bounds.low[2], bounds.high[2]])
    # What moves over a table is seen from above, what stands from the side.
    elevation = -55.0 if tall < 0.35 * wide and not bounds.travels else -14.0
    distance = _MARGIN * radius / np.tan(np.radians(float(model.vis.global_.fovy)) / 2)
    return [
        {"lookat": at, "distance": float(distance), "azimuth": 100.0, "elevation": elevation}
        for at in lookat
    ]


def _smooth(path: np.ndarray, dt: float) -> np.ndarray:
    """A path, [F, 3], without its jolts: means over a window that ends hold still at."""
    half = min(round(_SMOOTH / dt), len(path) - 1, 500)
    if half < 1:
        return path.copy()
    weights = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(path, ((half, half), (0, 0)), mode="edge")
    columns: Sequence[np.ndarray] = [
        np.convolve(padded[:, i], weights / weights.sum(), mode="valid") for i in range(3)
    ]
    return np.stack(columns, axis=1)
