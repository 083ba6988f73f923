"""Policies with memory as files: what is remembered goes in and comes out."""

import jax
import numpy as np
import pytest

from jtrust.checks import BadArgument
from jtrust.deploy import brax_format, onnx_format, stablehlo_format
from jtrust.deploy.acting import Acting
from jtrust.deploy.alone import check_alone
from jtrust.deploy.parity import ExportFailed, compare
from jtrust.environments.base import Bins, Box, Discrete
from jtrust.networks import NetworkConfig
from tests.deploy.policies import make_policy


def made(memory, action=None, stochastic=False):
    config = NetworkConfig((16, 8), memory=memory, memory_size=12)
    return Acting.of(make_policy(action, config), stochastic)


def in_a_loop(acting, step, steps=40, batch=3):
    """Actions of the file and of the policy over an episode, each remembering for itself."""
    policy, draw = acting.policy, np.random.default_rng(0)
    mean, std = np.asarray(policy.statistics.mean), np.asarray(policy.statistics.std())
    ours = policy.initial_carry((batch,))
    theirs = [np.zeros((batch, *x.shape), x.dtype) for x in acting.inputs[1:]]
    for _ in range(steps):
        observation = (mean + std * draw.standard_normal((batch, mean.size))).astype("f")
        action, ours = policy.act(ours, observation)
        said = step(observation, *theirs)
        theirs = said[-len(theirs):]
        yield np.asarray(action), said[0]


@pytest.mark.parametrize(("memory", "action", "stochastic", "carries"), [
    ("gru", Box(3), True, [12]), ("lstm", Discrete(4), False, [12, 12]),
    ("s5", Bins(2, 5), False, [6, 6]),
])
def test_onnx_remembers_as_the_policy_does(tmp_path, memory, action, stochastic, carries):
    acting = made(memory, action, stochastic)
    check_alone(acting)
    onnx_format.write(tmp_path / "p.onnx", acting, {})
    runtime = onnx_format.Runtime(tmp_path / "p.onnx")
    found = compare(acting, runtime.batches, runtime.name)
    assert found.largest_difference < 1e-5
    # Beside the cell's, the observation before, and whether there is one.
    carries = [*carries, *acting.inputs[0].shape, 1]
    names = [x.name for x in acting.inputs]
    assert names == ["observations"] + ["noise"] * stochastic + [
        f"carry_{i}" for i in range(len(carries))
    ]
    assert [x.shape for x in acting.inputs[1 + stochastic:]] == [(size,) for size in carries]
    assert [x.name for x in acting.outputs][-len(carries):] == [
        f"next_carry_{i}" for i in range(len(carries))
    ]
    if not stochastic:
        for mine, theirs in in_a_loop(acting, runtime):
            np.testing.assert_allclose(theirs, mine, atol=1e-4)


def test_a_file_that_forgets_is_found_out(tmp_path):
    acting = made("gru")
    onnx_format.write(tmp_path / "p.onnx", acting, {})
    runtime = onnx_format.Runtime(tmp_path / "p.onnx")

    def forgetful(batches):
        return runtime.batches([(x, *map(np.zeros_like, carry)) for x, *carry in batches])

    with pytest.raises(ExportFailed, match="does not act as the policy does"):
        compare(acting, forgetful, "forgetful")

    def stale(batches):
        return [[y[0], *x[1:]] for x, y in zip(batches, runtime.batches(batches), strict=True)]

    with pytest.raises(ExportFailed):
        compare(acting, stale, "stale")


@pytest.mark.slow
def test_stablehlo_remembers_too(tmp_path):
    acting = made("lstm")
    stablehlo_format.write(tmp_path / "p.stablehlo", acting)
    runtime = stablehlo_format.Runtime(tmp_path / "p.stablehlo")
    assert compare(acting, runtime.batches, runtime.name).largest_difference < 1e-5
    stored = jax.export.deserialize(bytearray((tmp_path / "p.stablehlo").read_bytes()))
    for mine, theirs in in_a_loop(acting, lambda *x: stored.call(*x), steps=5):
        np.testing.assert_allclose(theirs, mine, atol=1e-4)


def test_brax_has_no_memory():
    with pytest.raises(BadArgument) as error:
        brax_format.refuse_unlike(made("gru").policy)
    assert "has a memory" in str(error.value) and "take onnx or stablehlo" in str(error.value)
