"""The policies under checkpoints/pretrained/ return what their cards say."""

import json
import math
from pathlib import Path

import pytest

import jtrust

PLACE = Path(__file__).resolve().parents[1] / "checkpoints" / "pretrained"
NAMES = sorted(path.parent.name for path in PLACE.glob("*/card.json"))
EPISODES = 32


def test_there_are_six():
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_policy_returns_what_its_card_says(name):
    card = json.loads((PLACE / name / "card.json").read_text())
    found = jtrust.evaluate(PLACE / name, episodes=EPISODES, seed=1)
    # Other episodes than the card's: as far apart as two means of that many may well be, and
    # a hundredth for policies that return always the same.
    error = card["return_std"] * math.sqrt(1 / card["episodes"] + 1 / EPISODES)
    assert abs(found["return_mean"] - card["return_mean"]) <= (
        4 * error + 0.01 * abs(card["return_mean"])
    )
    assert (found["env"], found["step"]) == (card["env"], card["step"])
    assert sum(p.stat().st_size for p in (PLACE / name).rglob("*")) < 500_000
