"""One page of HTML that plays episodes in a browser, with all it needs in it: no network."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks

_VIEWER = Path(__file__).with_name("viewer")
_CORE = '"./three.core.min.js"'  # what three's module imports; a data: URL has no folder
_MOST_BYTES = 300_000_000
_TYPES = {2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 0: "plane"}


def write_page(scene: Mapping[str, Any], title: str) -> str:
    """The page.

    Args:
      scene: of `scene_of`, with "subtitle", "camera" (a free one, as `painter.py` takes it),
        "follows" (whether the camera goes along), "radius" (of what moves, metres) and "episodes":
        each {"title", "length" (steps), "dt" (seconds between frames), "stride" (steps between
        frames), "frames", "poses" (float32 [F, B, 7]: position, quaternion w x y z), "path"
        (float32 [F, 3]: where the camera looks), "series" {name: float32 [F]}}.
      title: of the page.

    Raises:
      BadArgument: it would be larger than a browser could open.
    """
    data = json.dumps(scene, default=_packed, allow_nan=False)
    if len(data) > _MOST_BYTES:
        raise checks.BadArgument(
            "output", ".html", f"would hold {len(data) / 1e6:,.0f} MB; ask for fewer --seconds"
        )
    read = lambda name: (_VIEWER / name).read_text(encoding="utf-8")  # noqa: E731
    three = read("three.module.min.js").replace(_CORE, '"three-core"')
    modules = {
        "three": three, "three-core": read("three.core.min.js"),
        "OrbitControls": read("OrbitControls.js"),
    }
    imports = {"imports": {name: _as_url(text) for name, text in modules.items()}}
    parts = {
        # Inside a script nothing may look like the end of it.
        "title": html.escape(title), "data": data.replace("<", "\\u003c"),
        "imports": json.dumps(imports), "viewer": read("viewer.js"),
    }
    # In one pass, so that nothing in a part is taken for the place of another.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], read("page.html"))


def scene_of(model: Any, ground: float | None) -> tuple[dict[str, Any], list[int]]:
    """What of a `mujoco.MjModel` stands still or moves as a whole, and the bodies that move.

    Args:
      model: the model.
      ground: height of a floor to add; None adds none.

    Returns:
      {"geoms", "meshes", "bodies"} of the page's data, and the numbers of the bodies whose
      poses an episode tells.
    """
    meshes: dict[tuple[str, int], int] = {}
    stored: list[dict[str, np.ndarray]] = []
    bodies: dict[int, int] = {}
    geoms = []
    for i in range(model.ngeom):
        rgba = _colour(model, i)
        if model.geom_group[i] > 2 or rgba[3] == 0:  # as MuJoCo's own viewer has it at first
            continue
        body = int(model.geom_bodyid[i])
        geom: dict[str, Any] = {
            "type": _TYPES.get(int(model.geom_type[i]), "mesh"),
            "size": model.geom_size[i].tolist(), "rgba": rgba,
            "pos": model.geom_pos[i].tolist(), "quat": model.geom_quat[i].tolist(),
        }
        if geom["type"] == "mesh":
            found = _mesh(model, i)
            if found is None:
                continue
            key, mesh = found
            if key not in meshes:
                meshes[key] = len(stored)
                stored.append(mesh)
            geom["mesh"] = meshes[key]
        geom["body"] = -1 if body == 0 else bodies.setdefault(body, len(bodies))
        geoms.append(geom)
    if ground is not None:
        geoms.append({
            "type": "plane", "size": [0, 0, 1], "rgba": [0.5, 0.5, 0.5, 1], "body": -1,
            "pos": [0, 0, ground], "quat": [1, 0, 0, 0],
        })
    names = [model.body(b).name for b in bodies]
    return {"geoms": geoms, "meshes": stored, "bodies": names}, list(bodies)


def body_poses(model: Any, poses: Mapping[str, np.ndarray], bodies: Sequence[int]) -> np.ndarray:
    """Positions and quaternions (w x y z) of bodies, float32 [F, B, 7].

    Args:
      model: the `mujoco.MjModel`.
      poses: {field of `mujoco.MjData`: [F, ...]}.
      bodies: their numbers, B.
    """
    import mujoco

    data = mujoco.MjData(model)
    found = np.zeros((len(poses["qpos"]), len(bodies), 7), np.float32)
    for f in range(len(found)):
        for field, value in poses.items():
            getattr(data, field)[:] = value[f]
        mujoco.mj_kinematics(model, data)
        found[f, :, :3] = data.xpos[bodies]
        found[f, :, 3:] = data.xquat[bodies]
    return found


def _colour(model: Any, geom: int) -> list[float]:
    """A geom's own colour, or its material's where it has none, as MuJoCo chooses; textured ones
    in the mean of their texture."""
    rgba = np.array(model.geom_rgba[geom], float)
    material = int(model.geom_matid[geom])
    if material >= 0:
        if np.allclose(rgba, (0.5, 0.5, 0.5, 1.0)):
            rgba = np.array(model.mat_rgba[material], float)
        for texture in (int(t) for t in np.ravel(model.mat_texid[material]) if t >= 0):
            channels = int(model.tex_nchannel[texture])
            start = int(model.tex_adr[texture])
            size = int(model.tex_height[texture] * model.tex_width[texture]) * channels
            pixels = model.tex_data[start : start + size].reshape(-1, channels)
            if channels >= 3 and len(pixels):
                rgba[:3] *= pixels[:, :3].mean(axis=0) / 255.0
            break
    return [round(float(x), 4) for x in np.clip(rgba, 0, 1)]


def _mesh(model: Any, geom: int) -> tuple[tuple[str, int], dict[str, np.ndarray]] | None:
    """Triangles of a geom's mesh or height field, and what they are called; None of anything
    else."""
    import mujoco

    kind, number = int(model.geom_type[geom]), int(model.geom_dataid[geom])
    if number < 0:
        return None
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        start, count = model.mesh_vertadr[number], model.mesh_vertnum[number]
        first, faces = model.mesh_faceadr[number], model.mesh_facenum[number]
        return ("mesh", number), {
            "vertices": model.mesh_vert[start : start + count].astype(np.float32),
            "faces": model.mesh_face[first : first + faces].astype(np.uint32),
        }
    if kind == mujoco.mjtGeom.mjGEOM_HFIELD:
        return ("hfield", number), _height_field(model, number)
    return None


def _height_field(model: Any, number: int) -> dict[str, np.ndarray]:
    rows, columns = int(model.hfield_nrow[number]), int(model.hfield_ncol[number])
    start = int(model.hfield_adr[number])
    heights = model.hfield_data[start : start + rows * columns].reshape(rows, columns)
    half_x, half_y, top, _ = model.hfield_size[number]
    x, y = np.meshgrid(np.linspace(-half_x, half_x, columns), np.linspace(-half_y, half_y, rows))
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b = corner[:-1, :-1].ravel(), corner[:-1, 1:].ravel()
    c, d = corner[1:, :-1].ravel(), corner[1:, 1:].ravel()
    return {
        "vertices": np.stack([x, y, top * heights], axis=-1).reshape(-1, 3).astype(np.float32),
        "faces": np.concatenate([
            np.stack([a, b, d], axis=1), np.stack([a, d, c], axis=1)
        ]).astype(np.uint32),
    }


def _packed(value: Any) -> Any:
    """Arrays as text: their bytes in base64, little-endian as browsers' typed arrays are."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} is not for a page")
    return base64.b64encode(
        np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
    ).decode()


def _as_url(text: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()
