"""What pages say to type, typed: one page in every run of the tests, the others at night."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.site.blocks import blocks

ROOT = Path(__file__).parents[2]
PAGES = [
    page for page in sorted((ROOT / "docs").rglob("*.md"))
    if page.name != "index.md" and "evidence" not in page.parts
    and any(block.runs for block in blocks(page.read_text()))
]


def _run(*command, **more):
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **more},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.nightly
def test_the_first_hour_with_small_sizes():
    """The commands of the site's first page leave a policy, a page that shows it, and a report."""
    said = _run("scripts/first_hour.py", "--installed", "--small", "--within", "inf")
    assert "missing" not in said
    assert said.count("| jtrust ") == 4 and "| Python |" in said


@pytest.mark.nightly
def test_the_first_hour_as_on_a_fresh_machine():
    """Installed into an environment of its own. How long it takes, the script says."""
    said = _run("scripts/first_hour.py", "--within", "inf", PYTHONPATH="")
    assert "missing" not in said and "| install |" in said


@pytest.mark.nightly
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_code_of_a_page_runs(page):
    _run("-m", "scripts.site.blocks", str(page), "--small")
