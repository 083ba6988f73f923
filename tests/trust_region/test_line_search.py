"""The backtracking line search against acceptance rules whose outcome can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtrust.trust_region import backtracking_line_search

NONE = {"kl": jnp.float32(0.0), "gain": jnp.float32(-1.0)}


def below(limit):
    """Accepts scales up to `limit`, and reports numbers that depend on the scale."""

    def accept(scale):
        return scale <= limit, {"kl": scale**2, "gain": 3.0 * scale}

    return accept


@pytest.mark.parametrize(
    ("limit", "trial"), [(2.0, 0), (1.0, 0), (0.9, 1), (0.5, 1), (0.3, 2), (0.0626, 4)]
)
def test_it_takes_the_first_acceptable_scale(limit, trial):
    result = backtracking_line_search(below(limit), NONE, factor=0.5, max_trials=8)
    assert bool(result.accepted)
    assert float(result.scale) == 0.5**trial
    assert int(result.trials) == trial + 1
    assert float(result.aux["kl"]) == 0.25**trial
    assert float(result.aux["gain"]) == 3.0 * 0.5**trial


def test_it_takes_the_first_and_not_the_best_or_the_last():
    def accept(scale):
        return (scale == 0.5) | (scale == 0.125), {"kl": scale, "gain": -scale}

    result = backtracking_line_search(accept, NONE, factor=0.5, max_trials=8)
    assert (float(result.scale), int(result.trials)) == (0.5, 2)


@pytest.mark.parametrize("factor", [0.8, 0.3])
def test_the_scales_are_powers_of_the_factor(factor):
    for trial in range(6):
        limit = factor**trial * 1.001
        result = backtracking_line_search(below(limit), NONE, factor=factor, max_trials=10)
        assert float(result.scale) == pytest.approx(factor**trial, rel=1e-6)


@pytest.mark.parametrize("max_trials", [1, 2, 7])
def test_where_every_trial_is_refused_it_stays_where_it_was(max_trials):
    result = backtracking_line_search(below(-1.0), NONE, max_trials=max_trials)
    assert not bool(result.accepted)
    assert float(result.scale) == 0.0
    assert int(result.trials) == max_trials
    assert {k: float(v) for k, v in result.aux.items()} == {"kl": 0.0, "gain": -1.0}


def test_the_last_trial_allowed_may_be_accepted_and_the_one_after_is_not_reached():
    limit = 0.125
    reached = backtracking_line_search(below(limit), NONE, factor=0.5, max_trials=4)
    missed = backtracking_line_search(below(limit), NONE, factor=0.5, max_trials=3)
    assert (float(reached.scale), int(reached.trials)) == (0.125, 4)
    assert (float(missed.scale), int(missed.trials), bool(missed.accepted)) == (0.0, 3, False)


def test_it_evaluates_as_many_scales_as_it_reports():
    evaluated = []

    def accept(scale):
        jax.debug.callback(lambda s: evaluated.append(float(s)), scale)
        return below(0.3)(scale)

    result = backtracking_line_search(accept, NONE, factor=0.5, max_trials=8)
    jax.effects_barrier()
    assert sorted(evaluated, reverse=True) == [1.0, 0.5, 0.25]
    assert int(result.trials) == 3


def test_a_measure_that_is_nan_is_refused():
    def accept(scale):
        kl = jnp.where(scale > 0.4, jnp.nan, scale)
        return kl <= 10.0, {"kl": kl, "gain": scale}

    result = backtracking_line_search(accept, NONE, factor=0.5, max_trials=8)
    assert (float(result.scale), int(result.trials)) == (0.25, 3)
    assert float(result.aux["kl"]) == 0.25


def test_nan_at_every_trial_leaves_no_nan_behind():
    def accept(scale):
        return jnp.nan * scale <= 10.0, {"kl": jnp.nan * scale, "gain": jnp.inf * scale}

    result = backtracking_line_search(accept, NONE, max_trials=5)
    assert (float(result.scale), bool(result.accepted), int(result.trials)) == (0.0, False, 5)
    assert {k: float(v) for k, v in result.aux.items()} == {"kl": 0.0, "gain": -1.0}


def search(limit):
    return backtracking_line_search(below(limit), NONE, factor=0.5, max_trials=4)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("limit", [1.0, 0.3, 0.0])
def test_it_is_the_same_under_jit(limit):
    assert_same(jax.jit(search)(limit), search(limit))


def test_under_vmap_each_search_ends_on_its_own():
    limits = [2.0, 0.3, 0.0, 0.6, -1.0]
    alone = [search(limit) for limit in limits]
    together = jax.vmap(search)(jnp.array(limits))
    np.testing.assert_array_equal(together.scale, [1.0, 0.25, 0.0, 0.5, 0.0])
    np.testing.assert_array_equal(together.trials, [1, 3, 4, 2, 4])
    assert_same(together, jax.tree.map(lambda *x: jnp.stack(x), *alone))
