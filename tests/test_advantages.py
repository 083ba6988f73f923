"""Advantages against the definition Σ_k (γλ)^k δ_{t+k}, summed by loops over numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jtrust.advantages import gae


def window(seed, steps, environments, termination=0.15, truncation=0.15):
    """Rewards, values, next values, terminations, ends: a rollout of several episodes."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, steps, environments))
    terminations = rng.random((steps, environments)) < termination
    ends = terminations | (rng.random((steps, environments)) < truncation)
    # Inside an episode the next state's value is that of the state which follows.
    inside = ~ends[:-1]
    next_values[:-1][inside] = values[1:][inside]
    return rewards, values, next_values, terminations, ends


def by_definition(rewards, values, next_values, terminations, ends, discount, gae_lambda):
    steps, environments = rewards.shape
    advantages = np.zeros((steps, environments))
    for t in range(steps):
        for n in range(environments):
            for k in range(steps - t):
                s = t + k
                bootstrap = 0.0 if terminations[s, n] else discount * next_values[s, n]
                delta = rewards[s, n] + bootstrap - values[s, n]
                advantages[t, n] += (discount * gae_lambda) ** k * delta
                if ends[s, n]:
                    break
    return advantages


def gae64(*arguments):
    with jax.enable_x64(True):
        arrays, numbers = arguments[:5], arguments[5:]
        results = jax.jit(gae)(*(jnp.asarray(a) for a in arrays), *numbers)
        return tuple(np.asarray(x) for x in results)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_gae_is_the_sum_of_its_definition(discount, gae_lambda):
    data = window(0, 30, 6)
    assert data[4].sum(axis=0).max() > 2 and (data[4] & ~data[3]).any() and data[3].any()
    advantages, targets = gae64(*data, discount, gae_lambda)
    expected = by_definition(*data, discount, gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(targets, expected + data[1], rtol=1e-12, atol=1e-12)


@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32 - 1),
    st.floats(0, 1), st.floats(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_gae_is_the_sum_of_its_definition_for_any_shape(
    steps, environments, seed, discount, gae_lambda
):
    data = window(seed, steps, environments, 0.3, 0.3)
    advantages, targets = gae64(*data, discount, gae_lambda)
    expected = by_definition(*data, discount, gae_lambda)
    assert advantages.shape == targets.shape == (steps, environments)
    np.testing.assert_allclose(advantages, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(targets, expected + data[1], rtol=1e-9, atol=1e-9)


def column(*values, dtype=jnp.float32):
    return jnp.array(values, dtype)[:, None]


def test_one_terminal_step():
    advantages, targets = gae(
        column(3.0), column(1.0), column(100.0), column(True, dtype=bool),
        column(True, dtype=bool), 0.5, 0.5,
    )
    np.testing.assert_allclose(advantages, [[3.0 - 1.0]])
    np.testing.assert_allclose(targets, [[3.0]])


def test_one_truncated_step():
    advantages, targets = gae(
        column(3.0), column(1.0), column(100.0), column(False, dtype=bool),
        column(True, dtype=bool), 0.5, 0.5,
    )
    np.testing.assert_allclose(advantages, [[3.0 + 0.5 * 100.0 - 1.0]])
    np.testing.assert_allclose(targets, [[53.0]])


def test_two_episodes_in_three_steps():
    # δ = 1 + 0.5·4 - 2 = 1; 2 + 0.5·6 - 4 = 1, truncated; 3 + 0.5·8 - 5 = 2, cut by the window.
    advantages, targets = gae(
        column(1.0, 2.0, 3.0), column(2.0, 4.0, 5.0), column(4.0, 6.0, 8.0),
        column(0, 0, 0, dtype=bool), column(0, 1, 0, dtype=bool), 0.5, 0.5,
    )
    np.testing.assert_allclose(advantages, [[1.25], [1.0], [2.0]])
    np.testing.assert_allclose(targets, [[3.25], [5.0], [7.0]])


def test_lambda_one_is_the_discounted_return_minus_the_value():
    rewards, values, next_values, terminations, ends = data = window(1, 25, 5)
    returns = np.zeros_like(rewards)
    for n in range(5):
        for t in range(25):
            last = next((s for s in range(t, 25) if ends[s, n]), 24)
            powers = 0.9 ** np.arange(last - t + 1)
            returns[t, n] = powers @ rewards[t : last + 1, n]
            if not terminations[last, n]:
                returns[t, n] += 0.9 ** (last - t + 1) * next_values[last, n]
    advantages, targets = gae64(*data, 0.9, 1.0)
    np.testing.assert_allclose(advantages, returns - values, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(targets, returns, rtol=1e-10, atol=1e-10)


def test_lambda_zero_is_the_one_step_error():
    rewards, values, next_values, terminations, _ = data = window(2, 25, 5)
    advantages, _ = gae64(*data, 0.9, 0.0)
    expected = rewards + 0.9 * np.where(terminations, 0, next_values) - values
    np.testing.assert_allclose(advantages, expected, rtol=1e-12, atol=1e-12)


def test_a_truncation_bootstraps_and_a_termination_does_not():
    rewards, values, next_values, _, _ = window(3, 4, 2, 0, 0)
    terminations, ends = np.zeros((2, 4, 2), bool)
    ends[2] = True
    terminations[2, 0] = True
    advantages, _ = gae64(rewards, values, next_values, terminations, ends, 0.9, 0.8)
    moved, _ = gae64(rewards, values, next_values + 1.0, terminations, ends, 0.9, 0.8)
    np.testing.assert_allclose((moved - advantages)[2], [0.0, 0.9], atol=1e-12)


def test_nothing_crosses_the_end_of_an_episode():
    rewards, values, next_values, terminations, ends = window(4, 10, 3, 0, 0)
    ends[4] = True
    before = gae64(rewards, values, next_values, terminations, ends, 0.9, 0.8)[0]
    rewards[5:] += 10.0
    after = gae64(rewards, values, next_values, terminations, ends, 0.9, 0.8)[0]
    np.testing.assert_array_equal(before[:5], after[:5])
    assert (before[5:] != after[5:]).all()


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e30])
def test_the_value_behind_a_termination_is_not_read(rubbish):
    rewards, values, next_values, terminations, ends = data = window(5, 20, 4)
    expected = by_definition(*data, 0.9, 0.8)
    spoilt = np.where(terminations, rubbish, next_values)
    advantages, targets = gae64(rewards, values, spoilt, terminations, ends, 0.9, 0.8)
    assert terminations.any()
    np.testing.assert_allclose(advantages, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(targets, expected + values, rtol=1e-12, atol=1e-12)


def test_flags_may_be_zeros_and_ones():
    *numbers, terminations, ends = window(6, 12, 3)
    flags = terminations.astype(np.float32), ends.astype(np.float32)
    expected = gae64(*numbers, terminations, ends, 0.9, 0.8)
    np.testing.assert_array_equal(gae64(*numbers, *flags, 0.9, 0.8), expected)


def test_float32_under_jit_agrees_with_the_definition():
    data = window(7, 30, 4)
    arrays = [jnp.asarray(a, jnp.float32) for a in data[:3]]
    advantages, _ = jax.jit(gae)(*arrays, *data[3:], 0.99, 0.95)
    assert advantages.dtype == jnp.float32
    np.testing.assert_allclose(advantages, by_definition(*data, 0.99, 0.95), rtol=1e-4, atol=1e-5)


def test_shapes_that_differ_are_refused():
    rewards, values, next_values, terminations, ends = window(8, 5, 2)
    with pytest.raises(AssertionError):
        gae(rewards, values[:-1], next_values, terminations, ends, 0.9, 0.9)
