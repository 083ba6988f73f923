"""Where there is no model to draw: curves of what a policy saw, did, and was paid."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks
from jtrust.deploy.clips import Clip
from jtrust.deploy.files import NEEDS, whole_file, write_text

SUFFIXES = (".png", ".html")
_MOST_LINES = 32  # of a large observation the first ones
_MOST_NAMES = 8


def check_library() -> None:
    """Raises `BadArgument` where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise checks.BadArgument("output", ".png", f"a plot {NEEDS} ({error})") from error


def write_plot(path: Path, clips: Sequence[Clip], heading: str) -> None:
    """Observations, actions and rewards over the steps of episodes, one column each.

    Args:
      path: of a .png, or of an .html with the drawing in it.
      clips: with observations [K, O] and actions [K, A] or [K].
      heading: what stands above.
    """
    # Not by pyplot: the user's own figures and settings are his.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(clips) + 1, 7.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(heading)
    axes = figure.subplots(3, len(clips), squeeze=False, sharex="col", sharey="row")
    for column, clip in zip(axes.T, clips, strict=True):
        column[0].set_title(clip.title)
        _lines(column[0], clip.observations, "o", discrete=False)
        actions = clip.actions
        _lines(column[1], actions, "a", actions is not None and actions.dtype.kind in "iu")
        _lines(column[2], clip.rewards[1:], "reward", discrete=False)
        column[2].set_xlabel("step")
    for axis, name in zip(axes[:, 0], ("observation", "action", "reward"), strict=True):
        axis.set_ylabel(name)
    if path.suffix.lower() == ".png":
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")
        return
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    write_text(path, (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(heading)}</title>"
        "<style>body{margin:16px;background:#fff}svg{max-width:100%;height:auto}</style></head>"
        f"<body>{svg[svg.index('<svg'):]}</body></html>\n"
    ))


def _lines(axis: Any, values: np.ndarray | None, name: str, discrete: bool) -> None:
    """One line for each column of `values`, [K, ...]."""
    if values is None:
        return
    columns = values.reshape(len(values), -1)
    for i in range(min(columns.shape[1], _MOST_LINES)):
        axis.plot(
            columns[:, i], linewidth=1.0, label=f"{name}{i}",
            drawstyle="steps-post" if discrete else "default",
        )
    axis.grid(alpha=0.3)
    if 1 < columns.shape[1] <= _MOST_NAMES:
        axis.legend(loc="upper right", fontsize="x-small", ncols=2)
