"""What XLA makes of an iteration for GPUs and TPUs that are not here: properties, in bands."""

import re

import jax
import pytest

import jtrust
from jtrust.algorithms import ALGORITHMS
from jtrust.planning import hlo
from jtrust.planning.collectives import count_collectives
from jtrust.planning.compilation import compile_iteration
from jtrust.planning.launches import count_launches, phase
from jtrust.planning.targets import devices_of, find_target

pytestmark = pytest.mark.slow

UNROLL = 8
FAST, PENDULUM, CARTPOLE = "brax/fast", "brax/inverted_pendulum", "playground/CartpoleBalance"
# (target, environment, algorithm, environments)
PROGRAMS = (
    ("h100", FAST, "trpo", 4096),
    ("h100", FAST, "npg", 4096),
    ("h100", FAST, "ppo", 4096),
    ("h100", FAST, "ppo-kl", 4096),
    ("h100:4", CARTPOLE, "trpo", 4096),
    ("v5e:2x2", FAST, "trpo", 4096),
    ("v5e:2x2", FAST, "npg", 4096),
    ("v5e:2x2", CARTPOLE, "ppo", 4096),
    ("v5e:2x2", PENDULUM, "ppo-kl", 4096),
    ("v5e:16x16", FAST, "trpo", 65536),
)
GPU_PROGRAMS = [program for program in PROGRAMS if program[0].startswith("h100")]


@pytest.fixture(scope="module")
def compiled():
    """(target, environment, algorithm, environments) -> (trainer, program), compiled once."""
    found = {}

    def of(program):
        if program not in found:
            target, env, algorithm, num_envs = program
            options = {"backend": "spring"} if env == PENDULUM else {}
            trainer = jtrust.make_trainer(
                jtrust.make_env(env, **options), ALGORITHMS[algorithm](), num_envs=num_envs,
                unroll_length=UNROLL, devices=devices_of(find_target(target)),
            )
            found[program] = trainer, compile_iteration(trainer)
        return found[program]

    return of


# Each takes a minute to compile.
EVERY_TIME = [PROGRAMS[0]]


def of_each(programs):
    return pytest.mark.parametrize("program", [
        pytest.param(
            p, id="-".join(map(str, p[:3])), marks=[pytest.mark.nightly] * (p not in EVERY_TIME)
        ) for p in programs
    ])


def rounded_products(text):
    """Products of matrices outside the physics whose inputs XLA may round: their scopes."""
    found = []
    for instructions in hlo.read(text).computations.values():
        for instruction in instructions:
            line, scope = instruction.text, instruction.scope
            library = "__cublas$" in line and "precision_config" in line
            if instruction.opcode not in ("dot", "convolution") and not library:
                continue
            # Integers lose nothing; XLA may give a result as bfloat16 where all of it is rounded.
            if not re.search(r"= \(?b?f\d+\[", line) or phase(scope) in ("physics", "fresh_starts"):
                continue
            if "operand_precision={highest,highest}" not in line and (
                not re.search(r'"operand_precision":\["HIGHEST","HIGHEST"\]', line)
            ):
                found.append(scope)
    return found


def products(text):
    return len(re.findall(r" (?:dot|convolution)\(", text)) + text.count("__cublas$gemm")


@of_each(PROGRAMS)
def test_no_product_outside_the_physics_is_rounded(compiled, program):
    text = compiled(program)[1].text
    assert products(text) > 10
    assert rounded_products(text) == []


@of_each(PROGRAMS)
def test_devices_add_up_and_never_gather(compiled, program):
    trainer, found = compiled(program)
    collectives = count_collectives(found.text)
    if trainer.mesh.size == 1:
        assert collectives == {}
        return
    assert set(collectives) == {"all-reduce"}
    # One for each gradient step or Fisher-vector product, and some around them.
    inner = trainer.algorithm.cg_iterations if hasattr(trainer.algorithm, "cg_iterations") else 8
    assert inner < collectives["all-reduce"] < 1500


@of_each(PROGRAMS)
def test_memory_is_a_few_times_what_must_be_held(compiled, program):
    trainer, found = compiled(program)
    environment = trainer.environment
    numbers = sum(x.size for x in jax.tree.leaves(environment.observation)) + 6
    rollout = 4 * numbers * trainer.num_envs * UNROLL
    states = jax.eval_shape(trainer.init, jax.random.key(0)).episodes
    held = rollout + sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(states))
    # Beside these hidden layers, 64 wide, of two networks; TPUs pad to tiles.
    share = held / trainer.mesh.size
    layers = 4 * 4 * 64 * trainer.num_envs * UNROLL / trainer.mesh.size
    assert 0.5 * share < found.memory_bytes < 8 * (share + layers) + 20e6


@of_each(GPU_PROGRAMS)
def test_launches_of_a_gpu(compiled, program):
    found = compiled(program)[1]
    launches = count_launches(found.text, UNROLL)
    phases = launches.by_phase
    assert sum(phases.values()) == launches.total
    assert launches.per_step * UNROLL <= phases["physics"] + phases["rollout"]
    # A GPU takes all states at once: nothing is cut into blocks, as a CPU's cache would have it.
    if program[2] in ("trpo", "npg"):
        assert launches.total - phases["physics"] - phases["rollout"] - phases["value_fit"] < 1000
    if program[1] == FAST:
        assert 10 < launches.per_step < 60
