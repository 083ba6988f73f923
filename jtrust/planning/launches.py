"""What a compiled GPU program launches, by the phase of an iteration."""

from __future__ import annotations

import dataclasses
import re

from jtrust.planning import hlo

# What XLA does on the host, or nowhere: names for memory, and the ends of what was begun before.
_NO_LAUNCH = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "after-all", "partition-id", "replica-id", "opt-barrier", "domain", "copy-done", "async-done",
    "async-update", "all-reduce-done", "all-gather-done", "collective-permute-done", "send-done",
    "recv-done",
))

# JAX's name scopes in an iteration (training/, algorithms/), an inner one before what holds it.
PHASES = (
    "physics", "rollout", "fresh_starts", "advantages", "normalization", "policy_gradient",
    "fisher_vector_products", "line_search", "policy_update", "value_fit",
)
REST = "rest"


@dataclasses.dataclass(frozen=True)
class Launches:
    """What a program launches on a GPU.

    Attributes:
      total: of the whole program.
      by_phase: the same by phase; what lies in an inner phase is not in the outer one.
      per_step: of one step of the rollout; None where there is none.
      uncounted_loops: scopes of loops whose trips are not known, counted once each.
    """

    total: int
    by_phase: dict[str, int]
    per_step: float | None
    uncounted_loops: tuple[str, ...]


def phase(*scopes: str) -> str:
    """The phase that paths of name scopes lie in; an inner one, which comes last, decides first."""
    for scope in reversed(scopes):
        words = set(re.findall(r"\w+", scope))
        for name in PHASES:
            if name in words:
                return name
    return REST


def count_launches(text: str, unroll_length: int | None = None) -> Launches:
    """Counts what a program's text would launch.

    An instruction of the final program that is not inside a fusion is one launch: a fusion, a
    copy, a call of a library. A conditional is one, which decides, beside those of its dearest
    branch.

    Args:
      text: `compiled.as_text()` of a program compiled for a GPU.
      unroll_length: steps of its rollout, where it has one.
    """

    def key(instruction: hlo.Instruction, scopes: hlo.Scopes) -> str | None:
        return None if instruction.opcode in _NO_LAUNCH else phase(*scopes)

    found = hlo.tally(hlo.read(text), key, inside_fusions=False)
    in_order = {name: found.counts[name] for name in (*PHASES, REST) if found.counts[name]}
    rollouts = [n for scope, n in found.loops.items() if scope.endswith("rollout/while")]
    per_step = round(sum(rollouts) / unroll_length, 1) if unroll_length and rollouts else None
    return Launches(found.total, in_order, per_step, tuple(sorted(found.endless)))
