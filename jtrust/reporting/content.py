"""All that a page says of some runs, as one object that JSON can hold."""

from __future__ import annotations

from typing import Any

from jtrust.reporting import fragments, media
from jtrust.reporting.curves import curves
from jtrust.reporting.panels import panels_for
from jtrust.reporting.rules import findings
from jtrust.reporting.settings import settings_of
from jtrust.reporting.sources import Sources
from jtrust.reporting.specs import line_chart, phase_chart


def make_content(sources: Sources) -> dict[str, Any]:
    """What the page shows.

    Returns:
      {"title", "fragments": {place: HTML}, "settings": [labels],
       "axes": [[x, ...], ...], "charts": [{"id", "spec", "curves": [...]}]}: a curve's "x" is an
      index into "axes", since most charts have the same; the rest is as `curves` gives it.
    """
    runs = sources.runs
    settings = settings_of(runs)
    labels = [setting.label for setting in settings]
    names = dict.fromkeys(name for run in runs for name in run.tail.names)
    axes: dict[tuple, int] = {}
    shown, charts = [], []
    for panel in panels_for(names):
        found = curves(panel, settings)
        if not found:
            continue
        for curve in found:
            curve["x"] = axes.setdefault(tuple(curve["x"]), len(axes))
        shown.append(panel)
        spec = line_chart(panel, labels, found)
        charts.append({"id": panel.id, "spec": spec, "curves": found})
    profiles = []
    for i, setting in enumerate(settings):
        profile = next(filter(None, map(media.profile_of, setting.runs)), None)
        if profile is not None:
            place = f"profile-{i}"
            profiles.append((place, f"{setting.label}, {profile['device']}"))
            rows = [{"x": ms, "y": name, "share": share} for name, ms, share in profile["phases"]]
            charts.append({"id": place, "spec": phase_chart(len(rows)), "rows": rows})
    found_wrong = findings(runs)
    return {
        "title": _title(runs),
        "fragments": {
            "notes": fragments.notes(sources.problems, runs),
            "findings": fragments.findings_list(found_wrong, sum(r.tail.rows > 0 for r in runs)),
            "legend": fragments.legend(settings),
            "settings": fragments.settings_table(settings) if len(settings) > 1 else "",
            "runs": fragments.runs_table(settings),
            "charts": fragments.charts(shown),
            "profiles": fragments.profile_places(profiles),
            "renders": fragments.renders(runs),
            "configuration": fragments.configuration(settings),
            "rules": fragments.rules_table(),
        },
        "settings": labels,
        "axes": [list(axis) for axis in axes],
        "charts": charts,
    }


def _title(runs: list) -> str:
    names = list(dict.fromkeys(f"{run.env} · {run.algorithm}" for run in runs if run.config))
    what = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{what} · {count}" if what else count
