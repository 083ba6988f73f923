"""What a person sees of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from jtrust import checks
from jtrust.runs.config import RunConfig
from jtrust.runs.sinks import IterationInfo, Sink

Row = Mapping[str, Any]


class Progress(Protocol):
    """Told of each iteration, and of what else a person should know."""

    def update(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Shown(Sink):
    """Hands each row to what shows progress."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def on_iteration(self, info: IterationInfo) -> None:
        self._progress.update(info.row)


class Silent:
    """Shows nothing."""

    def update(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def make_progress(config: RunConfig, max_kl: float) -> Progress:
    """A live display where standard error is a terminal, lines where it is not."""
    if sys.stderr.isatty():
        return LiveProgress(config, max_kl)
    return PlainProgress(config, max_kl)


def _number(value: Any, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def describe_row(row: Row, config: RunConfig, max_kl: float, first: bool) -> dict[str, str]:
    """The figures that a person watches, as text; the `first` one's time went into compiling."""
    rate = row["time/steps_per_second"]
    left = (config.total_iterations * config.steps_per_iteration - row["step"]) / rate
    kl = f"{row['policy/kl']:.4f} of {max_kl:g}" if row["policy/accepted"] else "step refused"
    return {
        "steps": f"{row['step']:,}",
        "steps/s": _number(rate, 0),
        "return": _number(row["episode/return"]),
        "length": _number(row["episode/length"], 0),
        **{
            name.partition("/")[2]: _number(value) + (
                f" of {row[f'{name}/limit']:g}" if f"{name}/limit" in row else ""
            ) for name, value in row.items() if name.startswith("cost/") and name.count("/") == 1
        },
        "KL": kl,
        "entropy": f"{row['policy/entropy']:.2f}",
        "time left": "-" if first else duration(left),
    }


class PlainProgress:
    """A line on standard error every few seconds: the first and the last iteration, and between."""

    def __init__(self, config: RunConfig, max_kl: float, every: float = 5.0):
        self._config, self._max_kl, self._every = config, max_kl, every
        self._last: float | None = None
        self._hidden: Row | None = None

    def update(self, row: Row) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last >= self._every:
            self._print(row)
            self._last = now
        else:
            self._hidden = row

    def _print(self, row: Row) -> None:
        self._hidden = None
        figures = describe_row(row, self._config, self._max_kl, first=self._last is None)
        print("  ".join(f"{k} {v}" for k, v in figures.items()), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._hidden is not None:
            self._print(self._hidden)


class LiveProgress:
    """A bar and the latest figures, redrawn in place."""

    def __init__(self, config: RunConfig, max_kl: float):
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._config, self._max_kl = config, max_kl
        self._row: Row | None = None
        self._updates = 0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(None), TaskProgressColumn(),
            expand=True,
        )
        self._task = self._bar.add_task(
            checks.printable(f"{config.algorithm} on {config.env}"), total=config.total_iterations
        )
        self._live = Live(
            self._render(), console=Console(stderr=True), refresh_per_second=4,
            get_renderable=self._render,
        )
        self._live.start()

    def _render(self):
        from rich.console import Group
        from rich.table import Table

        if self._row is None:
            return Group(self._bar, "[dim]compiling ...")
        table = Table(box=None, expand=True, pad_edge=False)
        figures = describe_row(self._row, self._config, self._max_kl, first=self._updates == 1)
        for name in figures:
            table.add_column(name, style="cyan", header_style="dim", no_wrap=True)
        table.add_row(*figures.values())
        return Group(self._bar, table)

    def update(self, row: Row) -> None:
        self._row = row
        self._updates += 1
        self._bar.update(self._task, completed=row["iteration"])

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.refresh()
        self._live.stop()
