"""What MuJoCo draws, by what is in it; left out where no OpenGL draws."""

import os
import signal

import av
import numpy as np
import pytest
from PIL import Image

import jtrust
from jtrust.cli import main
from jtrust.deploy import pictures
from jtrust.deploy.look import with_light
from jtrust.deploy.pictures import NothingDraws, Painter, open_painter
from tests.deploy.slider import Slider

CAMERA = {"id": 0}


def drawn(model, positions, width=160, height=120, camera=CAMERA):
    requests = [
        {"pose": {"qpos": np.array([x])}, "camera": camera, "ground": None} for x in positions
    ]
    with open_painter(model, width, height) as painter:
        return [x.astype(int) for x in painter.draw(requests)]


def ball(pixels):
    """Where the red ball is: columns of pixels."""
    found = np.flatnonzero(((pixels[..., 0] - pixels[..., 2]) > 60).any(axis=0))
    assert found.size
    return found.mean()


def test_a_ball_is_where_its_pose_puts_it():
    left, middle, right = drawn(with_light(Slider().mj_model), [-0.5, 0.0, 0.5])
    assert middle.shape == (120, 160, 3) and middle.std() > 10
    assert ball(left) < ball(middle) - 15 < ball(right) - 30
    assert ball(middle) == pytest.approx(80, abs=3)
    assert not (middle.max(axis=-1) == 0).any()  # a sky where the model has none


def test_a_video_is_of_the_size_and_the_speed_that_were_asked_for(run_dir, tmp_path):
    path = tmp_path / "run.mp4"
    found = jtrust.render(run_dir, output=path, episodes=3, width=128, height=96, fps=5)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        frames = [x.to_ndarray(format="rgb24").astype(int) for x in video.decode(stream)]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 5
    assert len(frames) == found["frames"] and frames[0].shape == (96, 128, 3)
    shown = found["shown"]
    assert [x["which"] for x in shown] == ["best", "median", "worst"]
    # Each at its own speed, and its last picture held for a moment.
    assert len(frames) == sum(x["steps_shown"] // 2 + 1 + 4 for x in shown)
    assert all(x.std() > 10 for x in frames)
    first = shown[0]["steps_shown"] // 2
    assert ball(frames[first]) > ball(frames[0]) + 5
    assert os.listdir(tmp_path) == ["run.mp4"]


def test_the_same_seed_is_the_same_picture(run_dir, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        jtrust.render(run_dir, output=tmp_path / f"{name}.png", episodes=2, seed=seed, width=96)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    assert Image.open(tmp_path / "a.png").size == (6 * (96 + 4) - 4, 2 * (240 + 4) - 4)


def test_an_animation_begins_again(run_dir, tmp_path):
    path = tmp_path / "run.gif"
    found = jtrust.render(run_dir, output=path, episodes=1, seconds=1, width=80, height=64)
    with Image.open(path) as picture:
        assert (picture.size, picture.info["loop"]) == ((80, 64), 0)
        assert picture.info["duration"] == 100  # the slider has ten steps a second
        # Pillow keeps one of pictures that are all the same.
        assert 11 <= picture.n_frames <= found["frames"] == 11 + 7


def test_words_can_be_asked_for(run_dir, tmp_path, monkeypatch):
    said = []
    write = jtrust.deploy.drawing.with_words
    monkeypatch.setattr(
        "jtrust.deploy.drawing.with_words",
        lambda pixels, top, bottom: said.append((top, bottom)) or write(pixels, top, bottom),
    )
    jtrust.render(run_dir, output=tmp_path / "x.png", episodes=1, show=["kl", "value"])
    (title, heading), (numbers, clock) = said[0]
    assert title.startswith("episode 0: return") and "128 steps" in heading
    assert "step 0   return 0.00   KL " in numbers and " value " in numbers and clock == "0.00 s"


def test_a_painter_that_dies_leaves_nothing_behind(run_dir, tmp_path, monkeypatch):
    receive, count = Painter._receive, [0]

    def dying(self, size):
        count[0] += 1
        if count[0] == 5:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return receive(self, size)

    monkeypatch.setattr(Painter, "_receive", dying)
    with pytest.raises(jtrust.BadArgument, match="stopped being drawn"):
        jtrust.render(run_dir, output=tmp_path / "run.mp4", episodes=1, width=64, height=64)
    assert os.listdir(tmp_path) == []


def test_a_driver_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(pictures, "_TIME_LIMIT", 0.01)
    with pytest.raises(NothingDraws, match="drew nothing for"):
        Painter(Slider().mj_model, 64, 64, "egl")


def test_cameras_are_chosen_by_name(run_dir, tmp_path, capfd):
    assert main(["render", str(run_dir), "--output", str(tmp_path / "a.png"), "--episodes", "1",
                 "--camera", "free"]) == 0
    assert main(["render", str(run_dir), "--output", str(tmp_path / "b.png"), "--episodes", "1",
                 "--camera", "sied"]) == 2
    assert "--camera sied: unknown camera; did you mean side?" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["a.png"]
