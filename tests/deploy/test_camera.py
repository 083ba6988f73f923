"""From where pictures are taken."""

import mujoco
import numpy as np
import pytest

from jtrust.deploy.camera import find_bounds, lowest_floor, shots
from tests.deploy.slider import XML, Slider

TRACKING = XML.replace('<joint type', '<camera name="t" mode="trackcom" pos="0 -3 0"/><joint type')


def of(model, positions, wanted=None):
    bounds = find_bounds(model, {"qpos": np.array(positions)[:, None]})
    return bounds, shots(model, bounds, 0.1, wanted)


@pytest.mark.parametrize(("way", "name"), [(0.5, "side"), (9.0, "t")])
def test_what_stays_is_seen_from_where_it_is_and_what_goes_is_followed(way, name):
    model = mujoco.MjModel.from_xml_string(TRACKING)
    bounds, cameras = of(model, np.linspace(0, way, 7))
    assert bounds.travels == (way > 1) and len(cameras) == 7
    assert {camera["id"] for camera in cameras} == {model.camera(name).id}


def test_a_free_camera_goes_along_without_the_jolts():
    path = np.linspace(0, 9, 91) + 0.05 * (-1.0) ** np.arange(91)
    bounds, cameras = of(Slider().mj_model, path)
    seen = np.array([camera["lookat"] for camera in cameras])
    np.testing.assert_allclose(seen[10:-10, 0], np.linspace(0, 9, 91)[10:-10], atol=0.01)
    assert bounds.radius == pytest.approx(0.25) and cameras[0]["distance"] > 2 * bounds.radius


def test_a_floor_is_added_below_all_where_there_is_none():
    bare = mujoco.MjModel.from_xml_string(XML.replace('type="plane"', 'type="box"'))
    bounds, _ = of(bare, [0.0, 0.1])
    assert bounds.low[2] - 0.1 < lowest_floor(bare, bounds) < bounds.low[2] == pytest.approx(0.05)
    assert lowest_floor(Slider().mj_model, bounds) is None
