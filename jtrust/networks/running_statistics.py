"""Running statistics of observations and value targets, and folding them into weights.

A normaliser is part of the function that it feeds: new statistics under old weights make a new
policy. Here a change of statistics is folded into the layer next to it, so that the network
computes what it did before: the first layer takes up a change of the inputs' scale, the last layer
a change of the outputs' (van Hasselt et al., 2016, arXiv:1602.07714, for the latter).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.trust_region.fisher import mean_over

# A spread below this counts as this much: a reading that never moves is not magnified.
_MIN_OBSERVATION_STD = 1e-3
_MIN_TARGET_STD = 1e-6
# Nor is a spread far below the values themselves, where a float32 network has nothing to say.
_MIN_RELATIVE_TARGET_STD = 1e-3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunningStatistics:
    """Mean and variance of a stream.

    Attributes:
      count: how many samples they stand for, [].
      mean: pytree of [...] like one sample.
      variance: the same.
    """

    count: jax.Array
    mean: Any
    variance: Any

    @classmethod
    def zero(cls, sample: Any) -> RunningStatistics:
        """Those of nothing: mean 0, variance 1, like `sample` (a pytree of shapes)."""
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), sample)
        return cls(jnp.float32(0.0), zeros, jax.tree.map(jnp.ones_like, zeros))

    def at(self, key: str | None) -> RunningStatistics:
        """Those of what stands under `key` in each sample; None for all of it."""
        if key is None:
            return self
        return RunningStatistics(self.count, self.mean[key], self.variance[key])

    def update(
        self, batch: Any, axis_name: str | None = None, batch_axes: int = 1,
        weight: jax.Array | None = None, share: jax.Array | float = 1.0,
    ) -> RunningStatistics:
        """Takes in a batch, by the pairwise formula of Chan, Golub and LeVeque (1979).

        A batch without finite moments is left out; `count` is then what it was. All is computed
        in float32, of whatever type the batch is: the squares of float16 overflow beyond 256.

        Args:
          batch: pytree like the sample, with `batch_axes` leading axes.
          axis_name: mesh axis over which the batch is spread.
          weight: of each sample, with a mean of 1 over all shards; shaped like the leading axes.
          share: how many of the samples weigh anything, as a fraction.
        """
        axes = tuple(range(batch_axes))
        batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), batch)
        shape = jax.tree.leaves(batch)[0].shape[:batch_axes]
        size = math.prod(shape) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
        size = jnp.float32(size) * share

        def mean_of(x: jax.Array) -> jax.Array:
            if weight is not None:
                x = x * weight.reshape(weight.shape + (1,) * (x.ndim - batch_axes))
            return mean_over(jnp.mean(x, axes), axis_name)

        total = self.count + size
        fraction = size / jnp.maximum(total, 1.0)
        mean = jax.tree.map(mean_of, batch)
        variance = jax.tree.map(lambda x, m: mean_of((x - m) ** 2), batch, mean)
        new_mean = jax.tree.map(lambda a, b: a + fraction * (b - a), self.mean, mean)
        new_variance = jax.tree.map(
            lambda a, b, m, n: (
                (1 - fraction) * a + fraction * b + fraction * (1 - fraction) * (n - m) ** 2
            ),
            self.variance, variance, self.mean, mean,
        )
        # A batch whose moments overflow says nothing of the scale of the next one.
        good = jnp.all(jnp.stack([
            jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((new_mean, new_variance))
        ])) & (size > 0)
        return jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            RunningStatistics(total, new_mean, new_variance), self,
        )

    def forget(self, memory: float) -> RunningStatistics:
        """Counts at most `memory` samples, so that later ones weigh more than they would."""
        return dataclasses.replace(self, count=jnp.minimum(self.count, memory))

    def std(self, minimum: float = _MIN_OBSERVATION_STD) -> Any:
        """Standard deviations, none below `minimum`."""
        return jax.tree.map(lambda v: jnp.sqrt(jnp.maximum(v, minimum**2)), self.variance)

    def normalize(self, x: Any) -> Any:
        """(x - mean) / std in float32, leaf by leaf; leading axes are free."""
        return jax.tree.map(
            lambda a, m, s: (jnp.asarray(a, jnp.float32) - m) / s, x, self.mean, self.std()
        )


def target_scale(statistics: RunningStatistics) -> tuple[jax.Array, jax.Array]:
    """(mean, standard deviation) on which a value network's output is read, [] each."""
    least = _MIN_RELATIVE_TARGET_STD * jnp.abs(statistics.mean)
    return statistics.mean, jnp.maximum(statistics.std(_MIN_TARGET_STD), least)


def fold_input(
    layer: dict[str, jax.Array], old: RunningStatistics, new: RunningStatistics
) -> dict[str, jax.Array]:
    """Weights that compute from newly normalised inputs what they did from the old ones.

    (x - m) / s = (s'/s) (x - m') / s' + (m' - m) / s, so W' = diag(s'/s) W and
    b' = b + ((m' - m) / s) W.

    Args:
      layer: {"kernel": [in, out], "bias": [out]}, the layer that reads the inputs.
      old: of one array [in].
      new: the same, later.
    """
    old_std, new_std = old.std(), new.std()
    kernel = layer["kernel"]
    # Exact whatever the network's precision: what is lost here stays in the weights.
    shift = jnp.matmul((new.mean - old.mean) / old_std, kernel, precision="highest")
    return {"kernel": (new_std / old_std)[:, None] * kernel, "bias": layer["bias"] + shift}


def fold_affine(
    layer: dict[str, jax.Array], old: RunningStatistics, new: RunningStatistics
) -> dict[str, jax.Array]:
    """The same for a diagonal W: {"scale": [in], "shift": [in]}."""
    old_std, new_std = old.std(), new.std()
    scale = layer["scale"]
    return {
        "scale": (new_std / old_std) * scale,
        "shift": layer["shift"] + ((new.mean - old.mean) / old_std) * scale,
    }


def fold_output(
    layer: dict[str, jax.Array], old: RunningStatistics, new: RunningStatistics
) -> dict[str, jax.Array]:
    """Weights whose output, read on the new scale, is what it was on the old one.

    Args:
      layer: {"kernel": [in, 1], "bias": [1]}, the layer that gives the output; or, where it reads
        one number, [] each.
      old: of one scalar.
      new: the same, later.
    """
    (old_mean, old_std), (new_mean, new_std) = target_scale(old), target_scale(new)
    return {
        "kernel": layer["kernel"] * (old_std / new_std),
        "bias": (layer["bias"] * old_std + old_mean - new_mean) / new_std,
    }
