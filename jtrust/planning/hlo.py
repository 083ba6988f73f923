"""XLA's text of a compiled program, read as far as counting needs it."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable

# `ROOT %name = type opcode(`; a type is one word, or a tuple in parentheses.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_COMMENT = re.compile(r"/\*.*?\*/")  # such as /*index=5*/ in long tuples
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
Scopes = tuple[str, ...]  # the outermost first
_SCOPE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      opcode: what it does, such as `fusion`.
      text: the line.
    """

    name: str
    opcode: str
    text: str

    @property
    def scope(self) -> str:
        """The path of JAX's name scopes that it came from; empty where XLA made it itself."""
        found = _SCOPE.search(self.text)
        return found.group(1) if found else ""

    def named(self, attribute: str) -> str | None:
        """The computation that an attribute names, such as a loop's `body`."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.text)
        return found.group(1) if found else None

    def branches(self) -> list[str]:
        """The computations of which a conditional runs one."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.text)
        if listed:
            return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
        return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", self.text)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program's computations.

    Attributes:
      computations: the instructions of each, by its name.
      entry: name of the one that runs.
    """

    computations: dict[str, list[Instruction]]
    entry: str

    def trips(self, loop: Instruction) -> int | None:
        """How often a `while` goes round; None where the program decides that as it runs."""
        told = _TRIPS.search(loop.text)
        if told:
            return int(told.group(1))
        # XLA for TPUs does not say. JAX counts its loops up from 0, by 1, to a constant.
        condition = self.computations.get(loop.named("condition") or "", [])
        constants = {
            x.name: int(found.group(1)) for x in condition
            if (found := re.search(r" constant\((\d+)\)", x.text))
        }
        end = next((x for x in condition if x.text.lstrip().startswith("ROOT")), None)
        if end is None or end.opcode != "compare" or "direction=LT" not in end.text:
            return None
        limits = [constants[name] for name in _operands(end) if name in constants]
        return limits[0] if len(limits) == 1 else None


def _operands(instruction: Instruction) -> list[str]:
    inside = instruction.text.split(instruction.opcode + "(", 1)[1].split(")", 1)[0]
    return re.findall(r"%([\w.\-]+)", inside)


def read(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    name, entry = None, ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name = head.group(2)
            computations[name] = []
            entry = name if head.group(1) else entry
        elif line.startswith("}"):
            name = None
        elif name is not None:
            line = _COMMENT.sub("", line)
            found = _INSTRUCTION.match(line)
            if found:
                result, opcode = found.groups()
                computations[name].append(Instruction(result, opcode, line))
    return Program(computations, entry)


@dataclasses.dataclass
class Tally:
    """What was counted.

    Attributes:
      counts: how many, by the key that was given to each.
      loops: {a loop's scope: how many in all of its trips}, those in the entry alone.
      endless: scopes of loops whose trips the program does not tell; each is counted once.
    """

    counts: collections.Counter
    loops: dict[str, int]
    endless: set[str]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def tally(
    program: Program, key: Callable[[Instruction, Scopes], str | None], *, inside_fusions: bool
) -> Tally:
    """Counts instructions, loops multiplied by their trips.

    Of a conditional's branches the one with most counts.

    Args:
      program: what to count in.
      key: (instruction, its scope behind those of the loops and calls around it) -> what it counts
        as, or None.
      inside_fusions: look into fusions and asynchronous computations as well.
    """
    loops: dict[str, int] = {}
    endless: set[str] = set()

    def of(name: str, around: Scopes) -> collections.Counter:
        counts: collections.Counter = collections.Counter()
        for instruction in program.computations.get(name, []):
            counts.update(of_one(instruction, around))
        return counts

    def of_one(instruction: Instruction, around: Scopes) -> collections.Counter:
        opcode, scope = instruction.opcode, instruction.scope
        scopes = (*around, scope)
        found = key(instruction, scopes)
        counts = collections.Counter() if found is None else collections.Counter({found: 1})
        if opcode == "while":
            trips = program.trips(instruction)
            inside = of(instruction.named("body") or "", scopes)
            if trips is None:
                endless.add(scope)
                inside.update(of(instruction.named("condition") or "", scopes))
            for what, count in inside.items():
                counts[what] += (1 if trips is None else trips) * count
            if not around:
                loops[scope] = loops.get(scope, 0) + sum(counts.values())
        elif opcode == "conditional":
            counts.update(max(
                (of(branch, scopes) for branch in instruction.branches()),
                key=lambda branch: sum(branch.values()), default=(),
            ))
        elif opcode == "call":
            counts.update(of(instruction.named("to_apply") or "", scopes))
        elif inside_fusions and (called := instruction.named("calls")):
            counts.update(of(called, scopes))
        return counts

    return Tally(of(program.entry, ()), loops, endless)
