"""`jtrust ...`: one module for each command, imported when it is called."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from jtrust import checks, console
from jtrust.hosts import aborts
from jtrust.hosts.connecting import current
from jtrust.hosts.group import ToldElsewhere

COMMANDS = (
    "train", "sweep", "resume", "evaluate", "compare", "report", "watch", "render", "export",
    "profile", "plan", "envs",
)

USAGE = """\
usage: jtrust COMMAND ...

Trust-region reinforcement learning, compiled end to end with JAX.

  jtrust train ENV        train a policy; ENV is SUITE/NAME, such as brax/ant
  jtrust sweep ENV        train seeds and settings as one program, or search settings
  jtrust resume RUN_DIR   go on with a run, or a sweep, from its newest checkpoints
  jtrust evaluate RUN_DIR whole episodes of what a run has learned
  jtrust compare DIR...   runs and sweeps by setting, with intervals over seeds
  jtrust report RUN_DIR... one page about runs: curves, differences, and what looks wrong
  jtrust watch RUN_DIR    the same page, kept up to date while a run goes on
  jtrust render RUN_DIR   a video or a page of what a run has learned
  jtrust profile ENV      where the time of training goes, with a JAX profiler trace
  jtrust plan ENV         memory and program of a run on a GPU or TPU that is not here
  jtrust export RUN_DIR   a policy as one file for other programs, checked to act the same
  jtrust envs             what ENV may be

`jtrust COMMAND --help` tells the options of each; `jtrust --version` the version.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command: its exit status. 0 success, 2 bad input, 128 + n after signal n."""
    args = list(sys.argv[1:] if args is None else args)
    warnings.showwarning = _show_warning
    _keep_libraries_quiet()
    try:
        with console.forgiving():
            return _answer(args)
    except OSError as error:  # what was said could not all be written
        return _fail(str(error), 1)


def _answer(args: list[str]) -> int:
    """The status of a command, its failures told; of several processes, once they are parted."""
    status, in_order = 1, False
    try:
        status, in_order = _status(args)
    finally:
        if (connection := current()) is not None:
            connection.leave(status, in_order)
    return status


def _status(args: list[str]) -> tuple[int, bool]:
    """The status of a command, and whether it came to its end; its failures told."""
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(USAGE, end="", file=sys.stdout if args else sys.stderr)
            return (0, True) if args else (2, False)
        if args[0] == "--version":
            from jtrust.version import __version__

            print(f"jtrust {__version__}")
            return 0, True
        checks.one_of("COMMAND", args[0], COMMANDS)
        from jtrust.runs.platforms import without_absent_accelerators

        without_absent_accelerators()
        return importlib.import_module(f"jtrust.cli.{args[0]}").run(args[1:]), True
    except checks.BadArgument as error:
        return _fail(error.as_option(), 2), False
    except (OSError, checks.TrainingFailed) as error:
        return _fail(_of_others(error) or str(error), 1), False
    except KeyboardInterrupt:
        return 130, False
    except ToldElsewhere as error:
        return error.status, False
    except Exception as error:
        if (said := _of_others(error)) is not None:
            return _fail(said, 1), False
        if current() is None:
            raise
        traceback.print_exc()  # this process is about to leave by itself
        return 1, False


def _of_others(error: Exception) -> str | None:
    """One line where an error is what remains of another process of the run."""
    connection = current()
    said = None if connection is None else aborts.of_another(error)
    if connection is None or said is None:
        return None
    os.write(2, traceback.format_exc().encode())  # where libraries write by now
    return f"{aborts.gone(connection.place)} ({said})"


def _fail(text: str, status: int) -> int:
    print(f"jtrust: {checks.printable(text)}", file=sys.stderr)
    if (connection := current()) is not None:
        connection.place.told = status
    return status


def _keep_libraries_quiet() -> None:
    """Failures are told here, in one line; Orbax's threads also log them as tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.CRITICAL)
    show = sys.unraisablehook

    def hook(found: Any) -> None:
        # From a write that was still under way when its save had already failed.
        if "Event loop is closed" not in str(found.exc_value):
            show(found)

    sys.unraisablehook = hook


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"jtrust: warning: {checks.printable(str(message))}", file=sys.stderr)
