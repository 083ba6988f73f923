"""`jtrust render`: what it writes where nothing draws, and its answers to bad input."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import jtrust
from jtrust.cli import main
from jtrust.deploy import files
from tests.conftest import Point


@pytest.fixture
def copy(run_dir, tmp_path):
    return shutil.copytree(run_dir, tmp_path / "run")


@pytest.fixture
def no_opengl(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")


def refused(arguments, capfd):
    capfd.readouterr()
    assert main(["render", *map(str, arguments)]) == 2
    captured = capfd.readouterr()
    said = [x for x in captured.err.splitlines() if not x.endswith(" ...")]
    assert captured.out == "" and len(said) == 1, captured
    return said[0]


def test_without_opengl_it_is_a_page_and_says_why(copy, no_opengl, capfd):
    assert main(["render", str(copy), "--episodes", "5", "--seed", "2", "--json"]) == 0
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert found["output"] == str(copy / "render.html") and found["drawn_by"] == "browser"
    assert "no OpenGL draws here (MUJOCO_GL turns pictures off)" in captured.err
    counted = jtrust.evaluate(copy, episodes=5, seed=2)
    assert {k: found[k] for k in counted} == counted
    assert os.environ["MUJOCO_GL"] == "off"


def test_without_pyav_it_is_a_page_and_says_what_to_install(copy, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["render", str(copy), "--episodes", "1"]) == 0
    captured = capfd.readouterr()
    assert "pip install 'jtrust[render]'" in captured.err and "render.html" in captured.out
    said = refused([copy, "--output", copy / "x.mp4"], capfd)
    assert "pip install 'jtrust[render]'" in said and not (copy / "x.mp4").exists()


def test_without_an_encoder_it_says_so(copy, monkeypatch, capfd):
    monkeypatch.setattr(files, "_ENCODERS", ("libnothing",))
    assert "no encoder for H.264 (libnothing)" in refused([copy, "--output", "x.mp4"], capfd)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--output", "x.avi"], "--output x.avi: must end in .mp4, .gif, .html or .png"),
    (["--output", "x"], "must end in"),
    (["--output", ""], "is empty"),
    (["--output", "gs://bucket/x.mp4"], "not on this machine"),
    (["--output", "missing/x.mp4"], "cannot be written (No such file or directory)"),
    (["--output", "folder.mp4"], "is a directory"),
    (["--output", "/dev/null/x.mp4"], "cannot be written"),
    (["--episodes", "0"], "--episodes 0: must be a whole number from 1 to 1024"),
    (["--episodes", "99999999999"], "must be a whole number from 1 to 1024"),
    (["--episodes", "two"], "must be a whole number"),
    (["--output", "x.mp4", "--width", "641"], "--width 641: must be even"),
    (["--output", "x.mp4", "--height", "-2"], "from 64 to 4096"),
    (["--output", "x.png", "--width", "100000"], "from 64 to 4096"),
    (["--output", "x.html", "--width", "640"], "--width 640: a page is as large as its window"),
    (["--output", "x.html", "--camera", "side"], "a page is seen from anywhere"),
    (["--output", "x.gif", "--width", "4096", "--height", "4096"], "would be gigantic"),
    (["--fps", "nan", "--output", "x.mp4"], "--fps nan: must be a number from 1 to 120"),
    (["--seconds", "-1", "--output", "x.mp4"], "must be a number from 0.1 to 600"),
    (["--show", "colour"], "--show colour: unknown"),
    (["--show", "kl", "--step", "0"], "there is none before step 0"),
    (["--step", "7"], "--step 7: no such checkpoint"),
    (["--seed", "-1"], "--seed -1"),
])
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments, said, run_dir, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    sys_path = [*sys.path]
    (tmp_path / "folder.mp4").mkdir()
    assert said in refused([run_dir, *arguments], capfd)
    assert os.listdir(tmp_path) == ["folder.mp4"] and os.listdir("folder.mp4") == []
    assert not list(run_dir.glob("*render*"))
    sys.path[:] = sys_path


def test_no_run_and_no_checkpoint_are_one_line(copy, tmp_path, capfd):
    assert "does not exist" in refused([tmp_path / "nothing"], capfd)
    for step in ("0", "64", "128"):
        shutil.rmtree(copy / step)
    assert "holds no checkpoint" in refused([copy], capfd)


def test_an_old_picture_stays_where_a_new_one_fails(copy, no_opengl, capfd):
    (copy / "render.gif").write_text("old")
    assert "no OpenGL" in refused([copy, "--output", copy / "render.gif"], capfd)
    assert (copy / "render.gif").read_text() == "old"


def test_a_simulator_that_breaks_at_once_is_one_line(copy, no_opengl, capfd):
    config = json.loads((copy / "config.json").read_text())
    config["env_options"]["breaks_above"] = -9.0
    (copy / "config.json").write_text(json.dumps(config))
    said = refused([copy, "--allow-code", "--output", copy / "x.html"], capfd)
    assert "all of them begin with NaN" in said and not list(copy.glob("*x*.html"))


def test_an_environment_without_a_model_is_plotted(copy):
    env = jtrust.describe(Point(), "Point", episode_length=20)
    found = jtrust.render(copy, env=env, episodes=4)
    assert found["output"] == str(copy / "render.png") and found["drawn_by"] == "matplotlib"
    with Image.open(copy / "render.png") as picture:
        lines = np.asarray(picture.convert("HSV"))[..., 1] > 120
    assert lines.sum() > 1000  # of colour
    jtrust.render(copy, env=env, episodes=4, output=copy / "x.html")
    page = (copy / "x.html").read_text()
    assert "<svg" in page and "src=" not in page and "Point, trpo, 128 steps" in page
    with pytest.raises(jtrust.BadArgument, match="Point has no MuJoCo model to draw"):
        jtrust.render(copy, env=env, output=copy / "x.mp4")


def test_importing_jtrust_imports_nothing_that_draws():
    code = (
        "import sys, jtrust; jtrust.render; "
        "print(*[m for m in ('av', 'PIL', 'matplotlib', 'OpenGL') if m in sys.modules])"
    )
    environment = {**os.environ, "MUJOCO_GL": "disable"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert out.strip() == ""
