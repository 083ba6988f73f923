"""Panels as Vega-Lite: what stands on the page beside their numbers."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any

from jtrust.reporting.panels import Panel

# Observable's ten, which are told apart on white and on black.
_COLOURS = (
    "#4269d0", "#e8890c", "#d9365e", "#2a9d8f", "#3ca951", "#c95fb8", "#8b5cf6", "#0ea5e9",
    "#9c6b4e", "#7f8794",
)
_GOLDEN = 0.618033988749895
_HEIGHT = 220
# 0.0085, 1.2k, 1e-7: short whatever the size.
_LABEL = (
    "datum.value == 0 ? '0' : abs(datum.value) >= 1000 ? format(datum.value, '.3~s') : "
    "abs(datum.value) < 0.001 ? format(datum.value, '.3~e') : format(datum.value, '.4~g')"
)


def colours(count: int) -> list[str]:
    """A colour for each setting."""
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    wheel = [colorsys.hls_to_rgb((i * _GOLDEN) % 1, (0.46, 0.56)[i % 2], 0.6) for i in range(count)]
    return ["#" + "".join(f"{round(255 * x):02x}" for x in rgb) for rgb in wheel]


def line_chart(
    panel: Panel, labels: Sequence[str], curves: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Lines with bands over steps or seconds, for rows {x, y, lo, hi, ref, s}.

    Args:
      panel: what is drawn.
      labels: of all settings on the page, so that each has one colour in every chart.
      curves: what will be drawn, as `curves.curves` gives it.
    """
    every = {
        "x": {"field": "x", "type": "quantitative", "scale": {"nice": False}, "axis": {
            "title": "environment steps" if panel.against == "steps" else "training time (s)",
            "format": "~s", "tickCount": 6, "grid": False, "labelFlush": True,
        }},
        "color": {"field": "s", "type": "nominal", "legend": None,
                  "scale": {"domain": list(labels), "range": colours(len(labels))}},
    }
    y = {"field": "y", "type": "quantitative", **_vertical(panel, curves)}
    layers: list[dict[str, Any]] = []
    if any(curve["lo"] for curve in curves):
        layers.append({
            # With an outline: of a single value far outside, a filled area shows next to nothing.
            "mark": {"type": "area", "strokeWidth": 0.8},
            "transform": [{"filter": "isValid(datum.lo)"}],
            "encoding": every | {"y": y | {"field": "lo"}, "y2": {"field": "hi"},
                                 "stroke": every["color"],
                                 "fillOpacity": _unless_another_is_picked(0.2),
                                 "strokeOpacity": _unless_another_is_picked(0.4)},
        })
    layers.append({
        "mark": {"type": "line", "strokeWidth": 1.6},
        "encoding": every | {"y": y, "opacity": _unless_another_is_picked(1)},
    })
    if any(curve["ref"] for curve in curves):
        layers.append({
            "mark": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.3},
            "transform": [{"filter": "isValid(datum.ref)"}],
            "encoding": every | {"y": y | {"field": "ref"},
                                 "opacity": _unless_another_is_picked(0.9)},
        })
    if panel.line is not None:
        layers.append({
            "data": {"values": [{"at": panel.line}]},
            "mark": {"type": "rule", "strokeDash": [5, 4], "opacity": 0.6},
            "encoding": {"y": y | {"field": "at"}},
        })
    layers.append(_pointer(panel, every | {"y": y}))
    return _chart(layer=layers, height=_HEIGHT)


def _vertical(panel: Panel, curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Axis and scale of what is measured."""
    axis: dict[str, Any] = {
        "title": panel.unit, "tickCount": 5, "labelOverlap": True, "labelExpr": _LABEL,
    }
    if not panel.log:
        return {"axis": axis, "scale": {"zero": False}}
    told = [x for curve in curves for key in ("y", "lo", "hi") for x in curve[key] or () if x]
    told += [panel.line] * (panel.line is not None)
    return {"axis": axis | {"values": log_ticks(min(told), max(told))},
            "scale": {"type": "log", "nice": False, "padding": 6}}


def log_ticks(low: float, high: float) -> list[float]:
    """Some four to eight round numbers from `low` to `high`, both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 3:
        every = math.ceil((last - first) / 7)
        return [float(f"1e{k}") for k in range(first - first % every, last + 1, every)]
    return [float(f"{m}e{k}") for k in range(first, last + 1) for m in (1, 2, 5)
            if low * 0.7 <= float(f"{m}e{k}") <= high * 1.4]


def _unless_another_is_picked(opacity: float) -> dict[str, Any]:
    picked_other = {"test": "pick != '' && datum.s != pick", "value": 0.08 * opacity}
    return {"condition": picked_other, "value": opacity}


def _chart(**more: Any) -> dict[str, Any]:
    return {
        "data": {"name": "rows"}, "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [{"name": "pick", "value": ""}], **more,
    }


def _pointer(panel: Panel, encoding: dict[str, Any]) -> dict[str, Any]:
    """A dot on the nearest point, with its numbers."""
    return {
        "params": [{"name": "near", "select": {
            "type": "point", "nearest": True, "on": "pointermove", "clear": "pointerout",
            "fields": ["x", "s"],
        }}],
        "mark": {"type": "point", "filled": True, "size": 50},
        "encoding": encoding | {
            "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
            "tooltip": [
                {"field": "s", "title": "setting"},
                {"field": "x", "title": panel.against, "format": ","},
                {"field": "y", "title": panel.unit, "format": ".5~g"},
                {"field": "lo", "title": "from", "format": ".4~g"},
                {"field": "hi", "title": "to", "format": ".4~g"},
            ],
        },
    }


def phase_chart(phases: int) -> dict[str, Any]:
    """Bars of a profile's phases, for as many rows {x: milliseconds, y: name, share}."""
    return _chart(
        height=24 * phases,
        mark={"type": "bar", "color": _COLOURS[0], "cornerRadiusEnd": 2},
        encoding={
            "y": {"field": "y", "type": "nominal", "sort": None,
                  "axis": {"title": None, "labelLimit": 190}},
            "x": {"field": "x", "type": "quantitative",
                  "axis": {"title": "time in an iteration (ms)", "tickCount": 5, "format": "~g"}},
            "tooltip": [{"field": "y", "title": "part"},
                        {"field": "x", "title": "ms", "format": ".4~g"},
                        {"field": "share", "title": "share", "format": ".1%"}],
        },
    )
