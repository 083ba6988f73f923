"""What the user may say about a rendering, checked before anything is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from jtrust import checks

SUFFIXES = (".mp4", ".gif", ".html", ".png")
MOST_EPISODES = 1024
_MOST_PIXELS = 4096
# By suffix: pixels, frames a second, and seconds of each episode.
_USUAL: dict[str, tuple[int, int, float, float]] = {
    ".mp4": (640, 480, 30, 60), ".gif": (320, 240, 20, 5), ".html": (0, 0, 50, 60),
    ".png": (320, 240, 30, 60),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an episode becomes a picture.

    Attributes:
      suffix: of the file, one of `SUFFIXES`.
      width, height: pixels of a picture; 0 for a page.
      fps: frames a second; of an episode with fewer steps a second, as many as it has.
      seconds: of each episode, from its beginning.
      camera: name of one of the model's, or "free"; None chooses.
    """

    suffix: str
    width: int
    height: int
    fps: float
    seconds: float
    camera: str | None = None

    def rate(self, dt: float) -> Fraction:
        """Frames a second of episodes whose steps take `dt` seconds."""
        return Fraction(min(self.fps, 1.0 / dt)).limit_denominator(1000)


def settings_for(
    suffix: str, *, width: Any = None, height: Any = None, fps: Any = None, seconds: Any = None,
    camera: Any = None,
) -> Settings:
    """Settings of a file with that suffix; what is None is as is usual for it.

    Raises:
      BadArgument: a number that will not do.
    """
    usual_width, usual_height, usual_fps, usual_seconds = _USUAL[suffix]
    for name, value in (("width", width), ("height", height)):
        if value is None:
            continue
        if suffix == ".html":
            raise checks.BadArgument(name, value, "a page is as large as its window; leave it out")
        checks.whole_number(name, value, minimum=64, maximum=_MOST_PIXELS, example=usual_width)
        if suffix == ".mp4" and value % 2:
            raise checks.BadArgument(
                name, value, f"must be even, as H.264 asks, such as {value + 1}"
            )
    for name, value, low, high in (("fps", fps, 1, 120), ("seconds", seconds, 0.1, 600)):
        if value is not None and not (checks.is_number(value) and low <= value <= high):
            raise checks.BadArgument(name, value, f"must be a number from {low:g} to {high:g}")
    if camera is not None and not isinstance(camera, str):
        raise checks.BadArgument("camera", camera, "must be the name of a camera, or free")
    if camera is not None and suffix == ".html":
        raise checks.BadArgument("camera", camera, "a page is seen from anywhere; leave it out")
    return Settings(
        suffix, width or usual_width, height or usual_height,
        float(usual_fps if fps is None else fps),
        float(usual_seconds if seconds is None else seconds), camera,
    )


def suffix_of(path: Path, choices: Sequence[str] = SUFFIXES) -> str:
    """The suffix of a file to write.

    Raises:
      BadArgument: it is none of `choices`.
    """
    suffix = path.suffix.lower()
    if suffix not in choices:
        raise checks.BadArgument(
            "output", str(path), f"must end in {', '.join(choices[:-1])} or {choices[-1]}"
            if len(choices) > 1 else f"must end in {choices[0]}"
        )
    return suffix
