"""Reading a command line, with one line for what is wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes

from jtrust import checks


def parse(kind: type, command: str, args: Sequence[str]) -> Any:
    """Parses by tyro; its boxed complaints become one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"jtrust {command}", args=list(args))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = complaint.getvalue()
    # Between the box's top border and its first rule stands what is wrong.
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    rule = next((i for i, line in enumerate(lines) if line.startswith(("─", "╰"))), len(lines))
    said = " ".join(lines[:rule])
    ours = re.fullmatch(r"Error parsing \S+: (\w+)=(.*?): (.*)", said)
    if ours:  # a hyperparameter that its own class refused
        name, value, remedy = ours.groups()
        raise checks.BadArgument(name, value.strip("'"), remedy)
    unread = re.fullmatch(r"Error parsing --(\S+): .*?(int|float)\b.*: '(.*)'", said)
    if unread:
        name, number, value = unread.groups()
        wanted = "a whole number" if number == "int" else "a number"
        raise checks.BadArgument(name, value, f"must be {wanted}")
    raise checks.BadArgument("OPTIONS", " ".join(args), f"{said}; see `jtrust {command} --help`")


def chosen_step(options: Any) -> int | str | None:
    """What `--step` and `--best` say, for `jtrust.load_policy`.

    Raises:
      BadArgument: both are given.
    """
    if options.best and options.step is not None:
        raise checks.BadArgument("best", True, f"--step {options.step} says another")
    return "best" if options.best else options.step


def parse_training(options: type, command: str, args: Sequence[str]) -> Any:
    """Parses (options, hyperparameters of the algorithm that they name, network)."""
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig

    name = _given(args, "algorithm") or "trpo"
    checks.one_of("algorithm", name, ALGORITHMS)
    fields = {"options": options, "hyperparameters": ALGORITHMS[name], "network": NetworkConfig}
    kind = dataclasses.make_dataclass(
        command.capitalize(), [(k, Annotated[v, OmitArgPrefixes]) for k, v in fields.items()]
    )
    return parse(kind, command, args)


def _given(args: Sequence[str], name: str) -> str | None:
    """The value of an option that decides which others there are."""
    for i, argument in enumerate(args):
        if argument == f"--{name}":
            return args[i + 1] if i + 1 < len(args) else None
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None
