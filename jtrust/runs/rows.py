"""Reading `metrics.jsonl`, whoever writes to it meanwhile."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.paths import open_plain
from jtrust.runs.reading import read_json

_LONGEST_LINE = 2**20


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a run's metrics, up to the first that is not whole.

    Args:
      path: of the file; one that is not there has no rows.

    Raises:
      BadArgument: it is no plain file, or cannot be read.
    """
    rows: list[dict[str, Any]] = []
    try:
        with open_plain(Path(path)) as file, io.BufferedReader(file) as lines:
            while (line := lines.readline(_LONGEST_LINE)).endswith(b"\n"):
                try:
                    row = read_json(line)
                except ValueError:
                    break
                if not isinstance(row, dict) or type(row.get("iteration")) is not int:
                    break
                rows.append(row)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise checks.BadArgument(
            "RUN_DIR", path, f"cannot be read ({error.strerror or error})"
        ) from error
    return rows
