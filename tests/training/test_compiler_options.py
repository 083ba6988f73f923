"""Options and flags for XLA: a GPU's programs repeat from process to process."""

import types

import jax
import numpy as np
import pytest

import jtrust
from jtrust.training.mesh import compiler_options, doubtful_flags, make_mesh
from tests.conftest import Point


def mesh_of(platform):
    return types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))


@pytest.fixture
def flags(monkeypatch):
    jax.devices()  # JAX has read its own by now
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    return lambda value: monkeypatch.setenv("XLA_FLAGS", value)


def test_a_gpu_has_no_products_of_matrices_timed(flags):
    assert compiler_options(mesh_of("gpu")) == {"xla_gpu_autotune_level": 0}
    assert compiler_options(mesh_of("tpu")) == compiler_options(make_mesh(1, 1)) == {}
    flags("--xla_gpu_autotune_level=4")
    assert compiler_options(mesh_of("gpu")) == {}


def test_xla_knows_the_option():
    options = compiler_options(mesh_of("gpu"))
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2


@pytest.mark.parametrize("value, doubted", [
    ("--xla_gpu_deterministic_ops=true", True), ("--xla_gpu_deterministic_ops", True),
    ("--xla_gpu_deterministic_ops=false", False), ("--xla_dump_to=x", False), ("", False),
])
def test_flags_that_gave_wrong_results_are_told_of(flags, value, doubted):
    flags(value)
    assert (doubtful_flags(mesh_of("gpu")) is not None) == doubted
    assert doubtful_flags(mesh_of("cpu")) is None


def test_an_iteration_with_options_runs_inside_a_program_too(monkeypatch):
    options = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr("jtrust.training.trainer.compiler_options", lambda mesh: options)
    trainer = jtrust.make_trainer(Point(), jtrust.TRPO(), num_envs=8, unroll_length=8, devices=1)
    state = trainer.init(jax.random.key(0))
    alone = trainer.iterate(state)[1]["policy/kl"]
    inside = jax.jit(trainer.iterate)(state)[1]["policy/kl"]
    assert alone > 0 and alone == pytest.approx(float(inside), rel=1e-4)
