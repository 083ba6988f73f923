"""Words on pictures."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

_INK = (255, 255, 255, 255)
_SOFT = (208, 216, 226, 255)
_BAND = (12, 16, 24, 150)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def with_words(pixels: np.ndarray, top: tuple[str, str], bottom: tuple[str, str]) -> np.ndarray:
    """A picture, uint8 [H, W, 3], with a band of words above and one below.

    Args:
      pixels: the picture.
      top, bottom: what stands at the left of each band, and what at its right; a band without
        words is left out.
    """
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    size = max(9, round(min(height / 24, width / 32)))
    picture = Image.fromarray(pixels).convert("RGBA")
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    pad = round(size * 0.5)
    band = size + 2 * pad
    for words, y in ((top, 0), (bottom, height - band)):
        if not any(words):
            continue
        draw.rectangle((0, y, width, y + band - 1), fill=_BAND)
        left, right = words
        room = width - 4 * pad
        left = _cut(draw, left, _font(size), room)
        right = _cut(draw, right, _font(size), room - draw.textlength(left, font=_font(size)))
        middle = y + band / 2
        draw.text((pad, middle), left, font=_font(size), fill=_INK, anchor="lm")
        draw.text((width - pad, middle), right, font=_font(size), fill=_SOFT, anchor="rm")
    return np.asarray(Image.alpha_composite(picture, layer).convert("RGB"))


def _cut(draw: Any, text: str, font: Any, room: float) -> str:
    """As much of a text as there is room for."""
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(text + "...", font=font) > room:
        text = text[:-1]
    return text + "..." if text else ""


def number(value: float) -> str:
    """A number in as few digits as say something."""
    if not np.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 10_000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 0.1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.2g}"


def measured(values: Mapping[str, float]) -> str:
    """What was measured in a state, by name, in one line."""
    names = {"kl": "KL"}
    return "   ".join(f"{names.get(k, k)} {number(v)}" for k, v in values.items())
