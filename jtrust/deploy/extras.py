"""Packages of the extra `export`."""

from __future__ import annotations

import importlib
from types import ModuleType

from jtrust import checks


def import_extra(module: str) -> ModuleType:
    """Imports a package.

    Raises:
      BadArgument: it, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise checks.BadArgument(
            "format", "onnx", f"needs an extra ({error}); pip install 'jtrust[export]'"
        ) from error
