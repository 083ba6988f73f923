"""The robots' models that Playground's locomotion and manipulation tasks read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from jtrust import checks

# Where they are fetched from; another address or directory by this variable.
VARIABLE = "JTRUST_MENAGERIE"
ADDRESS = "https://github.com/google-deepmind/mujoco_menagerie"


def place() -> tuple[Path, str]:
    """Where Playground looks for the models, and the commit that it was made with."""
    from mujoco_playground._src import mjx_env

    return Path(str(mjx_env.MENAGERIE_PATH)), mjx_env.MENAGERIE_COMMIT_SHA


def here() -> bool:
    """Whether they are on this machine."""
    path, _ = place()
    return path.is_dir() and any(path.iterdir())


def fetch() -> None:
    """Fetches them, of that one commit, where they are not here; whole or not at all.

    Raises:
      BadArgument: git is missing, or what it said.
    """
    if here():
        return
    path, commit = place()
    address = os.environ.get(VARIABLE) or ADDRESS
    if shutil.which("git") is None:
        raise checks.BadArgument("download", address, "needs git, which is not installed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as name:
            _git(name, address, "init", "--quiet")
            _git(name, address, "fetch", "--quiet", "--depth", "1", address, commit)
            _git(name, address, "checkout", "--quiet", "FETCH_HEAD")
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()  # an empty one, that somebody left
            try:
                os.rename(name, path)
            except OSError:
                if not here():  # otherwise another process was sooner
                    raise
            else:
                os.mkdir(name)  # for the end of the block to remove
    except OSError as error:
        raise checks.BadArgument(
            "download", address, f"cannot be kept at {path}: {error.strerror or error}"
        ) from error


def _git(where: str, address: str, *arguments: str) -> None:
    done = subprocess.run(
        ["git", "-C", where, *arguments], capture_output=True, text=True,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        told = next((x for x in said if x.startswith(("fatal:", "error:"))), said[-1])
        raise checks.BadArgument(
            "download", address, f"git {arguments[0]}: {checks.printable(told)}; {VARIABLE} names "
            "another address, or a directory"
        )
