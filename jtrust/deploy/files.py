"""Pictures written to files, whole or not at all: videos, animations, strips."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks

NEEDS = "needs `pip install 'jtrust[render]'`"
_ENCODERS = ("libx264", "libopenh264")
_GIF_COLOURS = 160
# An animation is held in memory whole, for its colours are chosen from all of it.
MOST_GIF_PIXELS = 300_000_000
_GAP = 4  # pixels between the pictures of a strip


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which takes the name `path` once all went well.

    Raises:
      BadArgument: it cannot be written.
    """
    if path.is_dir():
        raise checks.BadArgument("output", path, "is a directory; name a file in it")
    # The suffix stays, for writers that go by it.
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with open(temporary, "xb"):
            pass
        yield temporary
        os.replace(temporary, path)
    except checks.BadArgument:
        raise
    except OSError as error:  # FFmpeg's errors are such too
        raise checks.BadArgument(
            "output", path, f"cannot be written ({error.strerror or error})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises `BadArgument` where a file cannot be written; what is there stays as it is."""

    class Enough(Exception):
        pass

    with contextlib.suppress(Enough), whole_file(path):
        raise Enough


def check_libraries(suffix: str) -> None:
    """Raises `BadArgument` where what makes files with that suffix is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise checks.BadArgument("output", suffix, f"{NEEDS} ({error})") from error
    if suffix == ".mp4":
        encoder()


def encoder() -> str:
    """The H.264 encoder that PyAV has.

    Raises:
      BadArgument: there is no PyAV, or it has none.
    """
    try:
        import av
    except ImportError as error:
        raise checks.BadArgument("output", ".mp4", f"{NEEDS} ({error})") from error
    for name in _ENCODERS:
        with contextlib.suppress(ValueError):  # PyAV's UnknownCodecError
            av.Codec(name, "w")
            return name
    raise checks.BadArgument(
        "output", ".mp4", f"PyAV here has no encoder for H.264 ({' or '.join(_ENCODERS)}); "
        "install PyAV from PyPI, or write .gif"
    )


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: Fraction) -> int:
    """A video, H.264 in yuv420p, which browsers play; returns how many frames it has.

    Args:
      path: where.
      frames: uint8 [H, W, 3], H and W even.
      fps: frames a second.

    Raises:
      BadArgument: it cannot be encoded, or written.
    """
    name = encoder()
    import av

    count = 0
    options = {"crf": "19", "preset": "fast"} if name == "libx264" else {}
    with whole_file(path) as temporary, av.open(
        str(temporary), "w", format="mp4", options={"movflags": "+faststart"}
    ) as container:
        stream: Any = container.add_stream(name, rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            if not count:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def write_gif(path: Path, frames: Iterable[np.ndarray], fps: Fraction) -> int:
    """An animation that begins again and again; returns how many frames it has.

    Args:
      path: where.
      frames: uint8 [H, W, 3], at most `MOST_GIF_PIXELS` in all.
      fps: frames a second, of which a frame is shown for a whole number of hundredths.
    """
    from PIL import Image

    pictures = [Image.fromarray(pixels) for pixels in frames]
    palette = _palette(pictures)
    flat = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    with whole_file(path) as temporary:
        flat[0].save(
            temporary, format="GIF", save_all=True, append_images=flat[1:], loop=0,
            duration=max(round(100 / fps), 2) * 10, disposal=1,
        )
    return len(flat)


def _palette(pictures: Sequence[Any]) -> Any:
    """Colours that serve all pictures: one palette is smaller, and does not flicker."""
    from PIL import Image

    some = pictures[:: max(1, len(pictures) // 12)]
    width, height = some[0].size
    sheet = Image.new("RGB", (width, height * len(some)))
    for i, picture in enumerate(some):
        sheet.paste(picture, (0, i * height))
    return sheet.quantize(_GIF_COLOURS, method=Image.Quantize.MAXCOVERAGE)


def write_strip(path: Path, rows: Sequence[Sequence[np.ndarray]]) -> int:
    """Pictures side by side, a row for each episode; returns how many there are.

    Args:
      path: where.
      rows: uint8 [H, W, 3] each, all of a size.
    """
    from PIL import Image

    height, width = rows[0][0].shape[:2]
    columns = max(map(len, rows))
    sheet = Image.new(
        "RGB",
        (columns * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP), (255, 255, 255),
    )
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            sheet.paste(Image.fromarray(pixels), (j * (width + _GAP), i * (height + _GAP)))
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return sum(map(len, rows))


def write_text(path: Path, text: str) -> None:
    """A text, in UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
