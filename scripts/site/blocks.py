#!/usr/bin/env python3
"""Runs the code of a page, in the order in which it stands there.

    python -m scripts.site.blocks docs/learn/results.md            # in full, in a new directory
    python -m scripts.site.blocks docs/learn/results.md --write    # and keeps what it printed
    python -m scripts.site.blocks docs/learn/results.md --small    # as the tests do

Python of one page shares its names; the shell's commands run in between. A comment before a block
says what is special about it:

    <!-- file: cart.py -->          the block is a file to write, and not to run
    <!-- small: 500000 => 8192 -->  what a test puts in place of what (several behind ;)
    <!-- not run: why -->           what cannot be run here
    <!-- output: 3 -->              this block is the last 3 lines of what the one before printed
    <!-- keep: return.svg -->       files that the block made and that the page shows, with --write
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?P<notes>(?:^[ ]*<!--[^\n]*-->\n\n?)*)^(?P<indent>[ ]*)```(?P<language>\w+)[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)```[ ]*$", re.M | re.S,
)
_NOTE = re.compile(r"<!--\s*([\w ]+?)(?::\s*(.*?))?\s*-->")
RUN = ("python", "sh")


@dataclasses.dataclass
class Block:
    """One block of code: its language, its code, what is noted before it, and where it stands."""

    language: str
    code: str
    notes: dict[str, str]
    span: tuple[int, int]

    @property
    def runs(self) -> bool:
        return self.language in RUN and not {"not run", "file", "output"} & set(self.notes)

    def small(self) -> str:
        """The code as a test runs it.

        Raises:
          ValueError: something that is to be replaced is not there.
        """
        code = self.code
        for pair in filter(None, self.notes.get("small", "").split(";")):
            before, after = (text.strip() for text in pair.split("=>"))
            if before not in code:
                raise ValueError(f"no {before!r} in the block to make small")
            code = code.replace(before, after)
        return code


def blocks(text: str) -> list[Block]:
    """The blocks of a page in order."""
    return [
        Block(
            found["language"], textwrap.dedent(found["code"]),
            {n.strip(): (v or "") for n, v in _NOTE.findall(found["notes"])},
            found.span("code"),
        )
        for found in FENCE.finditer(text)
    ]


def run(page: Path, place: Path, small: bool, say: Any = lambda text: None) -> dict[int, str]:
    """Runs a page's blocks in the directory `place`: {number of a block: what it printed}.

    Raises:
      RuntimeError: a block fails.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: dict[int, str] = {}
    for i, block in enumerate(blocks(page.read_text())):
        code = block.small() if small else block.code
        if "file" in block.notes:
            (place / block.notes["file"]).write_text(code)
        if not block.runs:
            continue
        start = time.monotonic()
        try:
            printed[i] = (_python if block.language == "python" else _shell)(code, names)
        except BaseException as error:
            raise RuntimeError(f"{page.name}, block {i}:\n{code}\n{error}") from error
        say(f"{page.name}, block {i}: {time.monotonic() - start:.1f} s")
    return printed


def _python(code: str, names: dict[str, Any]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "<page>", "exec"), names)
    return said.getvalue()


def _shell(code: str, names: dict[str, Any]) -> str:
    command = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def commands_here(place: Path) -> None:
    """Puts a `jtrust` and a `python` of this checkout on the path, and pretrained policies here."""
    shutil.copytree(ROOT / "checkpoints/pretrained", place / "checkpoints/pretrained")
    here = place / ".bin"
    here.mkdir()
    for name, rest in (("jtrust", " -m jtrust"), ("python", "")):
        (here / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest} "$@"\n')
        (here / name).chmod(0o755)
    os.environ["PATH"] = f"{here}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(place), str(ROOT)])
    sys.path[:0] = [str(place)]


def keep(page: Path, place: Path, printed: dict[int, str]) -> None:
    """Writes what blocks printed into the page, and the files that it shows beside it."""
    text = page.read_text()
    found = blocks(text)
    for i in reversed(range(len(found))):
        for name in filter(None, found[i].notes.get("keep", "").split()):
            (page.parent / "figures").mkdir(exist_ok=True)
            shutil.copy(place / name, page.parent / "figures" / Path(name).name)
        if "output" in found[i].notes:
            of = max(k for k in printed if k < i)
            lines = [x.rstrip() for x in printed[of].splitlines() if x.strip()]
            count = int(found[i].notes["output"] or 0)
            start, end = found[i].span
            text = text[:start] + "\n".join(lines[-count:]) + "\n" + text[end:]
    page.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--small", action="store_true", help="with the sizes of a test")
    parser.add_argument("--write", action="store_true", help="keep what was printed and drawn")
    options = parser.parse_args()
    if options.small and options.write:
        parser.error("--write is for runs in full")
    pages = [page.resolve() for page in options.pages]
    for page in pages:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            commands_here(place)
            os.chdir(place)
            printed = run(page, place, options.small, lambda text: print(text, flush=True))
            if options.write:
                keep(page, place, printed)
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
