"""The page in a browser that has no network; left out where there is no Chromium."""

import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from jtrust.cli import main
from tests.deploy.conftest import CHROMIUM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(run_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "run.html"
    assert main(["render", str(run_dir), "--output", str(path), "--show", "kl", "value"]) == 0
    return path


def opened(page, tmp_path, *options, moment=""):
    """What Chromium says and writes of a page: (standard output, its console)."""
    process = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--window-size=800,600", "--virtual-time-budget=3000",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run",
            "--disable-background-networking", *options, f"file://{page}{moment}",
        ],
        capture_output=True, text=True, timeout=120,
    )
    # A policy of the page forbids all loading, and what breaks it is told on the console.
    return process.stdout, [x for x in process.stderr.splitlines() if "CONSOLE" in x]


def test_it_draws_and_says_nothing_on_the_console(page, tmp_path):
    text, console = opened(page, tmp_path, "--dump-dom")
    assert console == []
    assert 'data-state="ready"' in text
    options = re.search(r'id="episode".*?</select>', text, re.S)[0]
    assert re.findall(r"(best|median|worst) of 16", options) == ["best", "median", "worst"]
    numbers = re.search(r'id="numbers"[^>]*>(.*?)</div>', text, re.S)[1]
    assert re.search(r"step \d+ of \d+ +return .* reward .* KL .* value ", numbers)


def test_what_it_shows_moves(page, tmp_path):
    pictures = []
    for moment in ("#t=0", "#t=1.5"):
        file = tmp_path / "shot.png"
        _, console = opened(page, tmp_path, f"--screenshot={file}", moment=moment)
        assert console == []
        pictures.append(np.asarray(Image.open(file).convert("RGB"), int))
    first, later = pictures
    view = np.s_[120:480]  # without the words
    red = [(x[view][..., 0] - x[view][..., 2]) > 60 for x in (first, later)]
    assert all(ball.sum() > 500 for ball in red)
    middle = [np.flatnonzero(ball.any(axis=0)).mean() for ball in red]
    assert abs(middle[1] - middle[0]) > 10
