#!/usr/bin/env python3
"""Types what the site's first page says, in order, and checks what it promises.

    python scripts/first_hour.py                # as on a fresh machine: installs from this checkout
    python scripts/first_hour.py --installed    # with the jtrust that this Python has
    python scripts/first_hour.py --small        # with the sizes of a test

The page is docs/index.md. A policy, its video (or page, where nothing can be drawn) and its report
must be there at the end, within ten minutes. Ends with status 1 where one is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.site.blocks import Block, blocks

PAGE = ROOT / "docs" / "index.md"


def typed(page: Path = PAGE) -> list[Block]:
    """The blocks of the page that somebody types, in order: installing, the shell, Python."""
    return [block for block in blocks(page.read_text()) if block.language in ("sh", "python")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--installed", action="store_true", help="leave installing out")
    parser.add_argument("--small", action="store_true", help="with the sizes of a test")
    parser.add_argument("--within", type=float, default=600, help="seconds for all of it (600)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        start = time.monotonic()
        rows = hour(place, options.installed, options.small)
        total = time.monotonic() - start
        made = check(place if options.installed else place / "jtrust")
    print("| typed | seconds |\n| --- | --- |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.0f} |")
    print(f"| all | {total:.0f} |\n")
    for what, path in made.items():
        print(f"{what}: {path.name if path else 'missing'}")
    late = total > options.within
    if late:
        print(f"took longer than {options.within:.0f} s")
    return 1 if late or None in made.values() else 0


def hour(place: Path, installed: bool, small: bool) -> list[tuple[str, float]]:
    """Types everything in one shell after another: [(what, seconds)].

    Raises:
      SystemExit: something that was typed failed.
    """
    install, *others = typed()
    before = f'set -euo pipefail\ncd "{place}"\n'
    rows = []
    if installed:
        before += f'jtrust() {{ "{sys.executable}" -m jtrust "$@"; }}\n'
    else:
        source = place / "from" / "jtrust"  # cloned by this name, whatever the checkout's is
        source.parent.mkdir()
        source.symlink_to(ROOT, target_is_directory=True)
        code = install.code.replace("REPOSITORY_URL", str(source))
        rows.append(_type("install", before + code, installed))
        before += "cd jtrust\n. .venv/bin/activate\n"
    for block in others:
        code = block.small() if small else block.code
        if block.language == "python":
            python = sys.executable if installed else "python"
            code = f"{python} - <<'EOF'\n{code}EOF\n"
            rows.append(_type("Python", before + code, installed))
            continue
        for line in code.splitlines():
            rows.append(_type(line.split("#")[0].strip(), before + line, installed))
    return rows


def check(place: Path) -> dict[str, Path | None]:
    """What the page promises, by what it is; None for what is missing."""
    wanted = {
        "policy": "runs/first/*/policy", "metrics": "runs/first/metrics.jsonl",
        "video or page": "runs/first/render.*", "report": "report.html",
        "policy made in Python": "runs/second/*/policy",
    }
    return {what: next(place.glob(pattern), None) for what, pattern in wanted.items()}


def _type(what: str, code: str, installed: bool) -> tuple[str, float]:
    start = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if installed or k != "PYTHONPATH"}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(
            f"{what}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
    return what, time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
