"""The words of the page: tables and sentences as HTML, all of it escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from jtrust.reporting import media
from jtrust.reporting.curves import plain_number
from jtrust.reporting.panels import Panel, kl_limit, refused
from jtrust.reporting.rules import RULES, Finding
from jtrust.reporting.settings import Setting, differing_fields, flat, short_name
from jtrust.reporting.sources import Run, as_text
from jtrust.reporting.specs import colours
from jtrust.reporting.statistics import over_seeds

_SHOWN_RUNS = 6
_LAST_SHARE = 0.1


def final_return(run: Run) -> float:
    """Mean return of the last tenth of a run: of evaluation where there is any."""
    for name in ("evaluation/return", "episode/return"):
        told = run.column(name)
        told = told[np.isfinite(told)]
        if len(told):
            return float(told[-max(1, round(_LAST_SHARE * len(told))):].mean())
    return float("nan")


def number(value: Any, digits: int = 4) -> str:
    """A number for a table; a dash where there is none."""
    found = plain_number(float(value), digits)
    if found is None:
        return "–"
    if isinstance(found, int) or abs(found) >= 1000:
        return f"{found:,.0f}" if abs(found) < 1e15 else f"{found:.3g}"
    return f"{found:.{digits}g}"


def notes(problems: Sequence[str], runs: Sequence[Run]) -> str:
    """What a reader should know before the figures."""
    said = list(problems)
    environments = list(dict.fromkeys(run.env for run in runs if run.config))
    if len(environments) > 1:
        said.append(
            f"These runs are of different environments ({', '.join(environments)}); their returns "
            "do not compare."
        )
    for run in runs:
        said += [f"{run.name}: {text}." for text in run.problems]
        if not run.tail.rows and not run.problems:
            said.append(f"{run.name}: no iteration yet.")
    if not said:
        return ""
    shown, more = said[:20], len(said) - 20
    items = "".join(f"<li>{escape(text)}</li>" for text in shown)
    items += f"<li>{more} more of this kind.</li>" if more > 0 else ""
    return f'<ul class="notes">{items}</ul>'


def legend(settings: Sequence[Setting]) -> str:
    """A button for each setting; one that is pressed stands out in all charts."""
    return "".join(
        f'<button type="button" class="chip" data-setting="{escape(setting.label)}" '
        f'aria-pressed="false"><i style="background:{colour}"></i>{escape(setting.label)}'
        f"{_seeds(setting)}</button>"
        for setting, colour in zip(settings, colours(len(settings)), strict=True)
    )


def _seeds(setting: Setting) -> str:
    count = len(setting.runs)
    return f" <small>{count} seeds</small>" if count > 1 else ""


def findings_list(found: Sequence[Finding], runs: int) -> str:
    """What looks wrong, rule by rule, in so many runs that have begun."""
    if not runs:
        return "<p>Nothing to judge yet.</p>"
    if not found:
        said = f"None of the {len(RULES)} rules at the end of this page has anything to say."
        return f'<p class="good">{said}</p>'
    parts = []
    for rule in RULES:
        of_rule = [f for f in found if f.rule is rule]
        if not of_rule:
            continue
        count = f" <small>{len(of_rule)} of {runs} runs</small>" if runs > 1 else ""
        lines = "".join(
            f"<li>{f'<b>{escape(f.run.name)}</b>: ' if runs > 1 else ''}{escape(f.sentence)}.</li>"
            for f in of_rule[:_SHOWN_RUNS]
        )
        more = len(of_rule) - _SHOWN_RUNS
        lines += f"<li>and {more} more runs.</li>" if more > 0 else ""
        parts.append(
            f'<article class="finding"><h3>{escape(rule.name)}{count}</h3><ul>{lines}</ul>'
            f"<p>Try: {_code(rule.advice)}.</p></article>"
        )
    return "".join(parts)


def rules_table() -> str:
    """All rules, with their thresholds."""
    rows = "".join(
        f"<tr><td>{escape(r.name)}</td><td>{_code(r.threshold)}</td><td>{_code(r.advice)}</td></tr>"
        for r in RULES
    )
    return _table(["rule", "speaks when", "what to try"], rows, "words")


def _code(text: str) -> str:
    """Text with what stands between backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def settings_table(settings: Sequence[Setting]) -> str:
    """How settings differ, and what each came to."""
    differing = differing_fields(settings)
    heads = ["setting", *(short_name(name) for name in differing), "runs", "final return",
             "95 % interval"]
    rows = ""
    for setting, colour in zip(settings, colours(len(settings)), strict=True):
        final = np.array([final_return(run) for run in setting.runs])
        center, low, high = over_seeds(final[:, None])
        told = "–" if np.isnan(low[0]) else f"{number(low[0])} to {number(high[0])}"
        cells = [_swatch(colour, setting.label)]
        cells += [escape(as_text(setting.fields[n])) if n in setting.fields else "–"
                  for n in differing]
        cells += [str(len(setting.runs)), number(center[0]), told]
        rows += _row(cells)
    return _table(heads, rows)


def runs_table(settings: Sequence[Setting]) -> str:
    """One row for each run."""
    heads = ["run", "seed", "steps", "of", "iterations", "final return", "best", "refused",
             "largest KL / limit", "steps/s"]
    rows = ""
    for setting, colour in zip(settings, colours(len(settings)), strict=True):
        for run in setting.runs:
            rows += _row([_swatch(colour, run.name), *_figures(run)])
    return _table(heads, rows)


def _figures(run: Run) -> list[str]:
    if not run.tail.rows:
        return ["–"] * 9
    returns, speed = run.column("episode/return"), run.column("time/steps_per_second")
    limit = kl_limit(run)
    share = run.column("policy/kl")[limit > 0] / limit[limit > 0]
    refusals = refused(run)
    refusals = refusals[np.isfinite(refusals)]
    total = run.config.get("total_steps")
    return [
        escape(as_text(run.seed)) if run.seed is not None else "–",
        number(run.column("step")[-1], 15),
        number(total, 15) if type(total) is int and total < 10**15 else "–",
        f"{run.tail.rows:,}", number(final_return(run)),
        number(np.nanmax(returns)) if np.isfinite(returns).any() else "–",
        f"{refusals.mean():.1%}" if len(refusals) else "–",
        number(np.nanmax(share), 3) if np.isfinite(share).any() else "–",
        number(np.nanmedian(speed), 3) if np.isfinite(speed).any() else "–",
    ]


def configuration(settings: Sequence[Setting]) -> str:
    """What all runs have in common."""
    runs = [run for setting in settings for run in setting.runs if run.config]
    if not runs:
        return "<p>No configuration is known.</p>"
    every = [flat(run.config) for run in runs]
    common = {
        name: value for name, value in every[0].items()
        if all(name in other and other[name] == value for other in every)
    }
    rows = "".join(_row([escape(name), escape(as_text(value))]) for name, value in common.items())
    what = "All of it" if len(runs) == 1 else f"The same in all {len(runs)} runs"
    return f"<p>{what}.</p>" + _table(["field", "value"], rows, "words")


def charts(panels: Sequence[Panel]) -> str:
    """Places for the charts, under their headings."""
    sections: dict[str, list[Panel]] = {}
    for panel in panels:
        sections.setdefault(panel.section, []).append(panel)
    return "".join(
        f'<section><h2>{escape(section)}</h2><div class="grid">'
        + "".join(_chart(p.id, p.title, p.note) for p in inside) + "</div></section>"
        for section, inside in sections.items()
    )


def _chart(place: str, title: str, note: str) -> str:
    told = f"<p>{escape(note)}</p>" if note else "<p>&nbsp;</p>"
    return (f'<figure><figcaption><h3>{escape(title)}</h3>{told}</figcaption>'
            f'<div class="chart" id="chart-{place}" role="img" aria-label="{escape(title)}">'
            "</div></figure>")


def profile_places(profiles: Sequence[tuple[str, str]]) -> str:
    """Places for the charts of profiles: (id, title) each."""
    if not profiles:
        return ""
    inside = "".join(_chart(place, title, "") for place, title in profiles)
    return f'<section><h2>Where the time goes</h2><div class="grid">{inside}</div></section>'


def renders(runs: Sequence[Run]) -> str:
    """The last render of each run, in the page or as a link."""
    left, parts = media.MOST_RENDER_BYTES, []
    for run in runs:
        path = media.newest_render(run)
        if path is None:
            continue
        data = media.embedded(path, left)
        caption = escape(f"{run.name}: {path.name}")
        if data is None:
            shown = f'<p><a href="{escape(media.link(path))}">{caption}</a></p>'
        else:
            left -= len(data) * 3 // 4
            tag = (f'<video controls loop muted playsinline src="{data}"></video>'
                   if data.startswith("data:video") else f'<img alt="{caption}" src="{data}">')
            shown = f"{tag}<figcaption><p>{caption}</p></figcaption>"
        parts.append(f"<figure>{shown}</figure>")
    if not parts:
        return ""
    return f'<section><h2>Last render</h2><div class="grid">{"".join(parts)}</div></section>'


def _swatch(colour: str, text: str) -> str:
    return f'<i style="background:{colour}"></i>{escape(text)}'


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(heads: Sequence[str], rows: str, kind: str = "") -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return (f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{top}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>")
