"""Whether a policy treats the observations of a batch one by one."""

from __future__ import annotations

import jax
import numpy as np

from jtrust import checks
from jtrust.deploy.acting import Acting


def check_alone(acting: Acting) -> None:
    """Raises `BadArgument` where an action depends on who else is in the batch.

    The same program on batches of which one half is the same must give that half to the bit.
    """
    size = acting.inputs[0].shape
    draw = np.random.default_rng(2)
    mean = np.asarray(acting.policy.statistics.mean)
    std = np.asarray(acting.policy.statistics.std())
    mine = mean + std * draw.standard_normal((8, *size))
    rest = [draw.standard_normal((16, *x.shape)).astype(np.float32) for x in acting.inputs[1:]]
    others = [
        mean + std * draw.standard_normal((8, *size)), np.full((8, *size), np.nan),
        np.zeros((8, *size)), 1e6 * draw.standard_normal((8, *size)), mine[::-1],
    ]
    function = jax.jit(lambda x, *rest: (
        acting(x, *rest), jax.tree.leaves(acting.policy.distribution(
            acting.policy.params, acting.policy.statistics, x
        ).broadcast()),
    ))
    found = []
    for other in others:
        batch = np.stack([mine, other], axis=1).reshape(16, *size).astype(np.float32)
        found.append([np.asarray(x)[::2] for x in jax.tree.leaves(function(batch, *rest))])
    for again in found[1:]:
        if not all(np.array_equal(a, b, True) for a, b in zip(found[0], again, strict=True)):
            raise checks.BadArgument(
                "policy_network", type(acting.policy.network).__name__,
                "an action depends on who else is in the batch; have the network treat "
                "observations one by one",
            )
