"""`--preset`: settings of a preset among what was given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from jtrust import checks, presets

_FLAG = "--preset"


def with_preset(args: Sequence[str], options: type) -> list[str]:
    """The arguments with those of the preset that `--preset` asks for; what was given wins.

    Args:
      args: of the command, without its name.
      options: the dataclass of its options, whose flags take no value.

    Raises:
      BadArgument: the environment has no preset, or it is one of another algorithm.
    """
    if _FLAG not in args or {"-h", "--help"} & set(args):
        return list(args)
    preset = presets.load(_env(args, options))
    # Names may be written with underscores, too.
    given = {_flag(a.split("=", 1)[0][2:]) for a in args if a.startswith("--")}
    of_env = {a.removeprefix("--env-option=").partition("=")[0] for a in args if "=" in a}
    algorithm = _value(args, "--algorithm")
    if algorithm not in (None, preset.algorithm):
        raise checks.BadArgument(
            "algorithm", algorithm, f"the preset of {preset.env} is of {preset.algorithm}; leave "
            "one of the two out"
        )
    more: list[str] = [] if algorithm else ["--algorithm", preset.algorithm]
    for name, value in preset.env_options.items():
        if _flag(name) not in given and name not in of_env:
            more += ["--env-option", f"{name}={json.dumps(value)}"]
    for name, value in preset.settings.items():
        if (flag := _flag(name)) not in given and f"--no-{flag[2:]}" not in given:
            more += _as_option(flag, value)
    return [*args, *more]


def _env(args: Sequence[str], options: type) -> str:
    """ENV, which stands where no option takes it as its value."""
    flags = {_flag(f.name) for f in dataclasses.fields(options) if "bool" in str(f.type)}
    flags |= {f"--no-{flag[2:]}" for flag in flags}
    for i, argument in enumerate(args):
        before = args[i - 1] if i else ""
        taken = before.startswith("--") and "=" not in before and before not in flags
        if not argument.startswith("-") and not taken:
            return argument
    raise checks.BadArgument("ENV", "", "must be SUITE/NAME, such as brax/reacher")


def _value(args: Sequence[str], option: str) -> str | None:
    for i, argument in enumerate(args):
        if argument == option:
            return args[i + 1] if i + 1 < len(args) else ""
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1]
    return None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _as_option(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *map(str, value)] if isinstance(value, list) else [flag, str(value)]
