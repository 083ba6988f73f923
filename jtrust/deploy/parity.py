"""Whether an exported policy acts as the policy that was trained.

Both are given 10,000 observations: what the run saw, its edges, and what it never saw. The file
runs in its own runtime, in batches of 4096, of 1807 and of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jtrust import checks
from jtrust.deploy.acting import Acting, action_range
from jtrust.environments.base import Bins

OBSERVATIONS = 10_000
LIMIT = 1e-5  # of the action range; of the largest logit, where there are logits
_BATCHES = (4096, 4096, 1807, 1)
# Where a policy follows the last bit of an observation (far out, where large numbers cancel), two
# programs that round in another order differ too: it is held to a few times what it makes of it.
_LAST_BIT = 2.0**-22
_ROUNDINGS = 8.0
_TRIALS = 4
# Steps behind which a policy with memory is compared: it then remembers something.
_REMEMBERED = 16

# Batches of float32 observations [batch, O], and noise where there is any -> outputs of each.
Batches = Callable[[Sequence[Sequence[np.ndarray]]], Sequence[Sequence[np.ndarray]]]


class ExportFailed(checks.TrainingFailed):
    """What was written does not act as the policy does; nothing of it is left."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """What the comparison found.

    Attributes:
      runtime: in which the file was run.
      observations: how many were compared.
      largest_difference: of an action (and, with memory, of what is remembered, on a scale of its
        largest number, or of 1), as a share of the action range; of discrete actions and of
        bins, of a logit, as a share of the row's largest one (of 1, where that is smaller). Over
        all observations but those next.
      limit: what it must stay below.
      by_kind: the largest difference of each kind of observation.
      rounding: observations at which the policy itself, moved by the last bits of the observation,
        moves beyond an eighth of the limit, and the file's difference is beyond the limit.
      rounding_difference: the largest difference at those; at most 8 times what the policy moves.
      other_choices: discrete actions, or bins, that differ, the policy's own two best being tied
        to within twice the limit.
      not_finite: observations of which the policy itself makes NaN or infinity; not compared.
    """

    runtime: str
    observations: int
    largest_difference: float
    limit: float
    by_kind: dict[str, float]
    rounding: int
    rounding_difference: float
    other_choices: int
    not_finite: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def observations_for(acting: Acting, seed: int = 0) -> dict[str, np.ndarray]:
    """{kind: observations [n, O] in float32}, `OBSERVATIONS` of them."""
    statistics = acting.policy.statistics
    mean, std = np.asarray(statistics.mean), np.asarray(statistics.std())
    draw, size, single = np.random.default_rng(seed), mean.size, np.float32
    sign = lambda n: 2 * draw.integers(2, size=(n, size)).astype(single) - 1  # noqa: E731
    powers = lambda low, high, n: 10 ** draw.uniform(low, high, (n, 1)).astype(single)  # noqa: E731
    alone = np.arange(size) == draw.integers(size, size=(992, 1))
    near = draw.standard_normal((6000, size), single)
    found = {
        "zeros": np.zeros((1, size)),
        "mean": mean[None],
        "drawn from the statistics": mean + std * near,
        "beyond the statistics": mean + std * (3 + 97 * draw.random((2000, size), single))
        * sign(2000),
        "one number far out": mean + std * powers(1, 6, 992) * sign(992) * alone,
        "very large": mean + std * powers(2, 6, 1000) * sign(1000),
        "huge": powers(6, 18, 6) * sign(6),
    }
    return {kind: x.astype(single) for kind, x in found.items()}


def compare(acting: Acting, exported: Batches, runtime: str) -> Parity:
    """Compares an exported policy with the policy.

    Args:
      acting: the policy, and whether it samples.
      exported: what the file makes of batches.
      runtime: what to call that.

    Raises:
      ExportFailed: they differ.
    """
    kinds = observations_for(acting)
    observations = np.concatenate(list(kinds.values()))
    key = noise_key()
    noise = [acting.noise_like(key, OBSERVATIONS)] if acting.stochastic else []
    carry = carries_for(acting, OBSERVATIONS)
    beside = [*noise, *jax.tree.leaves(carry)]
    theirs = _in_batches(exported, observations, *beside)
    ours = _of_policy(acting, observations, carry, key)
    usable = np.all([np.isfinite(_rows(x)).all(1) | np.isneginf(_rows(x)).any(1) for x in ours], 0)
    measure = _measure(acting)
    difference = np.where(usable, measure(acting, ours, theirs), 0.0)
    beyond = np.flatnonzero(~(difference < LIMIT))
    wrong = beyond
    if beyond.size:
        moved = _moved_by_last_bit(acting, observations[beyond], [x[beyond] for x in beside])
        wrong = beyond[~(difference[beyond] <= _ROUNDINGS * moved)]
    others, unlike = _choices(acting, ours, theirs, noise, usable)
    if wrong.size or unlike:
        raise ExportFailed(_failure(runtime, difference, wrong.size, unlike))
    rounded = float(difference[beyond].max(initial=0.0))
    difference[beyond] = 0.0
    ends = np.cumsum([len(x) for x in kinds.values()])[:-1]
    by_kind = zip(kinds, (float(x.max()) for x in np.split(difference, ends)), strict=True)
    return Parity(
        runtime, OBSERVATIONS, float(difference.max()), LIMIT, dict(by_kind), int(beyond.size),
        rounded, others, int(np.sum(~usable)),
    )


def carries_for(acting: Acting, count: int) -> Any:
    """What the policy remembers after as many steps as `_REMEMBERED` of what the run saw, [count,
    ...] each leaf; () without memory."""
    policy = acting.policy
    carry = policy.initial_carry((count,))
    if not policy.has_memory:
        return carry
    mean, std = np.asarray(policy.statistics.mean), np.asarray(policy.statistics.std())
    draw = np.random.default_rng(3)
    for _ in range(_REMEMBERED):
        near = mean + std * draw.standard_normal((count, mean.size), np.float32)
        _, carry = policy.act(carry, near.astype(np.float32))
    return jax.tree.map(np.asarray, carry)


def noise_key() -> jax.Array:
    """The key with which the policy samples, and from which the file's noise is drawn."""
    return jax.random.key(0)


def _failure(runtime: str, difference: np.ndarray, wrong: int, unlike: int) -> str:
    worst = float(np.max(difference))
    of = "choices differ" if unlike else "actions differ"
    count = max(unlike, wrong)
    return (
        f"the export does not act as the policy does: {of} at {count:,} of {OBSERVATIONS:,} "
        f"observations, by up to {worst:.1e} of the range in {runtime} (the limit is {LIMIT:g}); "
        "nothing was written"
    )


def _of_policy(
    acting: Acting, observations: np.ndarray, carry: Any, key: jax.Array
) -> list[np.ndarray]:
    """The policy's own actions, by its own call, its logits where it has any, and its memory."""
    policy = acting.policy
    action, after = policy.act(carry, observations, key if acting.stochastic else None)
    found = [action]
    if acting.logits is not None:
        logits = jax.jit(lambda params, statistics, carry, x: policy.network.apply(
            params, carry, statistics.normalize(x)
        )[0].logits)
        found.append(logits(policy.params, policy.statistics, carry, observations))
    return [np.asarray(x) for x in (*found, *jax.tree.leaves(after))]


def _in_batches(exported: Batches, *arrays: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(_BATCHES)[:-1]
    found = exported(list(zip(*(np.split(x, ends) for x in arrays), strict=True)))
    return [np.concatenate(outputs) for outputs in zip(*found, strict=True)]


def _rows(x: np.ndarray) -> np.ndarray:
    """[batch, ...] as [batch, numbers]."""
    return np.asarray(x, np.float64).reshape(len(x), -1)


def _largest(difference: np.ndarray) -> np.ndarray:
    """Of each row, [batch]; infinite where one is no number."""
    return np.where(np.isnan(difference), np.inf, np.abs(difference)).max(axis=1)


def _measure(acting: Acting) -> Callable[[Acting, Sequence, Sequence], np.ndarray]:
    """How far outputs are apart, [batch]: actions or logits, and what is remembered."""
    said = _of_actions if acting.logits is None else _of_logits
    first = len(acting.outputs) - len(jax.tree.leaves(acting.policy.carry_shapes))

    def measure(acting: Acting, ours: Sequence, theirs: Sequence) -> np.ndarray:
        found = said(acting, ours, theirs)
        for a, b in zip(ours[first:], theirs[first:], strict=True):
            a, b = _rows(a), _rows(b)
            with np.errstate(invalid="ignore"):
                found = np.maximum(found, _largest(b - a) / _scale(a)[:, 0])
        return found

    return measure


def _of_actions(acting: Acting, ours: Sequence, theirs: Sequence) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return _largest(_rows(theirs[0]) - _rows(ours[0])) / action_range(acting.policy)


def _of_logits(acting: Acting, ours: Sequence, theirs: Sequence) -> np.ndarray:
    a, b = _rows(ours[1]), _rows(theirs[1])
    with np.errstate(invalid="ignore"):
        return _largest(np.where(a == b, 0.0, b - a)) / _scale(a)[:, 0]


def _scale(logits: np.ndarray) -> np.ndarray:
    """Of each row the largest that is finite, and 1 at least, [batch, 1]."""
    finite = np.where(np.isfinite(logits), np.abs(logits), 0.0)
    return np.maximum(finite.max(axis=1, keepdims=True), 1.0)


def _moved_by_last_bit(
    acting: Acting, observations: np.ndarray, others: list[np.ndarray]
) -> np.ndarray:
    """How far the policy moves, [batch], when each number moves by its last bit or two."""
    measure = _measure(acting)
    draw = np.random.default_rng(1)
    still = [np.asarray(x) for x in acting.compiled(observations, *others)]
    moved = np.zeros(len(observations))
    for _ in range(_TRIALS):
        signs = draw.choice([-1.0, 1.0], observations.shape)
        near = (observations * (1 + _LAST_BIT * signs)).astype(np.float32)
        found = [np.asarray(x) for x in acting.compiled(near, *others)]
        moved = np.maximum(moved, measure(acting, still, found))
    return moved


def _choices(
    acting: Acting, ours: Sequence, theirs: Sequence, noise: list[np.ndarray], usable: np.ndarray
) -> tuple[int, int]:
    """(observations where another outcome was chosen, those of them where it is no tie).

    Rounding decides between outcomes that score alike, so another choice is right where, by the
    policy's own logits (with the noise, where there is any), it is nearly as good as the best.
    """
    if acting.logits is None:
        return 0, 0
    chosen = _indices(acting, theirs[0])
    other = usable & (_indices(acting, ours[0]) != chosen).any(axis=1)
    scores = np.asarray(ours[1], np.float64) + (noise[0] if noise else 0.0)
    scores = scores.reshape(len(scores), chosen.shape[1], -1)
    best = scores.max(axis=2)
    valid = (chosen >= 0) & (chosen < scores.shape[2])
    inside = np.clip(chosen, 0, scores.shape[2] - 1)[..., None]
    taken = np.where(valid, np.take_along_axis(scores, inside, axis=2)[..., 0], -np.inf)
    allowed = 2 * LIMIT * np.maximum(_scale(_rows(ours[1])), _scale(_rows(scores)))
    return int(other.sum()), int(np.sum(other & (best - taken > allowed).any(axis=1)))


def _indices(acting: Acting, actions: np.ndarray) -> np.ndarray:
    """Which outcomes actions are, [batch, A]; -1 where they are none."""
    space = acting.policy.action
    rows = _rows(actions)
    if not isinstance(space, Bins):
        return np.nan_to_num(rows, nan=-1).astype(np.int64)
    position = (rows - space.low) / (space.high - space.low) * (space.bins - 1)
    nearest = np.rint(np.nan_to_num(position, nan=-1))
    off = np.abs(position - nearest) > LIMIT * (space.bins - 1)
    return np.where(off, -1, nearest).astype(np.int64)
