"""The page of HTML: all in one file, and in it what MuJoCo says of where everything is."""

import base64
import hashlib
import json
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

import jtrust
from jtrust.deploy import drawing, look
from jtrust.deploy.clips import choose_clips
from jtrust.deploy.page import body_poses, scene_of, write_page
from jtrust.deploy.recording import record
from jtrust.deploy.scene import Scene
from jtrust.deploy.settings import settings_for
from tests.deploy.slider import Slider

VIEWER = Path(drawing.__file__).with_name("viewer")
# Of three 0.185.1 from npm.
CHECKSUMS = {
    "three.core.min.js":
        "05b2609338c76cd65daf74f3ac515bc9a5045e1b3b33edc07d8c9bd55250fa90",
    "three.module.min.js":
        "86bcee248b64f44bcfc23c331ae74619061957d59cab040171dcb6fb5900beb6",
    "OrbitControls.js":
        "faabb4e8dfd9235ee4a9fd7c9a3d75f90f1689dbd4944bd6fd32117dacec5f93",
}
SHAPES = """
<mujoco>
  <asset>
    <mesh name="wedge" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
    <material name="green" rgba="0 1 0 1"/>
    <hfield name="hills" nrow="3" ncol="4" size="2 2 .5 .1" elevation="0 0 0 0 0 1 1 0 0 0 0 0"/>
  </asset>
  <worldbody>
    <geom type="hfield" hfield="hills"/>
    <body pos="0 0 2"><freejoint/>
      <geom type="capsule" size=".1 .3" material="green"/>
      <geom type="mesh" mesh="wedge" rgba="1 0 0 1"/>
      <geom type="box" size=".1 .2 .3" group="3"/>
      <body pos="0 1 0"><joint axis="0 1 0"/><geom type="ellipsoid" size=".1 .2 .3"/></body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def data(run_dir):
    environment = jtrust.describe(Slider(), "Slider", episode_length=30)
    clips = choose_clips(record(jtrust.load_policy(run_dir), environment, 3))
    scene = Scene(look.with_light(Slider().mj_model), 0.1)
    return drawing.page_data(scene, clips, settings_for(".html"), "a heading"), clips


def read_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def floats(text, *shape):
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def test_nothing_comes_from_elsewhere(data):
    page = write_page(data[0], "title")
    imports = json.loads(re.search(r'type="importmap">(.*?)</script>', page, re.S)[1])["imports"]
    scripts = [page, *(
        base64.b64decode(url.removeprefix("data:text/javascript;base64,")).decode()
        for url in imports.values()
    )]
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|img|iframe|script[^>]*\ssrc=)", page)
    for script in scripts:
        script = re.sub(r"/\*.*?\*/", "", script, flags=re.S)
        assert set(re.findall(r"""\bfrom\s*["']([^"']+)["']""", script)) <= set(imports)
        assert not re.search(r"""\bimport\s*\(|importScripts|sendBeacon|WebSocket""", script)


def test_what_is_vendored_is_as_npm_has_it():
    for name, checksum in CHECKSUMS.items():
        assert hashlib.sha256((VIEWER / name).read_bytes()).hexdigest() == checksum, name
    assert "MIT" in (VIEWER / "LICENSE-three.txt").read_text()


def test_names_are_text_and_no_code(data):
    hostile = '</script><script>alert(1)</script><!-- {{viewer}} {{data}}'
    scene = {**data[0], "subtitle": hostile}
    page = write_page(scene, hostile)
    assert "<script>alert" not in page and page.count("</script>") == 3
    assert read_data(page)["subtitle"] == hostile


def test_poses_are_mujocos(data):
    scene, clips = data
    found = read_data(write_page(scene, "title"))
    assert found["bodies"] == ["ball"] and [g["type"] for g in found["geoms"]] == [
        "plane", "sphere"
    ]
    for episode, clip in zip(found["episodes"], clips, strict=True):
        poses = floats(episode["poses"], episode["frames"], 1, 7)
        np.testing.assert_allclose(poses[:, 0, 0], clip.poses["qpos"][:: episode["stride"], 0])
        np.testing.assert_allclose(poses[:, 0, 1:], [[0, 0.3, 1, 0, 0, 0]] * len(poses), atol=1e-7)
        np.testing.assert_allclose(
            floats(episode["series"]["return"], -1), clip.returns[:: episode["stride"]], rtol=1e-6
        )


def test_every_shape_is_there_in_its_own_colour():
    model = mujoco.MjModel.from_xml_string(SHAPES)
    scene, bodies = scene_of(model, None)
    kinds = [(g["type"], g["body"]) for g in scene["geoms"]]
    # The box is of a group that MuJoCo's viewer hides.
    assert kinds == [("mesh", -1), ("capsule", 0), ("mesh", 0), ("ellipsoid", 1)]
    assert scene["geoms"][1]["rgba"] == [0, 1, 0, 1] and scene["geoms"][2]["rgba"] == [1, 0, 0, 1]
    hills, wedge = scene["meshes"]
    assert len(hills["vertices"]) == 12 and len(hills["faces"]) == 2 * 2 * 3
    assert hills["vertices"][:, 2].max() == pytest.approx(0.5) and len(wedge["faces"]) == 4
    qpos = np.array([[0.1, 0.2, 3.0, 0.6, 0.8, 0.0, 0.0, 0.4]])
    data = mujoco.MjData(model)
    data.qpos[:] = qpos[0]
    mujoco.mj_forward(model, data)
    poses = body_poses(model, {"qpos": qpos}, bodies)[0]
    np.testing.assert_allclose(poses[:, :3], data.xpos[1:], rtol=1e-6)
    np.testing.assert_allclose(poses[:, 3:], data.xquat[1:], rtol=1e-6)
