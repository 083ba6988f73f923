"""`sweep.json` as it is read: a directory may come from anywhere, so nothing in it is trusted."""

from __future__ import annotations

import math
import re
from typing import Any

from jtrust import checks

FORMAT = 1
_NAME = re.compile(r"[\w+=][\w.+=,-]*", re.ASCII)
_LONGEST_NAME = 255
_FIELDS = {
    "format": int, "jtrust": str, "base": dict, "members": list, "groups": list, "ended": dict,
    "search": dict,
}
_SEARCH = {
    "trials", "ranges", "prune", "metric", "seeds", "confirm", "given", "seed", "at_once",
}


def check(fields: Any) -> None:
    """Raises ValueError, KeyError or TypeError where a sweep could not have such fields."""
    if not isinstance(fields, dict):
        raise ValueError("it is no object")
    if fields.get("format") != FORMAT:
        raise ValueError(f"format {fields.get('format')!r}, and this version reads {FORMAT}")
    if set(fields) != set(_FIELDS):
        raise ValueError(f"its fields are {', '.join(sorted(map(str, fields)))}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise ValueError(f"{name} is {type(fields[name]).__name__}")
    names = [_member(member) for member in fields["members"]]
    if len(set(names)) < len(names):
        raise ValueError("two members have one name")
    if not names and not fields["search"]:
        raise ValueError("it has no members")
    grouped = [name for group in fields["groups"] for name in _group(group, bool(names))]
    if sorted(grouped) != sorted(names):
        raise ValueError("its groups are not of its members, each once")
    for name, why in fields["ended"].items():
        if not isinstance(why, str):
            raise ValueError(f"{name} ended by {why!r}")
    if fields["search"]:
        _search(fields["search"])


def is_name(name: Any) -> bool:
    """Whether a member's directory may be called so."""
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and bool(_NAME.fullmatch(name))


def _member(member: dict[str, Any]) -> str:
    name = member["name"]
    if not is_name(name):
        raise ValueError(f"a member cannot be called {name!r}")
    _whole("seed", member["seed"], 0, 2**31 - 1)
    if not isinstance(member["settings"], dict) or not isinstance(member["changes"], dict):
        raise ValueError(f"{name} has no settings or changes")
    return name


def _group(group: dict[str, Any], wanted: bool) -> list[str]:
    if wanted and not group["members"]:
        raise ValueError("a group has no members")
    for place in group["varied"]:
        _whole("varied", place, 0, 1000)
    for key in ("slots", "devices"):
        if group[key] is not None:
            _whole(key, group[key], 1, 2**20)
    return list(group["members"])


def _search(said: dict[str, Any]) -> None:
    if set(said) != _SEARCH:
        raise ValueError(f"the fields of its search are {', '.join(sorted(map(str, said)))}")
    _whole("trials", said["trials"], 1, 100_000)
    _whole("confirm", said["confirm"], 0, 1000)
    _whole("seed", said["seed"], 0, 2**31 - 1)
    for seed in said["seeds"]:
        _whole("seeds", seed, 0, 2**31 - 1)
    if said["at_once"] is not None:
        _whole("at_once", said["at_once"], 1, 2**20)
    if not said["seeds"] or type(said["prune"]) is not bool or not isinstance(said["metric"], str):
        raise ValueError("its search has no seeds, or prune or metric is wrong")
    if not isinstance(said["given"], dict) or not isinstance(said["ranges"], dict):
        raise ValueError("its search has no settings or ranges")
    check_ranges(said["ranges"])


def check_ranges(ranges: dict[str, Any]) -> None:
    """Raises `BadArgument` for ranges that are none."""
    for name, given in ranges.items():
        good = isinstance(given, (list, tuple)) and len(given) == 3 and type(given[2]) is bool
        if not good or not all(checks.is_number(x) for x in given[:2]):
            raise checks.BadArgument(name, given, "must be (low, high, whether by logarithm)")
        low, high, log = given
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise checks.BadArgument(
                name, f"{low:g}:{high:g}", "must have a low end below its high end, both finite"
            )
        if log and low <= 0:
            raise checks.BadArgument(
                name, f"{low:g}:{high:g}:log", "must be above 0 for a search by logarithm"
            )


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}")
