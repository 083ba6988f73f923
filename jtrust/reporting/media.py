"""What lies beside a run's metrics: its last render, and a profile of it."""

from __future__ import annotations

import base64
import json
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jtrust.paths import NotPlain, read_plain
from jtrust.reporting.sources import Run
from jtrust.runs.directory import PROFILE, default_name

_TYPES = {"mp4": "video/mp4", "gif": "image/gif", "png": "image/png", "html": "text/html"}
# Of all renders on a page together; larger ones are linked to.
MOST_RENDER_BYTES = 1_500_000


def newest_render(run: Run) -> Path | None:
    """The newest `render*.mp4|gif|png|html` in a run's directory, None where there is none."""
    found = []
    try:
        with os.scandir(run.path) as entries:
            for entry in entries:
                ending = entry.name.rpartition(".")[2]
                if (entry.name.startswith("render") and ending in _TYPES
                        and entry.is_file(follow_symlinks=False)):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    except OSError:
        return None
    return run.path / max(found)[1] if found else None


def embedded(path: Path, most: int) -> str | None:
    """A render as a `data:` address; None where it is a page, too large, or cannot be read."""
    kind = _TYPES[path.suffix[1:]]
    if kind == "text/html":  # with scripts of its own, perhaps from a network
        return None
    try:
        return f"data:{kind};base64,{base64.b64encode(read_plain(path, most)).decode()}"
    except (NotPlain, OSError):
        return None


def link(path: Path) -> str:
    """Where a browser on this machine finds a file."""
    return "file://" + quote(os.path.abspath(path))


def profile_of(run: Run) -> dict[str, Any] | None:
    """What `jtrust profile` kept of the same training: {"device", "phases": [(name, ms, share)]}.

    It is looked for in the run's directory, in directories directly in it (`--trace-dir
    RUN_DIR/profile`), and where `jtrust profile` writes by default, beside the run.
    """
    beside = f"profile-{default_name(run.env, run.algorithm, _seed(run))}"
    places = [run.path / PROFILE, run.path / "profile" / PROFILE,
              run.path.parent / beside / PROFILE]
    for place in places:
        try:
            found = json.loads(read_plain(place, 2**20))
            phases = [
                (str(phase["name"])[:80], 1e3 * float(phase["seconds"]), float(phase["share"]))
                for phase in found["phases"]
            ]
            same = (found["env"], found["algorithm"], found["num_envs"]) == (
                run.env, run.algorithm, run.config.get("num_envs"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if same and phases and all(math.isfinite(x) for phase in phases for x in phase[1:]):
            return {"device": str(found.get("device", ""))[:80], "phases": phases[:40]}
    return None


def _seed(run: Run) -> int:
    return run.seed if type(run.seed) is int else 0
