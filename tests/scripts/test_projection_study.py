"""What studies keep of limits in every state, and the table that is made of it."""

import pytest

from scripts.learning import projection_study, worker


def row(step, **others):
    return {
        "step": step, "time/seconds": 0.1 * step, "policy/kl": 0.01, "policy/kl_max": 0.03,
        "policy/accepted": 1.0, "policy/step_scale": 0.5, "episode/return": None, **others,
    }


def test_of_each_stretch_the_largest_share_of_any_limit_is_kept():
    limits = {"policy/kl_max_limit": 0.05, "policy/cov_constraint_max": 0.0009,
              "policy/cov_constraint_limit": 0.001}
    rows = [row(1, **limits), row(2, **limits | {"policy/kl_max": 0.049}),
            row(3, **limits | {"policy/kl_max_limit": 0.0, "policy/kl_max": 0.0})]
    found = worker.thinned(rows)
    assert found["of_limit"] == [pytest.approx(0.9), pytest.approx(0.98), pytest.approx(0.9)]
    assert found["largest_kl_max"] == [0.03, 0.049, 0.0]
    assert "of_limit" not in worker.thinned([row(1), row(2)])  # an algorithm without such limits


def test_the_table_of_limits_is_over_all_updates_of_all_seeds():
    train = {"step": [4096, 8192], "kl": [0.01, 0.02], "accepted": [1.0, 0.5],
             "step_scale": [1.0, 0.5], "largest_kl_max": [0.03, 0.04]}
    runs = [{"train": train | {"of_limit": [0.5, 0.75]}}, {"train": train | {"of_limit": [1.0, 0]}}]
    lines = projection_study.limits({"hopper": {"trpl": runs}}, {"hopper": {"ppo": [
        {"train": train}
    ]}})
    assert lines[2] == "| hopper | trpl | 4 | 0.04 | 0.015 | 1.000000 | 0.75 | 25.0 % |"
    assert lines[3] == "| hopper | ppo | 2 | 0.04 | 0.015 | - | 0.75 | 25.0 % |"
