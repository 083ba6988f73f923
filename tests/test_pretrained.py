"""Policies that ship: each returns what its card says."""

import importlib.util
import json
from pathlib import Path

import pytest

import jtrust

pytestmark = pytest.mark.slow

PLACE = Path(__file__).resolve().parents[1] / "checkpoints" / "pretrained"
CARDS = sorted(PLACE.glob("*/card.json"))
# gymnax has no release for the newest JAX, so the tests of newer Pythons do without.
HERE = [p for p in CARDS if p.parent.name != "CartPole" or importlib.util.find_spec("gymnax")]
EPISODES = 32
# Of each suite the one that is soonest there; the others at night.
EVERY_TIME = ("CartPole", "PendulumSwingup", "inverted_pendulum")


def test_there_are_six_and_they_are_small():
    assert len(CARDS) >= 6
    for path in CARDS:
        size = sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file())
        assert size < 500_000, path.parent.name


@pytest.mark.parametrize("path", [
    pytest.param(
        p, id=p.parent.name, marks=[pytest.mark.nightly] * (p.parent.name not in EVERY_TIME)
    ) for p in HERE
])
def test_a_policy_returns_what_its_card_says(path):
    card = json.loads(path.read_text())
    found = jtrust.evaluate(path.parent, episodes=EPISODES, seed=1)
    assert (found["env"], found["step"]) == (card["env"], card["step"])
    # Two samples of episodes: four standard errors of their difference, and a hundredth.
    error = card["return_std"] * (1 / card["episodes"] + 1 / EPISODES) ** 0.5
    assert found["return_mean"] == pytest.approx(
        card["return_mean"], abs=4 * error + 0.01 * abs(card["return_mean"])
    )
