"""Counting in XLA's text: small programs written by hand, and compiled ones of known shape."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from jtrust.planning.collectives import count_collectives
from jtrust.planning.launches import count_launches, phase
from jtrust.planning.targets import devices_of, find_target

# A GPU's program: a fusion of two, a loop of five trips around a fusion and a collective, a loop
# without an end that is known, and a choice between one launch and three.
GPU = """HloModule jit_iterate, is_scheduled=true

%fused (p.0: f32[4]) -> f32[4] {
  %p.0 = f32[4]{0} parameter(0)
  %negate.1 = f32[4]{0} negate(%p.0)
  ROOT %sine.1 = f32[4]{0} sine(%negate.1)
}

%body (p.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %get.1 = f32[4]{0} get-tuple-element(%p.1), index=1
  %fusion.2 = f32[4]{0} fusion(%get.1), kind=kLoop, calls=%fused, \
metadata={op_name="jit(iterate)/rollout/while/body/physics/sin"}
  %reduce.1 = f32[4]{0} all-reduce-start(%fusion.2), to_apply=%sum
  %reduce.2 = f32[4]{0} all-reduce-done(%reduce.1)
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%get.0, /*index=1*/%reduce.2)
}

%searching (p.2: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.2 = (s32[], f32[4]{0}) parameter(0)
  ROOT %copy.1 = (s32[], f32[4]{0}) copy(%p.2)
}

%until (p.3: (s32[], f32[4])) -> pred[] {
  %p.3 = (s32[], f32[4]{0}) parameter(0)
  ROOT %fusion.3 = pred[] fusion(%p.3), kind=kLoop, calls=%fused
}

%one (p.4: f32[4]) -> f32[4] {
  %p.4 = f32[4]{0} parameter(0)
  ROOT %copy.2 = f32[4]{0} copy(%p.4)
}

%three (p.5: f32[4]) -> f32[4] {
  %p.5 = f32[4]{0} parameter(0)
  %copy.3 = f32[4]{0} copy(%p.5)
  %copy.4 = f32[4]{0} copy(%copy.3)
  ROOT %copy.5 = f32[4]{0} copy(%copy.4)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %fusion.1 = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused, \
metadata={op_name="jit(iterate)/value_fit/sin"}
  %while.1 = (s32[], f32[4]{0}) while(%fusion.1), condition=%until, body=%body, \
metadata={op_name="jit(iterate)/rollout/while"}, \
backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}
  %while.2 = (s32[], f32[4]{0}) while(%while.1), condition=%until, body=%searching, \
metadata={op_name="jit(iterate)/policy_update/line_search/while"}
  %conditional.1 = f32[4]{0} conditional(%p, %x, %x), branch_computations={%one, %three}
  %call.1 = f32[4]{0} call(%conditional.1), to_apply=%one
  ROOT %bitcast.1 = f32[4]{0} bitcast(%call.1)
}
"""

# A TPU's: no trips are told; the loop counts to 7, and its collective lies in a fusion.
TPU = """HloModule jit_iterate

%inside (p.0: f32[4]) -> f32[4] {
  %p.0 = f32[4]{0:T(128)} parameter(0)
  ROOT %all-reduce.1 = f32[4]{0:T(128)} all-reduce(%p.0), to_apply=%sum
}

%body (p.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.1 = (s32[], f32[4]{0:T(128)}) parameter(0)
  %fusion.2 = f32[4]{0:T(128)S(1)} fusion(%p.1), kind=kCustom, calls=%inside
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%p.1, %fusion.2)
}

%condition (p.2: (s32[], f32[4])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(7)
  %p.2 = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %get.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get.2, %constant.9), direction=LT
}

%either (p.3: (s32[], f32[4])) -> pred[] {
  %constant.8 = s32[]{:T(128)} constant(30)
  %p.3 = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %lt.2 = pred[]{:T(512)} compare(%p.3, %constant.8), direction=LT
  ROOT %and.1 = pred[]{:T(512)} and(%lt.2, %p.3)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0:T(128)} parameter(0)
  %all-gather.1 = f32[16]{0:T(128)} all-gather(%x), dimensions={0}
  %while.1 = (s32[], f32[4]{0:T(128)}) while(%x), condition=%condition, body=%body
  ROOT %while.2 = (s32[], f32[4]{0:T(128)}) while(%while.1), condition=%either, body=%body
}
"""


def test_a_launch_is_an_instruction_outside_fusions_loops_times_their_trips():
    found = count_launches(GPU, unroll_length=5)
    # 1 fusion; 5 x (fusion, all-reduce); copy and condition once; the choice, its dearer branch;
    # the call.
    assert found.total == 1 + 5 * 2 + 2 + 1 + 3 + 1
    assert found.by_phase == {
        "physics": 5, "rollout": 5, "line_search": 2, "value_fit": 1, "rest": 5
    }
    assert found.per_step == 2
    assert found.uncounted_loops == ("jit(iterate)/policy_update/line_search/while",)


def test_collectives_are_counted_in_loops_and_in_fusions():
    assert count_collectives(GPU) == {"all-reduce": 5}
    # A loop that may end earlier counts once.
    assert count_collectives(TPU) == {"all-reduce": 7 + 1, "all-gather": 1}


@pytest.mark.parametrize(("scope", "expected"), [
    ("jit(iterate)/rollout/while/body/physics/vmap()/while", "physics"),
    ("jit(iterate)/rollout/while/body/policy_inference/tanh", "rollout"),
    ("jit(iterate)/policy_update/transpose(jvp(policy_gradient))/dot", "policy_gradient"),
    ("jit(iterate)/policy_update/while/body/add", "policy_update"),
    ("jit(iterate)/physics_of_something/add", "rest"),
    ("", "rest"),
])
def test_scopes_tell_the_phase(scope, expected):
    assert phase(scope) == expected


def test_what_has_no_phase_of_its_own_has_that_of_what_holds_it():
    loop = "jit(iterate)/rollout/while"
    assert phase(loop, "jit(iterate)/copied") == "rollout"
    assert phase(loop, f"{loop}/body/physics/while", "") == "physics"


def compile_for_gpu(function, *shapes):
    (device,) = devices_of(find_target("h100"))
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=SingleDeviceSharding(device))
        for shape in shapes
    ]
    return jax.jit(function).lower(*shapes).compile().as_text()


def test_compiled_programs_have_the_launches_that_they_were_written_with():
    assert count_launches(compile_for_gpu(lambda x: jnp.sin(x) * 2 + x, (1024,))).total == 1

    def repeated(times):
        def run(x, y):
            return jax.lax.scan(lambda c, _: (jnp.sin(c @ y), None), x, length=times)[0]
        return count_launches(compile_for_gpu(run, (256, 256), (256, 256))).total

    # A product and a sine for each trip, less what XLA fuses; the rest does not grow.
    few, many = repeated(10), repeated(30)
    each = (many - few) / 20
    assert each == int(each) and 1 <= each <= 4
    assert 0 <= few - 10 * each <= 6
