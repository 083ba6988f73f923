"""A CPU that rounds as another device does."""

import contextlib

import jax
from jax.interpreters import mlir

_DEFAULTS = (None, jax.lax.Precision.DEFAULT, (jax.lax.Precision.DEFAULT,) * 2)


@contextlib.contextmanager
def products_rounded_as_on_a_tpu():
    """Products of matrices whose precision is left to the device take bfloat16 inputs.

    In whatever is compiled meanwhile, derivatives included: the rule by which JAX turns a product
    into XLA's is replaced, on this process's CPU.
    """
    from jax._src.interpreters import mlir as tables

    product = jax.lax.dot_general_p
    rules = tables._platform_specific_lowerings["cpu"]
    usual = rules[product]

    def rounded(x, y, **params):
        # Not by way of bfloat16 arrays: XLA leaves such a detour out.
        x, y = (jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7) for a in (x, y))
        return product.bind(x, y, **params | {"precision": (jax.lax.Precision.HIGHEST,) * 2})

    def rule(ctx, x, y, **params):
        if params["precision"] in _DEFAULTS:
            return mlir.lower_fun(rounded, multiple_results=False)(ctx, x, y, **params)
        return usual.rule(ctx, x, y, **params)

    jax.clear_caches()
    mlir.register_lowering(product, rule, platform="cpu")
    try:
        yield
    finally:
        rules[product] = usual
        jax.clear_caches()
