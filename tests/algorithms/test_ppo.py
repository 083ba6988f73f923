"""PPO follows the divergence of its updates, by its learning rate or by its penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust


def test_judging_leaves_a_band_around_the_target():
    algorithm = jtrust.PPO(target_kl=0.02)
    kl = jnp.asarray([0.0, 0.0133, 0.0134, 0.0299, 0.0301])
    too_far, too_short = algorithm.judge(kl)
    assert too_short.tolist() == [True, True, False, False, False]
    assert too_far.tolist() == [False, False, False, False, True]
    too_far, too_short = algorithm.judge(kl, drawn_back=True)
    assert all(too_far) and not any(too_short)


@pytest.mark.parametrize(("learning_rate", "target"), [(5e-5, 0.01), (0.003, 0.001)])
def test_a_learning_rate_far_off_comes_towards_where_updates_move_by_the_target(
    point, learning_rate, target
):
    def run(adaptive):
        algorithm = jtrust.PPO(
            learning_rate=learning_rate, target_kl=target, adaptive=adaptive, advantage_floor=0.0
        )
        trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
        metrics = jax.jit(lambda s: jax.lax.scan(
            lambda s, _: trainer.iterate(s), s, length=60
        ))(trainer.init(jax.random.key(0)))[1]
        off = np.abs(np.log(np.maximum(metrics["policy/kl"][-20:], 1e-6) / target))
        return np.asarray(metrics["policy/learning_rate"]), np.median(off)

    rate, off = run(adaptive=True)
    fixed_rate, fixed_off = run(adaptive=False)
    assert rate[0] == fixed_rate[0] == pytest.approx(learning_rate)
    assert np.ptp(fixed_rate) == 0 and off < 0.8 * fixed_off
    change = np.log(rate[-1] / learning_rate)
    assert change > 1 if learning_rate < 1e-3 else change < -1


def test_a_learning_rate_stays_within_ten_times_what_was_given():
    algorithm = jtrust.PPO()
    state = algorithm.init({"w": jnp.zeros(3)})
    for far, short, wanted in ((True, False, 0.1), (False, True, 10.0)):
        for _ in range(60):
            state = algorithm.adapt(state, jnp.bool_(far), jnp.bool_(short))
        assert state.rate_scale == pytest.approx(wanted)
