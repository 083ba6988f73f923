"""A user's own environment by name: `MODULE:CALLABLE`, such as `my_robot.balance:make`."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from jtrust import checks
from jtrust.environments.base import COMMON_OPTIONS, Environment, describe, with_time_limit
from jtrust.environments.tracing import said


def make(name: str, /, **options: Any) -> Environment:
    """Makes the environment that a callable returns.

    Args:
      name: `MODULE:CALLABLE`; the module may lie in the current directory.
      **options: what the callable takes; others that `describe` knows go there.

    Raises:
      BadArgument: no such module or callable, one of Python's own, which is neither imported nor
        called, or a call that fails.
    """
    options = {k: v for k, v in options.items() if v is not None}
    function = _find(name)
    parameters = _parameters(function)
    common = {k: v for k, v in options.items() if k in COMMON_OPTIONS and k not in parameters}
    given = {k: v for k, v in options.items() if k not in common}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in given:
            if key not in parameters:
                there = ", ".join([*parameters, *COMMON_OPTIONS])
                raise checks.BadArgument(key, given[key], f"{name} takes no such option: {there}")
    try:
        made = function(**given)
    except checks.BadArgument:
        raise
    except SystemExit as error:
        raise checks.BadArgument("ENV", name, f"ended the process: {said(error)}") from error
    except Exception as error:
        raise checks.BadArgument("ENV", name, f"raised {said(error)}") from error
    if not isinstance(made, Environment):
        # A limit that the callable takes too is also the loop's, which would cut it otherwise.
        if "episode_length" in given:
            common["episode_length"] = given["episode_length"]
        return describe(made, name, options=options, **common)
    keys = {k: v for k, v in common.items() if k != "episode_length"}
    if keys:
        raise checks.BadArgument(
            next(iter(keys)), next(iter(keys.values())), f"{name} has chosen; change it there"
        )
    made = dataclasses.replace(made, name=name, options=options)
    length = common.get("episode_length")
    return made if length is None else with_time_limit(made, length)


def _find(name: str) -> Callable:
    module_name, _, attribute = name.partition(":")
    if _is_pythons(module_name):
        raise checks.BadArgument(
            "ENV", name, f"{module_name.partition('.')[0]} is a module of Python's standard "
            "library, where no environment is; a module of yours needs another name"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise checks.BadArgument(
                "ENV", name, f"there is no module {error.name}, installed or in {os.getcwd()}"
            ) from error
        raise checks.BadArgument("ENV", name, f"its module raised {said(error)}") from error
    except SystemExit as error:
        raise checks.BadArgument(
            "ENV", name, f"its module ends the process when it is imported: {said(error)}; what is "
            'for a script alone belongs under if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise checks.BadArgument("ENV", name, f"its module raised {said(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = _callables(found, module_name)
            near = checks.nearest(part, there) or there
            has = f"; it has {checks.listed(near, 5)}" if near else ""
            raise checks.BadArgument("ENV", name, f"there is no {attribute!r} in it{has}")
        found = getattr(found, part)
    if not callable(found) or _is_pythons(_home(found)):
        raise checks.BadArgument(
            "ENV", name, "must be a function or a class that makes an environment"
            + "; this one is Python's own" * callable(found)
        )
    return found


def _callables(found: Any, module_name: str) -> list[str]:
    """Names of what may be called in a module or a class: its own, or else what it imports."""
    public = {
        k: v for k, v in getattr(found, "__dict__", {}).items()
        if callable(v) and not k.startswith("_") and not _is_pythons(_home(v))
    }
    own = [k for k, v in public.items() if getattr(v, "__module__", None) == module_name]
    return own or list(public)


def _is_pythons(module: str) -> bool:
    """Whether a module belongs to Python itself."""
    return module.partition(".")[0] in sys.stdlib_module_names


def _home(function: Any) -> str:
    """The module that a callable comes from, under whatever name and wrapper it is found."""
    for _ in range(100):  # a wrapper may be its own
        if isinstance(function, (functools.partial, functools.partialmethod)):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif isinstance(getattr(function, "__wrapped__", None), Callable):  # type: ignore[arg-type]
            function = function.__wrapped__
        else:
            break
    if isinstance(function, type) or inspect.isfunction(function):
        return function.__module__ or "builtins"
    if inspect.isbuiltin(function):  # of a module, or a method of an object
        owner = function.__self__
        if inspect.ismodule(owner) or owner is None:
            return function.__module__ or "builtins"
        function = owner
    return (function if isinstance(function, type) else type(function)).__module__


def _parameters(function: Callable) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some built-in callables have no signature
        return {}

