"""Whose word it takes to call what a run directory names.

A run in an environment of MODULE:CALLABLE names code to import and to call. Written by this user's
own jtrust, the name carries his signature: a keyed hash under a secret of his own, which lies in
his state directory and nowhere else. A name without it calls nothing, unless the user says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.machinery
import json
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.paths import open_plain

_BYTES = 32


def names_code(env: str) -> bool:
    """Whether `make_env(env)` would import a module of the user's own."""
    return ":" in env and "/" not in env


def sign(env: str, options: Mapping[str, Any]) -> str:
    """The user's signature under a name and its options; "" where he has no place for a key."""
    if not names_code(env):
        return ""
    key = _key(make=True)
    if key is None:
        warnings.warn(
            f"there is nowhere to keep a key ({_place()}), so the run is not signed: to go on with "
            f"it or to evaluate it, --allow-code (allow_code=True) is needed", stacklevel=2,
        )
        return ""
    return _signature(key, env, options)


def check(
    run_dir: Path, env: str, options: Mapping[str, Any], signature: str, allowed: bool
) -> None:
    """Raises `BadArgument` where a run directory names code that the user has not said to call.

    Args:
      run_dir: where the name stands.
      env, options: what would be called.
      signature: that stands beside them.
      allowed: the user's word.
    """
    checks.truth_value("allow_code", allowed)
    if allowed or not names_code(env):
        return
    key = _key(make=False)
    given = signature.encode("utf-8", "replace")
    signed = key is not None and hmac.compare_digest(
        _signature(key, env, options).encode(), given
    )
    if signed and not _lies_within(run_dir, env):
        return
    call = f"{checks.short(env)}({checks.short(_options(options), 300)})"
    why = (
        "which lies in the run's own directory" if signed else
        "and the run was not begun by your own jtrust here"
    )
    raise checks.BadArgument(
        "RUN_DIR", run_dir,
        f"its config.json would have {call} called, {why}; if you know that code, allow it: "
        "--allow-code, from Python allow_code=True",
    )


def _options(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), sort_keys=True)


def _signature(key: bytes, env: str, options: Mapping[str, Any]) -> str:
    said = json.dumps([env, dict(options)], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _lies_within(run_dir: Path, env: str) -> bool:
    """Whether the module would come out of the run's directory; nothing is imported."""
    top = env.partition(":")[0].partition(".")[0]
    with contextlib.suppress(Exception):  # a path hook may raise what it likes
        spec = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
        found = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
        inside = run_dir.resolve()
        return any(Path(place).resolve().is_relative_to(inside) for place in found if place)
    return True


def _place() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path("~/.local/state")
    return base / "jtrust" / "key"


def _key(make: bool) -> bytes | None:
    """The user's secret key; None where there is none, or one that others can read or write."""
    try:
        path = _place().expanduser()
        if make and not path.exists():
            _make_key(path)
        with open_plain(path) as file:
            about = os.fstat(file.fileno())
            key = file.read(_BYTES + 1)
    except (OSError, RuntimeError):
        return None
    private = about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
    return key if private and len(key) == _BYTES else None


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = path.with_name(f".key-{os.getpid()}-{secrets.token_hex(4)}")
    with open(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(mine, path)  # where another process was first, its key stays
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.replace(mine, path)
    finally:
        mine.unlink(missing_ok=True)
