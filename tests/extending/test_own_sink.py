"""A sink of a user's own: told of every iteration, given policies, and obeyed when it stops."""

import json

import jax
import numpy as np
import pytest

import jtrust

SMALL = dict(num_envs=16, unroll_length=8, devices=1)
STEPS = 16 * 8
X = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)


class Keeps(jtrust.Sink):
    """Keeps rows, and what every second policy does; stops behind an iteration."""

    def __init__(self, stop_at=None):
        self.stop_at, self.rows, self.actions, self.ended, self.closed = stop_at, [], {}, None, 0

    def wants_policy(self, iteration):
        return iteration % 2 == 0

    def on_iteration(self, info):
        self.rows.append(dict(info.row))
        if self.wants_policy(info.iteration):
            self.actions[info.step] = np.asarray(info.policy()(X))
        if info.iteration == self.stop_at:
            info.stop()

    def on_end(self, info):
        self.ended = (info.iteration, np.asarray(info.policy()(X)))

    def close(self):
        self.closed += 1


def test_it_is_told_of_what_is_kept_and_changes_nothing(tmp_path, point):
    sink, seen = Keeps(), []
    told = jtrust.train(
        point, total_steps=6 * STEPS, run_dir=tmp_path / "r", checkpoint_every=1,
        sinks=[sink, lambda info: seen.append(info.iteration)], **SMALL,
    )
    alone = jtrust.train(point, total_steps=6 * STEPS, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, told.state.policy, alone.state.policy)
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == sink.rows
    assert seen == [1, 2, 3, 4, 5, 6] and sink.closed == 1
    # The policies that it saw are those of the checkpoints.
    assert list(sink.actions) == [2 * STEPS, 4 * STEPS, 6 * STEPS]
    for step, actions in sink.actions.items():
        np.testing.assert_array_equal(actions, jtrust.load_policy(tmp_path / "r", step)(X))
    assert sink.ended[0] == 6
    np.testing.assert_array_equal(sink.ended[1], told.policy(X))


def test_a_stop_rule_ends_a_run_that_can_go_on(tmp_path, point):
    sink = Keeps(stop_at=3)
    stopped = jtrust.train(
        point, total_steps=50 * STEPS, run_dir=tmp_path / "r", sinks=[sink], **SMALL
    )
    done = len(sink.rows)
    assert 3 <= done <= 6 and stopped.stopped_by is None  # what was under way is not lost
    assert stopped.metrics["iteration"][-1] == done
    whole = jtrust.train(point, total_steps=10 * STEPS, **SMALL)
    later = Keeps()
    resumed = jtrust.resume(
        tmp_path / "r", 10 * STEPS, env=point, devices=1, sinks=[later]
    )
    jax.tree.map(np.testing.assert_array_equal, whole.state.policy, resumed.state.policy)
    assert [row["iteration"] for row in later.rows] == list(range(done + 1, 11))


def test_policies_that_nobody_asked_for_in_time_are_gone(point):
    def late(info):
        with pytest.raises(RuntimeError, match="wants_policy"):
            info.policy()

    jtrust.train(point, total_steps=2 * STEPS, sinks=[late], **SMALL)


def test_a_sink_that_fails_ends_the_run_with_all_closed(tmp_path, point):
    class Fails(Keeps):
        def on_iteration(self, info):
            raise ZeroDivisionError("mine")

    sink = Fails()
    with pytest.raises(ZeroDivisionError, match="mine"):
        jtrust.train(point, total_steps=9 * STEPS, run_dir=tmp_path / "r", sinks=[sink], **SMALL)
    assert sink.closed == 1
    resumed = jtrust.resume(tmp_path / "r", env=point, devices=1)  # unlocked, and can go on
    assert resumed.metrics["iteration"][-1] == 9


def test_what_is_no_sink_is_refused(point):
    with pytest.raises(jtrust.BadArgument, match=r"must be of jtrust\.Sink") as caught:
        jtrust.train(point, total_steps=STEPS, sinks=["tensorboard"], **SMALL)
    assert caught.value.name == "sinks"


def test_a_policy_of_any_training_state(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), **SMALL)
    state, _ = trainer.iterate(trainer.init(jax.random.key(0)))
    policy = trainer.policy_of(state)
    assert isinstance(policy, jtrust.Policy)
    expected = trainer.policy(state.policy, state.observation_statistics, X).mode()
    np.testing.assert_allclose(policy(X), np.clip(expected, -1, 1), rtol=1e-6)
