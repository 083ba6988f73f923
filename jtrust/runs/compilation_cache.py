"""JAX's compilation cache for the command line: a second start of the same program compiles
nothing."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jtrust import checks
from jtrust.paths import user_path

NONE = "none"


def use_compilation_cache(place: str | None) -> None:
    """Keeps compiled programs between processes.

    Args:
      place: a directory; `none` for no cache; None for what JAX's own environment variable
        names, or else the user's cache directory.

    Raises:
      BadArgument: a directory that cannot be made.
    """
    if place == NONE:
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if place is None:
        if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            return
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if not os.path.isabs(base):
            return  # nowhere to keep it, which is no reason not to train
        path = Path(base) / "jtrust" / "compiled"
    else:
        path = user_path("compilation_cache", place)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if place is None:
            return
        raise checks.BadArgument(
            "compilation_cache", place,
            f"cannot be made ({error.strerror}); name a directory that can be written, or {NONE}",
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
