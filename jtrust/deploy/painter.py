"""Draws a MuJoCo model, in a process of its own; `pictures.py` starts it, and speaks to it.

A bad OpenGL driver ends the process that it draws in, and MuJoCo decides which one it uses when it
is imported: neither may happen to a process that trains. This file imports nothing of jtrust, for
JAX would take seconds.

Reads pickles on standard input: first what to draw, {"model", "width", "height"}, then a picture's
{"pose", "camera", "ground"} each. Answers the first with `READY` and each other with its pixels,
[H, W, 3] bytes.
"""

import os
import pickle
import sys

READY = b"ready!"
_GROUND = (0.42, 0.47, 0.53, 1.0)
# Behind everything, where a model has no sky: from the bottom of the picture to its top.
_BACKDROP = ((0.56, 0.61, 0.67), (0.22, 0.27, 0.35))


def main() -> None:
    """Draws until standard input ends."""
    # Drivers print to standard output what they like.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    painting = Painting(**pickle.load(requests))
    # A driver without what MuJoCo asks for may draw nothing, and say nothing.
    if not painting.picture({}, None, None).any():
        sys.exit("error: everything that it draws is black")
    answers.write(READY)
    answers.flush()
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            break
        answers.write(painting.picture(**request).tobytes())
        answers.flush()


class Painting:
    """One model and what it takes to draw it."""

    def __init__(self, model, width, height):
        import mujoco
        import numpy

        self._mujoco, self._numpy = mujoco, numpy
        self._model, self._data = model, mujoco.MjData(model)
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=20000)
        self._option = mujoco.MjvOption()
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._pixels = numpy.empty((height, width, 3), numpy.uint8)
        self._depth = numpy.empty((height, width), numpy.float32)
        self._sun = model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        self._sky = mujoco.mjtTexture.mjTEXTURE_SKYBOX in model.tex_type
        low, high = numpy.array(_BACKDROP) * 255
        share = numpy.linspace(0, 1, height)[:, None]
        self._backdrop = (low + share * (high - low)).astype(numpy.uint8)

    def picture(self, pose, camera, ground):
        """Pixels, uint8 [H, W, 3].

        Args:
          pose: {field of `MjData`: array}.
          camera: as for `_camera`.
          ground: height of a floor to add; None adds none.
        """
        mujoco = self._mujoco
        for field, value in pose.items():
            getattr(self._data, field)[:] = value
        for stage in (
            mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_flex,
            mujoco.mj_tendon,
        ):
            stage(self._model, self._data)
        # What a light shines on is drawn with shadows about its own place alone, and one that comes
        # from afar is nowhere: so its place goes along.
        self._data.light_xpos[self._sun] = self._data.subtree_com[0] - (
            self._model.stat.extent * self._data.light_xdir[self._sun]
        )
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera(camera),
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )
        if ground is not None:
            self._add_ground(ground)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, self._depth, self._rectangle, self._context)
        if not self._sky:
            behind = self._depth >= 1.0
            rows = behind.nonzero()[0]
            self._pixels[behind] = self._backdrop[rows]
        return self._numpy.flipud(self._pixels)

    def _add_ground(self, height):
        """Puts a plane without an end into the scene."""
        mujoco, scene = self._mujoco, self._scene
        if scene.ngeom >= scene.maxgeom:
            return
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom, mujoco.mjtGeom.mjGEOM_PLANE, self._numpy.array([400.0, 400.0, 1.0]),
            self._numpy.array([0.0, 0.0, height]), self._numpy.eye(3).flatten(),
            self._numpy.array(_GROUND, self._numpy.float32),
        )
        geom.reflectance, geom.specular = 0.1, 0.1
        scene.ngeom += 1

    def _camera(self, camera):
        """An `MjvCamera`: one of the model's, {"id"} and perhaps {"fovy"}, a free one by its
        fields, or any (None)."""
        mujoco = self._mujoco
        made = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self._model, made)
        if camera is None:
            return made
        if "id" in camera:
            made.type, made.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera["id"]
            if "fovy" in camera:
                self._model.cam_fovy[camera["id"]] = camera["fovy"]
            return made
        made.lookat[:] = camera["lookat"]
        for field in ("distance", "azimuth", "elevation"):
            setattr(made, field, camera[field])
        return made


if __name__ == "__main__":
    main()
