"""What a policy says: distributions over actions, batched over leading axes.

Each distribution is a frozen pytree whose arrays are leaves, so `jax.vmap`, `jax.jvp` and
`jax.lax.scan` take it as it is. Its interface:

    sample(key)           one sample per batch element; the key is consumed
    log_prob(x)           log density or probability, [...]
    entropy()             in nats, [...]
    mode()                the action of the deterministic policy
    kl_divergence(other)  D_KL(self || other) in nats, [...]
    kl_parts(other)       the same in two parts that add up to it, [...] each: (of where the
                          actions lie, of how far they deviate from there)
    fisher(tangent)       the Fisher information in the distribution's own parameters, times a
                          tangent (the same class, holding a derivative in each leaf)
    broadcast()           the same distribution with every leaf expanded to the full batch shape
    batch_shape           the leading axes
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
# atanh of a float32 action is taken no nearer to +-1 than this: tanh itself rounds to 1 beyond 9.
_SQUASH_LIMIT = 1.0 - 1e-6
# Gauss-Hermite nodes for E[f(u)] under a unit normal; 32 give the squashed entropy to about 1e-4
# for deviations up to 2, to 2e-2 at 5.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def kl_divergence(p: jax.Array, q: jax.Array) -> jax.Array:
    """D_KL(p || q) = Σ_x p(x) log(p(x) / q(x)) of discrete distributions, in nats.

    Args:
      p: probabilities [..., K], summing to one; outcomes with p = 0 contribute nothing.
      q: probabilities [..., K], summing to one; infinite where q = 0 under p > 0.

    Returns:
      The divergence, [...].
    """
    p, q = jnp.asarray(p), jnp.asarray(q)
    log_p = jnp.log(jnp.where(p > 0, p, 1.0))
    log_q = jnp.where(q > 0, jnp.log(jnp.where(q > 0, q, 1.0)), -jnp.inf)
    return _sum_of_kl(p, q, log_p - log_q)


def _sum_of_kl(p: jax.Array, q: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Σ p log(p/q) over the last axis, given log(p/q); what stands there where p = 0 is not read.

    Since both sum to one it is Σ [q - p + p log(p/q)] = Σ p (expm1(d) - d) with d = log(q/p), in
    which each term of two nearly equal distributions keeps its small true value; the plain sum
    would leave the rounding of much larger terms that cancel.
    """
    happens = p > 0
    log_ratio = jnp.where(happens, log_ratio, 0.0)
    close = happens & (jnp.abs(log_ratio) < 1.0)
    d = jnp.where(close, -log_ratio, 0.0)
    apart = jnp.where(happens, q - p + p * log_ratio, q)
    return jnp.sum(jnp.where(close, p * (jnp.expm1(d) - d), apart), axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normal distributions, one per action dimension.

    Attributes:
      mean: [..., A].
      log_std: log standard deviations, [..., A] or anything that broadcasts to it.
    """

    mean: jax.Array
    log_std: jax.Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(jnp.shape(self.mean), jnp.shape(self.log_std))[:-1]

    def broadcast(self) -> DiagonalGaussian:
        """The same with all arrays of the whole shape, [..., A]."""
        return type(self)(*jnp.broadcast_arrays(self.mean, self.log_std))

    def sample(self, key: jax.Array) -> jax.Array:
        mean, log_std = jnp.broadcast_arrays(self.mean, self.log_std)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)

    def log_prob(self, x: jax.Array) -> jax.Array:
        z = (x - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - _LOG_SQRT_2PI, axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(self.broadcast().log_std + 0.5 + _LOG_SQRT_2PI, axis=-1)

    def mode(self) -> jax.Array:
        return self.broadcast().mean

    def kl_divergence(self, other: DiagonalGaussian) -> jax.Array:
        of_mean, of_deviation = self.kl_parts(other)
        return of_mean + of_deviation

    def kl_parts(self, other: DiagonalGaussian) -> tuple[jax.Array, jax.Array]:
        """Σ ½ ((μ - μ')/σ')², and Σ ½ (σ²/σ'² - 1) - log(σ/σ'), which is that of the deviations.

        With expm1, so that two nearly equal policies give their true small divergence and not the
        rounding of terms near one.
        """
        z, log_ratio = jnp.broadcast_arrays(
            (self.mean - other.mean) * jnp.exp(-other.log_std), self.log_std - other.log_std
        )
        of_mean = jnp.sum(0.5 * z**2, axis=-1)
        of_deviation = jnp.sum(0.5 * jnp.expm1(2.0 * log_ratio) - log_ratio, axis=-1)
        return of_mean, of_deviation

    def fisher(self, tangent: DiagonalGaussian) -> DiagonalGaussian:
        return type(self)(tangent.mean * jnp.exp(-2.0 * self.log_std), 2.0 * tangent.log_std)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TanhGaussian(DiagonalGaussian):
    """tanh of a `DiagonalGaussian`: actions in (-1, 1), up to rounding where it saturates.

    A change of variables that both distributions share leaves the KL divergence and the Fisher
    information as they are, so both are inherited from the Gaussian underneath, exactly.
    `mode` is tanh(mean), the image of the mode underneath, as is usual.
    """

    def sample(self, key: jax.Array) -> jax.Array:
        return jnp.tanh(super().sample(key))

    def log_prob(self, x: jax.Array) -> jax.Array:
        u = jnp.arctanh(jnp.clip(x, -_SQUASH_LIMIT, _SQUASH_LIMIT))
        return super().log_prob(u) - jnp.sum(_log_tanh_slope(u), axis=-1)

    def entropy(self) -> jax.Array:
        """H(u) + E[log(1 - tanh² u)], the expectation by Gauss-Hermite quadrature."""
        mean, log_std = jnp.broadcast_arrays(jnp.asarray(self.mean, float), self.log_std)
        nodes = jnp.asarray(_NODES, mean.dtype)
        u = mean[..., None] + jnp.exp(log_std)[..., None] * nodes
        # No product of matrices: on a TPU its inputs would be rounded to bfloat16.
        slope = jnp.sum(_log_tanh_slope(u) * jnp.asarray(_WEIGHTS, mean.dtype), axis=-1)
        return super().entropy() + jnp.sum(slope, axis=-1)

    def mode(self) -> jax.Array:
        return jnp.tanh(super().mode())


def _log_tanh_slope(u: jax.Array) -> jax.Array:
    """log(1 - tanh² u), without cancellation for large |u|."""
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of K outcomes.

    Attributes:
      logits: unnormalised log probabilities, [..., K]; -inf rules an outcome out.
    """

    logits: jax.Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.shape(self.logits)[:-1]

    @property
    def log_probs(self) -> jax.Array:
        """Normalised log probabilities, [..., K]."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def probs(self) -> jax.Array:
        """Probabilities, [..., K]."""
        return jax.nn.softmax(self.logits, axis=-1)

    def broadcast(self) -> Categorical:
        """Itself: there is one array."""
        return self

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.logits, axis=-1)

    def log_prob(self, x: jax.Array) -> jax.Array:
        index = jnp.asarray(x)[..., None].astype(jnp.int32)
        return jnp.take_along_axis(self.log_probs, index, axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        log_p = self.log_probs
        possible = log_p > -jnp.inf
        safe = jnp.where(possible, log_p, 0.0)
        return -jnp.sum(jnp.where(possible, jnp.exp(safe) * safe, 0.0), axis=-1)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1)

    def kl_parts(self, other: Categorical) -> tuple[jax.Array, jax.Array]:
        """All of the divergence is the choice's: there is no deviation that moves apart from it."""
        divergence = self.kl_divergence(other)
        return divergence, jnp.zeros_like(divergence)

    def kl_divergence(self, other: Categorical) -> jax.Array:
        log_p, log_q = self.log_probs, other.log_probs
        safe_log_p = jnp.where(log_p > -jnp.inf, log_p, 0.0)
        p = jnp.where(log_p > -jnp.inf, jnp.exp(safe_log_p), 0.0)
        return _sum_of_kl(p, jnp.exp(log_q), safe_log_p - log_q)

    def fisher(self, tangent: Categorical) -> Categorical:
        p = self.probs
        mean = jnp.sum(p * tangent.logits, -1, keepdims=True)
        return type(self)(p * (tangent.logits - mean))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MultiCategorical(Categorical):
    """One of K outcomes in each of A dimensions, independently; a sample is A integers.

    What adds up over independent parts is the sum over dimensions; the rest is dimension by
    dimension what a `Categorical` does.

    Attributes:
      logits: unnormalised log probabilities, [..., A, K]; -inf rules an outcome out.
    """

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return jnp.shape(self.logits)[:-2]

    def log_prob(self, x: jax.Array) -> jax.Array:
        return jnp.sum(super().log_prob(x), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(super().entropy(), axis=-1)

    def kl_divergence(self, other: Categorical) -> jax.Array:
        return jnp.sum(super().kl_divergence(other), axis=-1)


def __getattr__(name: str) -> type:
    if name == "Categoricals":
        warnings.warn(
            "jtrust.distributions.Categoricals is called MultiCategorical now",
            DeprecationWarning, stacklevel=2,
        )
        return MultiCategorical
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
