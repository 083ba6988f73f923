"""Running moments against numpy over the whole stream in float64; folding against numpy layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtrust.networks.running_statistics import (
    RunningStatistics,
    fold_input,
    fold_output,
    target_scale,
)


def stream(seed, sizes, features=3, mean=0.0, std=1.0):
    """Batches of uneven sizes, their scale and place drifting from one to the next."""
    rng = np.random.default_rng(seed)
    batches = []
    for i, size in enumerate(sizes):
        x = 0.3 * i + (1 + 0.2 * i) * rng.normal(size=(size, features))
        batches.append((mean + std * x).astype(np.float32))
    return batches


def gather(batches):
    sample = jax.ShapeDtypeStruct(batches[0].shape[1:], jnp.float32)
    moments = RunningStatistics.zero(sample)
    for batch in batches:
        moments = moments.update(jnp.asarray(batch))
    return moments


@pytest.mark.parametrize("sizes", [[7], [1, 1, 1], [1, 100, 3, 40, 1, 256], [500] * 10])
def test_moments_are_those_of_the_whole_stream(sizes):
    batches = stream(0, sizes)
    moments, everything = gather(batches), np.concatenate(batches).astype(np.float64)
    assert float(moments.count) == sum(sizes)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.variance, everything.var(0), rtol=1e-4)


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_moments_survive_a_mean_far_larger_than_the_spread(mean):
    batches = stream(1, [64, 1, 300, 17], mean=mean)
    moments, everything = gather(batches), np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-6)
    # A float32 mean of 1e4 is off by up to 1e-3; its square is what the variance feels.
    np.testing.assert_allclose(moments.variance, everything.var(0), rtol=5e-3)


def test_moments_of_nothing_leave_inputs_as_they_are():
    moments = RunningStatistics.zero(jax.ShapeDtypeStruct((3,), jnp.float32))
    x = jnp.array([1.0, -2.0, 3.0])
    assert float(moments.count) == 0
    np.testing.assert_array_equal(moments.normalize(x), x)


def test_the_first_batch_replaces_the_start():
    batch = stream(2, [5], mean=40.0)[0]
    moments = gather([batch])
    np.testing.assert_allclose(moments.mean, batch.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, batch.var(0), rtol=1e-4)


def test_several_leading_axes_and_a_pytree_count_as_one_batch():
    rng = np.random.default_rng(3)
    batch = {"a": rng.normal(2, 3, (4, 5, 3)), "b": rng.normal(-1, 2, (4, 5))}
    batch = {k: v.astype(np.float32) for k, v in batch.items()}
    sample = {name: jax.ShapeDtypeStruct(x.shape[2:], jnp.float32) for name, x in batch.items()}
    moments = RunningStatistics.zero(sample).update(batch, batch_axes=2)
    assert float(moments.count) == 20
    for name, values in batch.items():
        np.testing.assert_allclose(moments.mean[name], values.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(moments.variance[name], values.var((0, 1)), rtol=1e-5)


def test_shards_that_see_parts_of_a_batch_agree_on_the_moments_of_the_whole():
    first, second = stream(4, [40, 24], mean=5.0)
    start = gather([first])
    shards = jnp.asarray(second).reshape(4, 6, 3)
    moments = jax.vmap(lambda x: start.update(x, axis_name="envs"), axis_name="envs")(shards)
    everything = np.concatenate([first, second]).astype(np.float64)
    np.testing.assert_array_equal(moments.count, np.full(4, 64.0))
    for shard in range(4):
        np.testing.assert_allclose(moments.mean[shard], everything.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments.variance[shard], everything.var(0), rtol=1e-4)


def test_forgetting_weighs_the_past_as_so_many_samples():
    batches = stream(5, [1000, 50])
    moments = gather(batches[:1]).forget(150).update(jnp.asarray(batches[1]))
    first, second = (x.astype(np.float64) for x in batches)
    mean = 0.75 * first.mean(0) + 0.25 * second.mean(0)
    square = 0.75 * (first**2).mean(0) + 0.25 * (second**2).mean(0)
    assert float(moments.count) == 200
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.variance, square - mean**2, rtol=1e-4)


def test_forgetting_changes_nothing_while_there_is_little_to_forget():
    moments = gather(stream(6, [30]))
    assert float(moments.forget(100.0).count) == 30


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_batch_without_finite_moments_is_left_out(bad):
    first, second, third = stream(31, [30, 20, 25])
    second[3, 1] = bad
    moments, expected = gather([first, second, third]), gather([first, third])
    jax.tree.map(np.testing.assert_array_equal, moments, expected)


def test_normalized_inputs_have_mean_zero_and_deviation_one():
    x = stream(7, [2000], mean=7.0, std=3.0)[0]
    moments = gather([x])
    normalized = np.asarray(moments.normalize(jnp.asarray(x).reshape(20, 100, 3))).reshape(-1, 3)
    expected = (x.astype(np.float64) - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-4)


def test_constant_inputs_are_centred_and_not_magnified():
    x = np.full((50, 2), [3.0, -1.0], np.float32)
    moments = gather([x, x[:7]])
    np.testing.assert_allclose(moments.mean, x[0], rtol=1e-6)
    assert (np.asarray(moments.std()) > 0).all()
    np.testing.assert_allclose(moments.normalize(x), np.zeros_like(x), atol=1e-2)
    # A reading that has moved by the least that counts is one deviation away, not thousands.
    least = np.asarray(moments.std())
    np.testing.assert_allclose(moments.normalize(x[0] + least), [1.0, 1.0], rtol=1e-2)


def layer(seed, inputs, outputs):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=(inputs, outputs)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=outputs), jnp.float32),
    }


def apply(weights, x):
    """A dense layer in float64."""
    kernel, bias = (np.asarray(weights[k], np.float64) for k in ("kernel", "bias"))
    return x @ kernel + bias


def on_inputs(weights, moments, x):
    """What a layer makes of x normalised by `moments`, in float64; spreads under 1e-3 count so."""
    mean, variance = (np.asarray(m, np.float64) for m in (moments.mean, moments.variance))
    return apply(weights, (x - mean) / np.maximum(np.sqrt(variance), 1e-3))


def on_outputs(weights, moments, x):
    """What a layer says on the targets' own scale, in float64."""
    mean, variance = float(moments.mean), float(moments.variance)
    return mean + np.sqrt(variance) * apply(weights, x)


def input_statistics(seed, count=3):
    batches = stream(seed, [40] * count, mean=2.0, std=1.5)
    return [gather(batches[: i + 1]) for i in range(count)]


def target_statistics(seed, count=3):
    batches = [x[:, 0] for x in stream(seed, [40] * count, features=1, mean=-30.0, std=12.0)]
    return [gather(batches[: i + 1]) for i in range(count)]


def test_fold_input_leaves_the_layers_output_as_it_was():
    old, new = input_statistics(8, 2)
    weights, x = layer(9, 3, 5), np.random.default_rng(10).normal(2, 2, (20, 3))
    folded = fold_input(weights, old, new)
    before = on_inputs(weights, old, x)
    assert np.abs(on_inputs(weights, new, x) - before).max() > 0.1
    np.testing.assert_allclose(on_inputs(folded, new, x), before, rtol=1e-5, atol=1e-5)


def test_fold_input_from_the_start_takes_up_the_first_statistics():
    old = RunningStatistics.zero(jax.ShapeDtypeStruct((3,), jnp.float32))
    new = input_statistics(8, 1)[0]
    weights, x = layer(9, 3, 5), np.random.default_rng(10).normal(2, 2, (20, 3))
    folded = fold_input(weights, old, new)
    np.testing.assert_allclose(on_inputs(folded, new, x), apply(weights, x), rtol=1e-5, atol=1e-5)


def test_fold_output_leaves_the_output_on_the_targets_scale_as_it_was():
    old, new = target_statistics(11, 2)
    weights, x = layer(12, 5, 1), np.random.default_rng(13).normal(size=(20, 5))
    folded = fold_output(weights, old, new)
    before = on_outputs(weights, old, x)
    assert np.abs(on_outputs(weights, new, x) - before).max() > 0.1
    np.testing.assert_allclose(on_outputs(folded, new, x), before, rtol=1e-5, atol=1e-4)


def test_several_folds_in_a_row_leave_the_outputs_as_they_were():
    inputs, targets = input_statistics(14, 12), target_statistics(15, 12)
    first, last = layer(16, 3, 5), layer(17, 5, 1)
    x, hidden = np.random.default_rng(18).normal(2, 2, (20, 3)), stream(19, [20], features=5)[0]
    before = on_inputs(first, inputs[0], x), on_outputs(last, targets[0], hidden)
    for k in range(11):
        first = fold_input(first, inputs[k], inputs[k + 1])
        last = fold_output(last, targets[k], targets[k + 1])
    np.testing.assert_allclose(on_inputs(first, inputs[-1], x), before[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        on_outputs(last, targets[-1], hidden), before[1], rtol=1e-4, atol=1e-3
    )


def test_fold_input_with_an_input_that_never_moved_and_then_does():
    still = np.full((40, 3), [1.0, 5.0, -2.0], np.float32)
    still[:, 0] += np.random.default_rng(20).normal(size=40).astype(np.float32)
    moving = stream(21, [40], mean=1.0)[0]
    old, new = gather([still]), gather([still, moving])
    weights = layer(22, 3, 4)
    folded = fold_input(weights, old, new)
    before, after = on_inputs(weights, old, moving), on_inputs(folded, new, moving)
    assert np.isfinite(folded["kernel"]).all() and np.isfinite(folded["bias"]).all()
    # Outputs reach thousands here: a still input's spread counts as 1e-3.
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_folding_unchanged_statistics_changes_nothing():
    inputs, targets = input_statistics(23, 1)[0], target_statistics(24, 1)[0]
    first, last = layer(25, 3, 5), layer(26, 5, 1)
    for weights, folded in [
        (first, fold_input(first, inputs, inputs)), (last, fold_output(last, targets, targets))
    ]:
        np.testing.assert_allclose(folded["kernel"], weights["kernel"], rtol=1e-6)
        np.testing.assert_allclose(folded["bias"], weights["bias"], rtol=1e-5, atol=1e-5)


def test_target_scale_is_the_mean_and_deviation_of_the_targets():
    targets = np.random.default_rng(27).normal(-30, 12, 500).astype(np.float32)
    mean, std = target_scale(gather([targets]))
    assert mean.shape == std.shape == ()
    np.testing.assert_allclose([mean, std], [targets.mean(), targets.std()], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 4.0, -300.0])
def test_constant_targets_have_a_small_scale_above_zero(value):
    mean, std = target_scale(gather([np.full(30, value, np.float32)]))
    assert float(mean) == pytest.approx(value)
    assert 0 < float(std) <= 0.01 * max(abs(value), 1.0)
    # Float32 must be able to tell values apart that differ by this scale.
    assert float(std) > 100 * np.finfo(np.float32).eps * abs(value)


def test_fold_output_from_constant_targets_to_moving_ones():
    still = np.full(40, 4.0, np.float32)
    moving = np.random.default_rng(28).normal(6, 3, 40).astype(np.float32)
    old, new = gather([still]), gather([still, moving])
    weights, x = layer(29, 5, 1), np.random.default_rng(30).normal(size=(20, 5))
    outputs = []
    for moments, used in [(old, weights), (new, fold_output(weights, old, new))]:
        mean, std = (float(s) for s in target_scale(moments))
        outputs.append(mean + std * apply(used, x))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int8, jnp.uint8, jnp.bool_])
def test_statistics_are_float32_whatever_comes(dtype):
    """Squares of float16 overflow beyond 256, those of int8 at once."""
    high = {jnp.float16: 3000, jnp.bfloat16: 3000, jnp.int8: 120, jnp.uint8: 250, jnp.bool_: 2}
    x = jnp.asarray(np.random.default_rng(0).integers(0, high[dtype], (500, 3)), dtype)
    moments = gather([x[:200], x[200:]])
    wide = np.asarray(x, np.float64)
    assert moments.count == 500 and moments.variance.dtype == jnp.float32
    np.testing.assert_allclose(moments.mean, wide.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, wide.var(0), rtol=1e-3)
    normalized = moments.normalize(x)
    assert normalized.dtype == jnp.float32
    np.testing.assert_allclose(normalized.mean(0), np.zeros(3), atol=1e-3)
