"""Models made fit to be seen: many have no light to speak of, and a floor of black and white."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from jtrust.deploy.camera import find_bounds

# Contrast of a floor's texture, of 255, beyond which nobody has chosen its colours.
_STARK = 150
_FLOOR = (88.0, 124.0)  # what its darkest and its lightest become
_TINT = np.array([0.92, 1.0, 1.1])
_DARK = 0.45  # brightest channel of a body that is brightened
_LIT = 0.9
_TILES, _PAPER = 0.95, 0.55  # brightest channel of a floor with a texture, and of one without
_SHADOWS = 2.5  # how far about a robot, in its own radii
_FAR = 5.0  # metres: a floor of that half size is meant to have no end,
_ENDLESS = 400.0  # and has this one


def with_light(model: Any) -> Any:
    """A copy of a `mujoco.MjModel` in which a robot stands out from its floor.

    Large floors have no end in it. Where a model has a sky, and a floor whose texture is not of
    black and white, somebody has designed it, and colours stay as they are. Else the floor is toned
    down, dark bodies are brightened in their own colours, and there is light from the camera too.
    """
    import mujoco

    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model = copy.copy(model)
    _widen(model, planes)
    floors = _textures(model, planes)
    stark = [t for t in floors if float(np.ptp(_pixels(model, t))) > _STARK]
    if mujoco.mjtTexture.mjTEXTURE_SKYBOX in model.tex_type and not stark:
        return model
    for texture in stark:
        _tone_down(_pixels(model, texture), int(model.tex_nchannel[texture]))
    _brighten(model, ~planes)
    for geom in np.flatnonzero(planes):
        rgba, own = model.geom_rgba[geom], int(model.geom_matid[geom])
        if own >= 0 and set(np.ravel(model.mat_texid[own])) & set(stark):
            rgba[:3] = _TILES
        elif rgba[:3].max() > _PAPER:
            rgba[:3] *= _PAPER / rgba[:3].max()
    model.vis.headlight.ambient[:] = 0.25
    model.vis.headlight.diffuse[:] = 0.45
    model.vis.headlight.specular[:] = 0.1
    model.light_diffuse[:] = np.minimum(model.light_diffuse, 0.7)
    # A floor that shades itself does so in stripes; the less of it has shadows, the fewer.
    radius = find_bounds(model, {"qpos": model.qpos0[None]}).radius
    clip = model.vis.map.shadowclip
    model.vis.map.shadowclip = min(clip, _SHADOWS * radius / model.stat.extent)
    floor_materials = sorted({int(m) for m in model.geom_matid[planes] if m >= 0})
    model.mat_reflectance[floor_materials] = 0.1
    model.mat_specular[floor_materials] = 0.1
    return model


def _widen(model: Any, planes: np.ndarray) -> None:
    """Moves the ends of large floors, bool [ngeom], out of sight; their tiles stay as they are.

    Of a plane of size 0 MuJoCo would make the tiles as large as it likes.
    """
    for geom in np.flatnonzero(planes):
        size, material = model.geom_size[geom], int(model.geom_matid[geom])
        if not _FAR <= size[:2].min() <= size[:2].max() < _ENDLESS:
            continue
        shared = (model.geom_matid == material).sum() > 1
        if material >= 0 and not model.mat_texuniform[material]:
            if shared:
                continue
            model.mat_texrepeat[material] *= _ENDLESS / size[:2]
        size[:2] = _ENDLESS


def _textures(model: Any, geoms: np.ndarray) -> set[int]:
    """Numbers of the textures of some geoms, bool [ngeom]."""
    materials = {int(m) for m in model.geom_matid[geoms] if m >= 0}
    found = {int(t) for m in materials for t in np.ravel(model.mat_texid[m])}
    return {t for t in found if t >= 0}


def _pixels(model: Any, texture: int) -> np.ndarray:
    """A texture's bytes; a view, so that they can be changed."""
    start = int(model.tex_adr[texture])
    size = model.tex_height[texture] * model.tex_width[texture] * model.tex_nchannel[texture]
    return model.tex_data[start : start + int(size)]


def _tone_down(pixels: np.ndarray, channels: int) -> None:
    low, high = _FLOOR
    new = (low + (high - low) * pixels / 255.0).reshape(-1, channels)
    new[:, :3] *= _TINT[: min(channels, 3)]
    pixels[:] = np.clip(new, 0, 255).reshape(-1).astype(np.uint8)


def _brighten(model: Any, geoms: np.ndarray) -> None:
    """Raises dark colours of some geoms, bool [ngeom]; hues stay."""
    for rgba in [model.geom_rgba[i] for i in np.flatnonzero(geoms)]:
        brightest = float(rgba[:3].max())
        if 0 < brightest <= _DARK:
            rgba[:3] *= _LIT / brightest
