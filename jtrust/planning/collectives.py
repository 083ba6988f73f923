"""What a compiled program's devices say to one another."""

from __future__ import annotations

from jtrust.planning import hlo

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
)
_BY_OPCODE = {opcode: kind for kind in KINDS for opcode in (kind, f"{kind}-start")}


def count_collectives(text: str) -> dict[str, int]:
    """How many collectives of each kind a program does, loops multiplied by their trips."""

    def key(instruction: hlo.Instruction, scopes: hlo.Scopes) -> str | None:
        return _BY_OPCODE.get(instruction.opcode)

    found = hlo.tally(hlo.read(text), key, inside_fusions=True).counts
    return {kind: found[kind] for kind in KINDS if found[kind]}
