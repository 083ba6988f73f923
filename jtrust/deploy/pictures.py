"""Pictures of a MuJoCo model by whatever OpenGL there is, drawn in a process of their own."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks
from jtrust.deploy.painter import READY

# A driver that compiles its shaders on a busy CPU takes some seconds for its first picture.
_TIME_LIMIT = 90.0
_OFF = ("disable", "disabled", "off", "false", "0")

# {"pose": {field of MjData: array}, "camera": {...}, "ground": height of a floor to add, or None}.
Request = Mapping[str, Any]


class NothingDraws(Exception):
    """No OpenGL is here that draws; the message says what was tried, and what came of it."""


class Painter:
    """Draws one model.

    Attributes:
      backend: by what, as MUJOCO_GL names it; "the system's" where it has no name.
    """

    def __init__(self, model: Any, width: int, height: int, backend: str = ""):
        """Starts the process, and waits for its first picture.

        Args:
          model: the `mujoco.MjModel`.
          width, height: pixels.
          backend: what MUJOCO_GL is to be; "" leaves it unset.

        Raises:
          NothingDraws: it does not draw, or not in time.
        """
        self.backend = backend or "the system's"
        self._size = (height, width, 3)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
        if backend:
            environment["MUJOCO_GL"] = backend
        # -P: modules of this folder are not to be found in the place of Python's own.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("painter.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment,
        )
        self._late = False
        try:
            model = _with_room(model, width, height)
            self._send({"model": model, "width": width, "height": height})
            self._receive(len(READY))
        except BaseException:
            self.close()
            raise

    def draw(self, requests: Iterable[Request]) -> Iterator[np.ndarray]:
        """Pictures, uint8 [H, W, 3], one after another.

        The next one is drawn while the caller makes use of the last.

        Raises:
          NothingDraws: the process has ended.
        """
        count = int(np.prod(self._size))
        waiting = False
        for request in requests:
            pixels = self._receive(count) if waiting else None
            self._send(request)
            waiting = True
            if pixels is not None:
                yield np.frombuffer(pixels, np.uint8).reshape(self._size)
        if waiting:
            yield np.frombuffer(self._receive(count), np.uint8).reshape(self._size)

    def close(self) -> None:
        """Ends the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            # What was still to be sent may be to a process that is gone.
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send(self, message: Any) -> None:
        try:
            pickle.dump(message, self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except OSError as error:
            raise NothingDraws(self._why()) from error

    def _receive(self, count: int) -> bytes:
        def end() -> None:
            self._late = True
            self._process.kill()

        watch = threading.Timer(_TIME_LIMIT, end)
        watch.daemon = True
        watch.start()
        try:
            found = self._process.stdout.read(count)  # type: ignore[union-attr]
        finally:
            watch.cancel()
        if len(found) < count:
            raise NothingDraws(self._why())
        return found

    def _why(self) -> str:
        if self._late:
            return f"{self.backend}: drew nothing for {_TIME_LIMIT:.0f} seconds"
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read()[-20000:].decode("utf-8", "replace").strip().splitlines()
        # The last line of a traceback; what a destructor complains of afterwards says less.
        said = [x for x in lines if ": " in x and not x.startswith((" ", "Exception ignored"))]
        last = (said or lines or [f"ended with status {status}"])[-1]
        return f"{self.backend}: {checks.short(last, 160)}"


def import_without_opengl() -> None:
    """Imports mujoco without an OpenGL of its own, for a process that draws nothing itself.

    Else MUJOCO_GL, where it asks for what is not here, would keep environments from being made;
    the painter says what is wrong with it.
    """
    asked = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = _OFF[0]
    try:
        importlib.import_module("mujoco")
    finally:
        if asked is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = asked


def open_painter(model: Any, width: int, height: int) -> Painter:
    """A painter by the first OpenGL that draws.

    MUJOCO_GL, where it is set, is what is tried alone; else on Linux EGL, OSMesa and, where there
    is a display, GLFW, and elsewhere what MuJoCo takes by itself.

    Raises:
      NothingDraws: none does.
    """
    tried = []
    for backend in _candidates():
        try:
            return Painter(model, width, height, backend)
        except NothingDraws as error:
            tried.append(str(error))
    raise NothingDraws("; ".join(tried) or "MUJOCO_GL turns pictures off")


def _candidates() -> list[str]:
    given = os.environ.get("MUJOCO_GL", "").lower().strip()
    if given in _OFF:
        return []
    if given:
        return [given]
    if sys.platform != "linux":
        return [""]
    display = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return ["egl", "osmesa", *["glfw"] * display]


def _with_room(model: Any, width: int, height: int) -> Any:
    """The model with a framebuffer of at least that size."""
    there = model.vis.global_
    if there.offwidth >= width and there.offheight >= height:
        return model
    model = copy.copy(model)
    model.vis.global_.offwidth = max(there.offwidth, width)
    model.vis.global_.offheight = max(there.offheight, height)
    return model
