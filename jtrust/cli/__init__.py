"""`jtrust ...`: one module for each command, imported when it is called."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jtrust import checks, console

COMMANDS = ("train", "resume", "evaluate", "profile", "plan", "envs")

USAGE = """\
usage: jtrust COMMAND ...

Trust-region reinforcement learning, compiled end to end with JAX.

  jtrust train ENV        train a policy; ENV is SUITE/NAME, such as brax/ant
  jtrust resume RUN_DIR   go on with a run from its newest checkpoint
  jtrust evaluate RUN_DIR whole episodes of what a run has learned
  jtrust profile ENV      where the time of training goes, with a JAX profiler trace
  jtrust plan ENV         memory and program of a run on a GPU or TPU that is not here
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
    """The status of a command, its failures told."""
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(USAGE, end="", file=sys.stdout if args else sys.stderr)
            return 0 if args else 2
        if args[0] == "--version":
            from jtrust.version import __version__

            print(f"jtrust {__version__}")
            return 0
        checks.one_of("COMMAND", args[0], COMMANDS)
        from jtrust.runs.platforms import without_absent_accelerators

        without_absent_accelerators()
        return importlib.import_module(f"jtrust.cli.{args[0]}").run(args[1:])
    except checks.BadArgument as error:
        return _fail(error.as_option(), 2)
    except (OSError, checks.TrainingFailed) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130


def _fail(text: str, status: int) -> int:
    print(f"jtrust: {checks.printable(text)}", file=sys.stderr)
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
