"""What training under limits comes to, beside the best policy by linear programming."""

import pytest

from scripts.learning.cost_optimum import METHODS, PROBLEMS, free_rates, learned, optimum

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("names", PROBLEMS)
@pytest.mark.parametrize("method", METHODS)
def test_training_comes_to_the_best_policy_within_the_limits(method, names):
    best, _ = optimum({c: 0.8 * free_rates()[c] for c in names})
    assert best < 0.97 * optimum({})[0]  # limits bind
    found = learned(method, names)
    assert found.share == pytest.approx(1.0, abs=0.03)
    assert all(cost <= 1.03 for cost in found.costs.values())
