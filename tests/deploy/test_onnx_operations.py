"""Each operation that is written in ONNX, run by ONNX Runtime and held against JAX."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from jtrust.checks import BadArgument
from jtrust.deploy import onnx_format
from jtrust.deploy.acting import Array

KERNEL = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).standard_normal((3, 2, 2, 3)).astype(np.float32)


@dataclasses.dataclass
class Function:
    """A function [batch, 4], [batch, 4] -> [batch, ...] in the place of a policy."""

    function: object
    inputs: list
    outputs: list

    def __call__(self, *arrays):
        return (self.function(*arrays),)


def model_of(function):
    single = np.dtype(np.float32)
    like = jax.ShapeDtypeStruct((2, 4), single)
    out = jax.eval_shape(function, like, like)
    inputs = [Array(name, (4,), single, "") for name in ("x", "y")]
    return onnx_format.to_model(
        Function(function, inputs, [Array("out", out.shape[1:], np.dtype(out.dtype), "")])
    )


def columns(*functions):
    """One function whose result holds those of several, [batch, n] in float32."""
    def together(x, y):
        found = [jnp.asarray(f(x, y), jnp.float32).reshape(x.shape[0], -1) for f in functions]
        return jnp.concatenate(found, axis=-1)
    return together


def of_first(function):
    return lambda x, y: function(x)


def take_windows(x):
    return nn.Conv(3, (2,), padding="SAME").apply(
        {"params": {"kernel": KERNEL[:2, None, :3], "bias": KERNEL[0, :3]}}, x[..., None]
    )


def convolve(x):
    picture = jnp.pad(x.reshape(-1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 2)), constant_values=0.5)
    return jax.lax.conv_general_dilated(
        picture, IMAGES.transpose(1, 2, 3, 0), (1, 2), ((1, 0), (0, 1)), rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))

OPERATIONS = {
    "activations": columns(*map(of_first, (
        nn.tanh, nn.relu, nn.elu, nn.swish, nn.gelu, nn.softplus, nn.sigmoid, nn.softmax, nn.silu,
        nn.leaky_relu, nn.log_softmax, nn.celu, nn.selu, nn.hard_tanh, nn.relu6, nn.soft_sign,
        nn.log_sigmoid, nn.hard_swish,
    ))),
    "exact gelu": lambda x, y: nn.gelu(x, approximate=False),
    "arithmetic": columns(
        lambda x, y: x + y * x - y / (1 + x * x), lambda x, y: -jnp.abs(x), lambda x, y: x // 0.5,
        lambda x, y: jnp.minimum(x, y), lambda x, y: jnp.maximum(x, y), lambda x, y: x % 0.7,
        lambda x, y: jnp.sign(x) + jnp.floor(x) + jnp.ceil(y) + jnp.round(3 * x),
        lambda x, y: jnp.clip(x, -0.5, y), lambda x, y: jnp.clip(x, -0.5, 0.7),
        lambda x, y: jax.lax.clamp(-1.0, x, 0.5),
    ),
    "powers": columns(
        lambda x, y: x**2 + x**3 + x**5, lambda x, y: jnp.abs(x) ** y, lambda x, y: x**-1,
        lambda x, y: jnp.sqrt(jnp.abs(x)) + jax.lax.rsqrt(1 + y * y), lambda x, y: jnp.exp2(x),
        lambda x, y: jnp.cbrt(x), lambda x, y: jnp.square(y),
    ),
    "functions": columns(
        *map(of_first, (
            jnp.exp, jnp.sin, jnp.cos, jnp.tan, jnp.sinh, jnp.cosh, jnp.arctan, jnp.arcsinh,
            jax.scipy.special.erf, jax.scipy.special.erfc,
        )),
        lambda x, y: jnp.arcsin(jnp.tanh(x)) + jnp.arccos(jnp.tanh(y)) + jnp.arctanh(jnp.tanh(x)),
        lambda x, y: jnp.log(1 + x * x) + jnp.arccosh(1 + y * y),
    ),
    "near zero": columns(
        lambda x, y: 1e6 * jnp.expm1(1e-6 * x), lambda x, y: 1e6 * jnp.log1p(1e-6 * jnp.abs(y)),
        lambda x, y: jnp.log1p(jnp.exp(9 * x)), lambda x, y: jnp.expm1(5 * y),
    ),
    "truth": columns(
        lambda x, y: jnp.where((x > 0) & ~(y < x) | (x == y) ^ (x >= 1), x, 2.0),
        lambda x, y: jnp.any(x > 1, -1), lambda x, y: jnp.all(x > -1, -1), lambda x, y: x != y,
        lambda x, y: jnp.isfinite(x / (x - x)), lambda x, y: x <= y,
        lambda x, y: jnp.select([x > 1, x > 0, y > 0], [x, y, 2 * y], -1.0),
    ),
    "whole numbers": columns(
        lambda x, y: (10 * x).astype(jnp.int32) // 3 % 5,
        lambda x, y: (10 * x).astype(jnp.int32) & 6 | 1,
        lambda x, y: jax.lax.select_n(
            jnp.argmax(jnp.stack([x, y, x + y], 1), 1), x, y, 3 * y
        ),
    ),
    "sums": columns(
        lambda x, y: x.sum(-1), lambda x, y: x.mean(-1, keepdims=True) - y, lambda x, y: x.max(-1),
        lambda x, y: x.min(-1), lambda x, y: x.prod(-1), lambda x, y: x.var(-1),
        lambda x, y: jnp.cumsum(x, -1), lambda x, y: jax.lax.cumsum(y, 1, reverse=True),
        lambda x, y: jax.nn.logsumexp(x, -1), lambda x, y: jnp.argmin(y, -1),
    ),
    "shapes": columns(
        lambda x, y: x.reshape(-1, 2, 2).transpose(0, 2, 1) @ y.reshape(-1, 2, 2),
        lambda x, y: jnp.stack([x, y], 1)[:, :, ::-1], lambda x, y: x[:, None, :] * y[:, :, None],
        lambda x, y: jnp.broadcast_to(x[:, :1], (x.shape[0], 3)), lambda x, y: x[:, 1:4:2],
        lambda x, y: jnp.split(x, [1, 3], -1)[1], lambda x, y: jnp.pad(x, ((0, 0), (1, 2))),
        lambda x, y: jnp.squeeze(y[:, None], 1), lambda x, y: jnp.concatenate([x, y[:, :1]], -1),
        lambda x, y: jnp.broadcast_to(jnp.float32([1, 2]), (x.shape[0], 2)).sum(-1),
    ),
    "indices": columns(
        lambda x, y: x[..., 0], lambda x, y: x[:, [2, 0, 2]], lambda x, y: x[..., -1] + y[:, 1],
        lambda x, y: jnp.take(x, jnp.array([[1, 3], [0, 0]]), axis=-1),
        lambda x, y: jax.lax.dynamic_slice_in_dim(x, 2, 2, 1),
        lambda x, y: x.reshape(-1, 2, 2)[:, :, jnp.array([1, 0, 1])],
        lambda x, y: jax.lax.gather(  # the indices' axis comes first
            x, jnp.array([[3], [1]]), jax.lax.GatherDimensionNumbers((1,), (1,), (1,)),
            (x.shape[0], 1), mode="promise_in_bounds",
        ).T,
    ),
    "products": columns(
        lambda x, y: x @ KERNEL.T, lambda x, y: jnp.einsum("bi,bi->b", x, y),
        lambda x, y: jnp.einsum("bi,bj->bij", x, y),
        lambda x, y: jnp.einsum("oi,bi->bo", KERNEL, x),
        lambda x, y: jax.lax.dot_general(x, jnp.asarray(KERNEL), (((1,), (1,)), ((), ()))),
        lambda x, y: x.reshape(-1, 2, 2) @ KERNEL[:2, :3], lambda x, y: x @ KERNEL[0],
    ),
    "convolutions": columns(lambda x, y: take_windows(x), lambda x, y: convolve(x)),
    "layer norm": lambda x, y: nn.LayerNorm().apply(
        {"params": {"scale": KERNEL[0], "bias": KERNEL[1]}}, x
    ),
    "calls": columns(
        lambda x, y: jax.jit(jnp.tanh)(x), lambda x, y: jax.checkpoint(jnp.sin)(x),
        lambda x, y: halved(y), lambda x, y: jax.lax.stop_gradient(x),
        lambda x, y: jax.vmap(lambda a, b: a * b.sum())(x, y),
    ),
    "one of the arguments": lambda x, y: y,
    "the same for all": lambda x, y: jnp.broadcast_to(KERNEL[0], x.shape),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_onnx_runtime_gives_what_jax_gives(name, tmp_path):
    function = OPERATIONS[name]
    model = model_of(function)
    (tmp_path / "it.onnx").write_bytes(model.SerializeToString())
    runtime = onnx_format.Runtime(tmp_path / "it.onnx")
    for batch in (1, 7):
        draw = np.random.default_rng(batch)
        x, y = (2 * draw.standard_normal((2, batch, 4))).astype(np.float32)
        wanted = np.asarray(jax.jit(function)(x, y))
        (found,) = runtime(x, y)
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=4e-6)


def test_what_rests_on_parameters_alone_is_a_constant():
    weights = jnp.asarray(KERNEL[:, :3])
    model = model_of(lambda x, y: x[:, :3] @ jnp.exp(weights).T @ jnp.linalg.inv(weights))
    kinds = [node.op_type for node in model.graph.node]
    assert "Exp" not in kinds and kinds.count("MatMul") == 2


def test_what_no_output_rests_on_is_left_out():
    model = model_of(lambda x, y: (jnp.sort(y), jnp.tanh(x))[1])
    assert [node.op_type for node in model.graph.node] == ["Tanh", "Identity"]


def test_bounds_are_said_in_one():
    def kinds(function):
        return [node.op_type for node in model_of(function).graph.node][:-1]

    assert kinds(lambda x, y: jnp.clip(x, -1, 2)) == ["Clip"]
    assert kinds(lambda x, y: nn.relu(x)) == ["Relu"]
    assert kinds(lambda x, y: jnp.minimum(2.0, jnp.maximum(x, 0.0))) == ["Clip"]
    assert kinds(lambda x, y: jnp.clip(x, -1, y)) == ["Max", "Min"]

    def used_twice(x, y):
        low = jnp.maximum(x, 1.0)
        return jnp.minimum(low, 2.0) * low

    assert kinds(used_twice) == ["Max", "Min", "Mul"]


def test_the_opset_is_said_and_old_runtimes_can_read_it():
    model = model_of(lambda x, y: x + y)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim[
        0].dim_param == "batch"


REFUSED = {
    "sort": (lambda x, y: jnp.sort(x), "sort has no counterpart"),
    "scan": (lambda x, y: jax.lax.scan(lambda c, z: (c, c + z), x[:, 0], x.T)[1].T, "scan has no"),
    "while": (
        lambda x, y: jax.lax.while_loop(lambda z: jnp.all(z < 9), lambda z: z + 1, x), "while has"
    ),
    "random": (
        lambda x, y: x + jax.random.uniform(jax.random.key(0), x.shape), "draws random numbers"
    ),
    "bfloat16": (lambda x, y: x.astype(jnp.bfloat16) + 1, "keep the network in float32"),
    "float16": (lambda x, y: x.astype(jnp.float16) + 1, "keep the network in float32"),
    "batch mean": (lambda x, y: x - x.mean(0), "members of a batch"),
    "batch softmax": (lambda x, y: nn.softmax(x, axis=0), "members of a batch"),
    "batch product": (lambda x, y: x @ (y.T @ x), "members of a batch"),
    "first of the batch": (lambda x, y: x - x[:1], "members of a batch"),
    "turned round": (lambda x, y: x[::-1], "members of a batch"),
    "batch size": (lambda x, y: x * x.shape[0], "size stands in the arithmetic"),
    "batch shape": (lambda x, y: x if x.shape[0] > 3 else y, "any size of the batch"),
    "index": (
        lambda x, y: jnp.take_along_axis(x, jnp.argmax(y, -1, keepdims=True), -1),
        "gather takes numbers",
    ),
    "error": (lambda x, y: x @ x, "any size of the batch"),
    "shape": (lambda x, y: x[:, :2], "checker refuses"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_is_refused_by_name(name):
    function, remedy = REFUSED[name]
    single = np.dtype(np.float32)
    inputs = [Array(x, (4,), single, "") for x in ("x", "y")]
    with pytest.raises(BadArgument, match=remedy) as caught:
        onnx_format.to_model(Function(function, inputs, [Array("out", (4,), single, "")]))
    assert "\n" not in str(caught.value) and caught.value.name == "format"
