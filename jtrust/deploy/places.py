"""Where an export goes: nothing of the user's is written over, and nothing is left half-written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.paths import open_plain, read_plain, user_path

SUFFIX = ".json"  # behind the file's own name
_MOST_BYTES = 2**22


def contract_of(path: Path) -> Path:
    """Where the contract of an exported file is."""
    return path.with_name(path.name + SUFFIX)


def output_path(run_dir: Any, output: Any, ending: str) -> Path:
    """Where to write; by default in the current directory, by the name of the run's.

    Raises:
      BadArgument: a directory, a link, a place that does not exist, or a file that is no earlier
        export.
    """
    if output is None:
        name = user_path("RUN_DIR", run_dir).resolve().name
        path = Path(f"{name or 'policy'}{ending}")
    else:
        path = user_path("output", output)
        if path.name in ("", "..") or str(output).endswith(os.sep):
            raise checks.BadArgument("output", output, "is a directory; name a file")
    for place in (path, user_path("output", contract_of(path))):
        if place.is_symlink():
            raise checks.BadArgument("output", place, "is a symbolic link; name a file")
        if place.is_dir():
            raise checks.BadArgument("output", place, "is a directory; name a file")
    if not path.parent.is_dir():
        raise checks.BadArgument(
            "output", path, f"{path.parent} is no directory; make it, or name another"
        )
    if any(map(os.path.lexists, (path, contract_of(path)))) and not _is_export(path):
        raise checks.BadArgument(
            "output", path, "exists and is no earlier export; remove it, or name another file"
        )
    return path


def _is_export(path: Path) -> bool:
    """Whether what is at a path was exported before, and may be replaced."""
    try:
        contract = json.loads(read_plain(contract_of(path), _MOST_BYTES))
        return contract["file"] == path.name and "jtrust" in contract and "sha256" in contract
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A directory beside a path, for what is under way; gone at the end, whatever happens.

    Raises:
      BadArgument: nothing can be written there.
    """
    try:
        place = Path(tempfile.mkdtemp(prefix=".jtrust-export-", dir=path.parent))
    except OSError as error:
        raise checks.BadArgument(
            "output", path, f"cannot be written ({error.strerror}); name another place"
        ) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def put(file: Path, contract: dict[str, Any], path: Path) -> None:
    """Moves a finished file, and its contract, to their place.

    Killed in between, this leaves a file without its contract, and never one with another's.
    """
    written = file.with_name("contract")
    text = json.dumps(contract, indent=2, default=str) + "\n"
    with open_plain(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as stream:
        left = memoryview(text.encode())
        while left:
            left = left[stream.write(left):]
    for name in (file, written):
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())
    contract_of(path).unlink(missing_ok=True)
    os.replace(file, path)
    os.replace(written, contract_of(path))
