"""Pictures while a run trains: drawn beside it, and no reason for it to fail or to change."""

import numpy as np
import pytest

import jtrust
from jtrust.deploy import renders
from jtrust.deploy.renders import Renders
from tests.deploy.slider import Slider

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=4, unroll_length=8, total_steps=32 * 4, devices=1)


def environment():
    return jtrust.describe(Slider(), "slider", episode_length=20)


def train(run_dir, *sinks):
    return jtrust.train(environment(), jtrust.TRPO(), run_dir=run_dir, sinks=sinks, **SMALL)


def test_an_episode_is_drawn_every_so_many_iterations(tmp_path):
    lines = []
    with_pictures = train(tmp_path / "run", Renders(4, lines.append))
    drawn = [p for p in (tmp_path / "run").iterdir() if p.name.startswith("render-")]
    assert [p.stem for p in drawn] == ["render-128"] and drawn[0].suffix in (".mp4", ".html")
    assert drawn[0].stat().st_size > 1000
    assert lines == [line for line in lines if line.startswith("drawn: ")] and len(lines) == 1
    without = train(tmp_path / "without")
    for key, value in without.metrics.items():
        if not key.startswith("time/"):
            np.testing.assert_array_equal(with_pictures.metrics[key], value)


def test_what_cannot_be_drawn_is_told_and_training_goes_on(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(renders, "render_policy", broken)
    lines = []
    result = train(tmp_path / "run", Renders(4, lines.append))
    assert len(result.metrics["step"]) == 4
    assert lines == ["warning: no picture of step 128: the driver is gone"]


def test_what_is_due_while_another_is_drawn_is_left_out(tmp_path, monkeypatch):
    import threading

    going_on = threading.Event()

    def slow(*_, **__):
        going_on.wait(60)
        return {"output": "x", "return_mean": 1.0}

    monkeypatch.setattr(renders, "render_policy", slow)
    lines = []

    def last(info):
        if info.iteration == 4:
            going_on.set()

    train(tmp_path / "run", Renders(2, lines.append), last)
    assert lines == [
        "no picture of step 128: the one before is still being drawn", "drawn: x, return 1",
    ]


def test_it_needs_a_directory_and_a_number():
    with pytest.raises(jtrust.BadArgument, match="render_every=4: needs a run_dir"):
        train(None, Renders(4, print))
    with pytest.raises(jtrust.BadArgument, match="render_every=0"):
        Renders(0, print)
