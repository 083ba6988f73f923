"""A run of the slider; and files that need what is not on every machine are left out without it."""

import shutil

import pytest

import jtrust
from jtrust.deploy.pictures import NothingDraws, open_painter
from tests.deploy.slider import Slider

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
    "google-chrome"
)


def _draws() -> bool:
    try:
        open_painter(Slider().mj_model, 64, 64).close()
    except NothingDraws:
        return False
    return True


collect_ignore = ["test_render_browser.py"] * (not CHROMIUM) + ["test_pictures.py"] * (not _draws())


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """Two checkpoints, at steps 64 and 128."""
    path = tmp_path_factory.mktemp("render") / "run"
    env = jtrust.make_env("tests.deploy.slider:make", episode_length=30)
    jtrust.train(
        env, total_steps=128, run_dir=path, checkpoint_every=1, num_envs=8, unroll_length=8,
        devices=1, network=jtrust.NetworkConfig(policy_layers=(8,), value_layers=(8,)),
    )
    return path
