"""What is installed, for what goes beside a figure."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def versions(*names: str) -> dict[str, str]:
    """{"python": ..., name: version} of those of these packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def described(*names: str) -> str:
    """The same in one line: "python 3.11.7, jax 0.10.2"."""
    return ", ".join(f"{name} {found}" for name, found in versions(*names).items())
