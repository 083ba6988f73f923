"""`jtrust.report`: one page about one run or many, in one file."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jtrust import checks
from jtrust.paths import user_path
from jtrust.reporting.content import make_content
from jtrust.reporting.page import check_library, library, to_html
from jtrust.reporting.sources import Sources

DEFAULT_OUTPUT = "report.html"


def report(
    run_dirs: str | os.PathLike | Iterable[str | os.PathLike],
    output: str | os.PathLike = DEFAULT_OUTPUT,
) -> Path:
    """Writes a page about runs: curves, how they differ, and what looks wrong.

    The file needs no network, and no other file beside it.

    Args:
      run_dirs: run directories, or directories that hold run directories, such as a sweep's; one
        or several. Runs that differ only in their seed are drawn as one setting.
      output: where the page goes; a file that is there is replaced.

    Returns:
      where it is.

    Raises:
      BadArgument: a directory without metrics, an output that cannot be written, or the extra
        `report` is not installed.
    """
    one = isinstance(run_dirs, (str, os.PathLike))
    given: list = [run_dirs] if one else list(run_dirs)  # type: ignore[list-item, arg-type]
    path = user_path("output", output)
    _check_output(path)
    check_library()
    with ThreadPoolExecutor(1) as beside:  # a second, of which Python is not asked for anything
        beside.submit(library)
        content = make_content(sources := Sources(given))
    now = datetime.datetime.now().astimezone()
    count = sum(run.tail.rows for run in sources.runs)
    made = f"Made on {now:%Y-%m-%d at %H:%M %Z} of {count:,} iterations."
    _write(path, to_html(content, kind="report", made=made))
    return path


def _check_output(path: Path) -> None:
    """Raises `BadArgument` for what cannot become a file, before anything is read."""
    if path.is_dir():
        raise checks.BadArgument("output", path, "is a directory; name a file in it")
    if path.suffix.lower() not in (".html", ".htm"):
        raise checks.BadArgument("output", path, "must end in .html, as in report.html")
    if os.path.lexists(path) and not path.is_file():
        raise checks.BadArgument("output", path, "is no plain file; name another")
    if not path.parent.is_dir():
        raise checks.BadArgument("output", path, "is in no directory that exists; make it first")


def _write(path: Path, text: str) -> None:
    """The whole file or nothing."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise checks.BadArgument(
            "output", path, f"cannot be written ({error.strerror}); name another file"
        ) from error
