"""The page of the command line, from the classes that its parsers are made of."""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docstring_parser import parse, parse_from_object

# What each command is parsed by; those of `training` also take an algorithm's settings.
OPTIONS = {
    "train": "TrainOptions", "sweep": "SweepOptions", "resume": "ResumeOptions",
    "evaluate": "EvaluateOptions", "compare": "CompareOptions", "report": "ReportOptions",
    "watch": "WatchOptions", "render": "RenderOptions", "export": "ExportOptions",
    "profile": "ProfileOptions", "plan": "PlanOptions",
}
TRAINING = ("train", "sweep", "profile", "plan")

START = """\
# Command line

`jtrust COMMAND ...`, or `python -m jtrust COMMAND ...`. Underscores of the names in Python are
hyphens here. This page is made from the parsers. `jtrust COMMAND --help` says the same.

A command ends with status 0 where it did what it was asked, 2 where what it was given will not do,
1 where it failed, 130 after Ctrl-C and 143 after SIGTERM. What is wrong is said in
[one line](errors.md).
"""

ENVS = """
## jtrust envs

Lists every name that ENV may be, with its backends. It has no options.
"""


def page() -> str:
    """The page, as Markdown."""
    parts = [START]
    for command, name in OPTIONS.items():
        kind = getattr(importlib.import_module(f"jtrust.cli.{command}"), name)
        parts += ["", *_command(command, kind)]
    return "\n".join([*parts, ENVS, *_settings(), ""])


def options_of(kind: type) -> Iterator[tuple[dataclasses.Field, str]]:
    """The fields of a class of options with what is said of each; parts of it in its place."""
    said = _said(kind)
    for field in dataclasses.fields(kind):
        inner = field.default_factory
        if inner is not dataclasses.MISSING and dataclasses.is_dataclass(inner):
            yield from options_of(inner)  # type: ignore[arg-type]
        else:
            yield field, said.get(field.name, "")


def _command(command: str, kind: type) -> list[str]:
    positional = [f for f, _ in options_of(kind) if "Positional" in str(f.type)]
    shown = " ".join(_metavar(f) for f in positional)
    first = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
    lines = [f"## jtrust {command} {shown}", "", first]
    if command in TRAINING:
        lines += ["", "It also takes the [settings of the algorithm](#settings-of-the-algorithms) "
                  "and of [the networks](#settings-of-the-networks)."]
        if command == "sweep":
            lines[-1] += " Each may have several values."
    lines += ["", *_table(list(options_of(kind)))]
    return lines


def _settings() -> list[str]:
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig

    named: dict[str, tuple[dataclasses.Field, str]] = {}
    takes: dict[str, list[str]] = {}
    for name, kind in ALGORITHMS.items():
        for field, said in options_of(kind):
            named.setdefault(field.name, (field, said))
            takes.setdefault(field.name, []).append(name)
    lines = ["## Settings of the algorithms", "", "Defaults are those of small rollouts. "
             "[Large ones](../understand/batch-size.md) have some of their own.", "",
             "| option | default | of | meaning |", "| --- | --- | --- | --- |"]
    for name, (field, said) in named.items():
        of = "all" if len(takes[name]) == len(ALGORITHMS) else ", ".join(takes[name])
        lines.append(f"| {_flag(field)} | {_default(field)} | {of} | {_cell(said)} |")
    return [*lines, "", "## Settings of the networks", "", *_table(list(options_of(NetworkConfig)))]


def _table(fields: list[tuple[dataclasses.Field, str]]) -> list[str]:
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for field, said in fields:
        flag = f"`{_metavar(field)}`" if "Positional" in str(field.type) else _flag(field)
        lines.append(f"| {flag} | {_default(field)} | {_cell(said)} |")
    return lines


def _flag(field: dataclasses.Field) -> str:
    name = "--" + field.name.replace("_", "-")
    if field.type == "bool":
        return f"`{name}`, `--no-{name[2:]}`"
    return f"`{name}`"


def _default(field: dataclasses.Field) -> str:
    value: Any = field.default
    if value is dataclasses.MISSING or value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _metavar(field: dataclasses.Field) -> str:
    found = re.search(r"metavar=[\"']([^\"']+)", str(field.type))
    return found.group(1) if found else field.name.upper()


def _said(kind: type) -> dict[str, str]:
    """What a class and its bases say of each field, behind it or under Attributes."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        docs = [*parse(base.__doc__ or "").params, *parse_from_object(base).params]
        for one in docs:
            if one.description:
                found[one.arg_name] = one.description
    return found


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
