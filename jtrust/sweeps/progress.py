"""What a person sees of a sweep: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from jtrust import checks
from jtrust.runs.progress import duration

_EVERY = 5.0


class SweepProgress(Protocol):
    """Told of each iteration of each member, and of what else a person should know."""

    def update(self, name: str, row: Mapping[str, Any], total: int) -> None: ...

    def left(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class SilentSweep:
    """Shows nothing."""

    def update(self, name: str, row: Mapping[str, Any], total: int) -> None: ...

    def left(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class _Figures:
    """The newest row of each member, summed up."""

    def __init__(self, members: int):
        self.members, self.ended = members, 0
        self._newest: dict[str, Mapping[str, Any]] = {}
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def update(self, name: str, row: Mapping[str, Any], total: int) -> None:
        self._newest[name] = row
        self._done[name], self._totals[name] = row["iteration"], total

    def left(self, name: str) -> None:
        self.ended += 1
        self._newest.pop(name, None)
        self._done[name or f"earlier {self.ended}"] = max(self._totals.values(), default=0)

    @property
    def share(self) -> float:
        """How much is done of all members."""
        total = max(self._totals.values(), default=1)
        return (sum(self._done.values()) / total) / max(self.members, 1)

    def shown(self) -> dict[str, str]:
        rows = list(self._newest.values())
        rate = sum(row["time/steps_per_second"] for row in rows)
        returns = [r for row in rows if (r := row["episode/return"]) is not None]
        left = "-"
        if rows and rate:
            steps_each = rows[0]["step"] / max(rows[0]["iteration"], 1)
            most = max(self._totals.values())
            steps = steps_each * most * self.members * max(1 - self.share, 0)
            left = duration(steps / rate)
        shown = "-"
        if returns:
            shown = f"{min(returns):,.1f} {statistics.median(returns):,.1f} {max(returns):,.1f}"
        return {
            "members": f"{len(rows)} of {self.members - self.ended} left",
            "done": f"{100 * self.share:.0f} %",
            "steps/s": f"{rate:,.0f}",
            "return (least, median, most)": shown,
            "time left": left,
        }


class PlainSweep:
    """A line on standard error every few seconds."""

    def __init__(self, title: str, members: int):
        self._figures = _Figures(members)
        self._last = time.monotonic()

    def update(self, name: str, row: Mapping[str, Any], total: int) -> None:
        self._figures.update(name, row, total)
        if time.monotonic() - self._last >= _EVERY:
            self._print()

    def left(self, name: str) -> None:
        self._figures.left(name)

    def note(self, text: str) -> None:
        print(checks.printable(text), file=sys.stderr, flush=True)

    def close(self) -> None: ...

    def _print(self) -> None:
        self._last = time.monotonic()
        shown = self._figures.shown()
        print("  ".join(f"{k} {v}" for k, v in shown.items()), file=sys.stderr, flush=True)


class LiveSweep:
    """A bar and the latest figures, redrawn in place."""

    def __init__(self, title: str, members: int):
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._figures = _Figures(members)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(None), TaskProgressColumn(),
            expand=True,
        )
        self._task = self._bar.add_task(checks.printable(title), total=1.0)
        self._begun = False
        self._live = Live(
            self._render(), console=Console(stderr=True), refresh_per_second=4,
            get_renderable=self._render,
        )
        self._live.start()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        if not self._begun:
            return Group(self._bar, "[dim]compiling ...")
        table = Table(box=None, expand=True, pad_edge=False)
        figures = self._figures.shown()
        for name in figures:
            table.add_column(name, style="cyan", header_style="dim", no_wrap=True)
        table.add_row(*figures.values())
        return Group(self._bar, table)

    def update(self, name: str, row: Mapping[str, Any], total: int) -> None:
        self._begun = True
        self._figures.update(name, row, total)
        self._bar.update(self._task, completed=self._figures.share)

    def left(self, name: str) -> None:
        self._figures.left(name)

    def note(self, text: str) -> None:
        shown = checks.printable(text)
        self._live.console.print(shown, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.refresh()
        self._live.stop()


def make_sweep_progress(title: str, members: int) -> SweepProgress:
    """A live display where standard error is a terminal, lines where it is not."""
    return (LiveSweep if sys.stderr.isatty() else PlainSweep)(title, members)
