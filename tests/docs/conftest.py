"""The site, built once for all tests of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reporting.chromium import find_chromium

ROOT = Path(__file__).parents[2]
# What pages hold is tested without a browser; how they look in one, where there is one.
collect_ignore = [] if find_chromium() else ["test_site_browser.py"]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The directory of the built site; a warning is an error, as with `make docs`."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "NO_MKDOCS_2_WARNING": "1",
             "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    return place
