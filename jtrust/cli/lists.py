"""Settings of a sweep: any of an algorithm's or the networks', each with one value or several."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from docstring_parser import parse as parse_docstring
from tyro.conf import arg

from jtrust import checks
from jtrust.sweeps.reading import check_ranges


@dataclasses.dataclass(frozen=True)
class Range:
    """`LOW:HIGH`, or `LOW:HIGH:log` where it is searched by its logarithm."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}" + ":log" * self.log


def lists_of(names: Sequence[str]) -> type:
    """A dataclass of the settings that these algorithms and networks have, texts each.

    Those of one algorithm alone are there too, so that `values_of` can say whose they are.
    """
    fields = []
    for name, (field, documented) in _fields(names).items():
        default = dataclasses.MISSING if field is None else field.default
        shown = f"{documented} By default {default}." if default is not dataclasses.MISSING else (
            documented
        )
        kind = Annotated[tuple[str, ...], arg(help=shown, metavar="VALUE ...")]
        fields.append((name, kind, dataclasses.field(default=())))
    return dataclasses.make_dataclass("Settings", fields, frozen=True)


def values_of(given: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """What was given, as values of the settings' types; `Range` for `LOW:HIGH`.

    Raises:
      BadArgument: a value that cannot be read, or a setting that one of the algorithms has not.
    """
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig

    of_network = {f.name for f in dataclasses.fields(NetworkConfig)}
    fields = _fields(names)
    found = {}
    for field in dataclasses.fields(given):
        texts = getattr(given, field.name)
        if not texts:
            continue
        for name in names:
            known = {f.name for f in dataclasses.fields(ALGORITHMS[name])}
            if field.name not in known | of_network:
                raise checks.BadArgument(
                    field.name, " ".join(texts), f"{name} has no such setting; give it without "
                    f"--algorithm {name}"
                )
        kind = str(fields[field.name][0].type)
        found[field.name] = [_value(field.name, text, kind) for text in texts]
    return found


def one_value_each(args: Sequence[str], options: type, several: Sequence[str]) -> None:
    """Raises `BadArgument` where an option that all runs share was given a list, or one that may
    have several was given none."""
    single = {f.name for f in dataclasses.fields(options) if f.name not in several}
    env_comes_first = bool(args) and not args[0].startswith("-")
    for i, argument in enumerate(args):
        if not argument.startswith("--") or "=" in argument:
            continue
        name = argument[2:].replace("-", "_")
        values = list(itertools.takewhile(lambda x: not x.startswith("--"), args[i + 1:]))
        if name not in single:
            if not values and name in (*several, *_all_settings()):
                raise checks.BadArgument(
                    name, "nothing", "must have at least one value"
                )
            continue
        # Where ENV has not come yet, the last of them may be it.
        if not env_comes_first and values and not _is_number(values[-1]):
            values.pop()
        if len(values) > 1:
            raise checks.BadArgument(
                name, " ".join(values), "takes one value, for all runs of the sweep"
            )


def _all_settings() -> set[str]:
    from jtrust.algorithms import ALGORITHMS

    return set(_fields(list(ALGORITHMS)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fields(names: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Fields of the algorithms and of the networks by name, with what their classes say of them."""
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig

    found: dict[str, tuple[Any, str]] = {}
    for cls in (*(ALGORITHMS[name] for name in names), NetworkConfig):
        said = _documented(cls)
        for field in dataclasses.fields(cls):
            found.setdefault(field.name, (field, said.get(field.name, "")))
    return found


def _documented(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of attributes."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__doc__ and dataclasses.is_dataclass(base):
            for one in parse_docstring(base.__doc__).params:
                found[one.arg_name] = " ".join((one.description or "").split())
    return found


def _value(name: str, text: str, kind: str) -> Any:
    """A text as a value of a field's type."""
    if "None" in kind and text == "None":
        return None
    if kind.startswith("tuple"):
        return tuple(checks.text_as_number(name, part, int) for part in text.split(","))
    if kind.startswith("bool"):
        checks.one_of(name, text, ("True", "False"))
        return text == "True"
    if kind.startswith("str"):
        return text
    if ":" in text:
        return _range(name, text)
    return checks.text_as_number(name, text, int if kind.startswith("int") else float)


def _range(name: str, text: str) -> Range:
    low, high, *rest = text.split(":")
    if rest not in ([], ["log"]):
        raise checks.BadArgument(name, text, "must be LOW:HIGH or LOW:HIGH:log")
    found = Range(
        checks.text_as_number(name, low, float), checks.text_as_number(name, high, float),
        bool(rest),
    )
    check_ranges({name: (found.low, found.high, found.log)})
    return found
