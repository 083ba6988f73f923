"""What an iteration costs from one device to a pod, by a model: docs/evidence/plan/pod.md.

    python scripts/benchmarks/pod.py             # all rows not there yet, then the page
    python scripts/benchmarks/pod.py --only 8x8  # those whose name holds the word
    python scripts/benchmarks/pod.py --page      # the page alone, of what there is

Each row is a program compiled in a process of its own and kept as
docs/evidence/plan/pod/NAME.json, so it goes on where it was stopped; delete a row to have it
again. Needs the extras plan-gpu and plan-tpu. Nothing is run, on any device: what programs do is
read from them, seconds are computed from that and from published figures.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(ROOT)
from scripts.benchmarks import kept_rows

DATA, PAGE = ROOT / "docs/evidence/plan/pod", ROOT / "docs/evidence/plan/pod.md"
NOTE = "compiled and computed, not run"
ENV, BACKEND, UNROLL = "brax/ant", "spring", 64
ALGORITHMS = ("trpo", "ppo")
TARGETS = ("v5e:2x2", "v5e:2x4", "v5e:8x8", "v5e:16x16", "h100:8", "h100:8x8")
IN_ALL = 65536  # environments of every compiled program, and of strong scaling
EACH = 1024  # environments of a device in weak scaling
COUNTS = (1, 8, 64, 256)
PAYS = 0.5  # efficiency below which another device is said not to pay


# The programs: what is read from them.


@dataclasses.dataclass(frozen=True)
class Row:
    """One program, of `IN_ALL` environments."""

    target: str
    algorithm: str

    @property
    def name(self) -> str:
        return f"{self.target.replace(':', '-')}--{self.algorithm}"

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.json"


def rows() -> list[Row]:
    return [Row(target, algorithm) for algorithm in ALGORITHMS for target in TARGETS]


def result_bytes(text: str, opcode: str) -> int:
    """Bytes of an instruction's result, all of a tuple's parts, layouts and padding left out."""
    kind = text.split(" = ", 1)[1].split(f" {opcode}(", 1)[0]
    total = 0
    for name, dimensions in re.findall(r"\b([a-z]+\d*)[a-z\d]*\[([\d,]*)\]", kind):
        bits = re.search(r"\d+", name)
        width = max(int(bits.group()) // 8, 1) if bits else int(name == "pred")
        total += width * math.prod(int(n) for n in dimensions.split(",") if n)
    return total


def messages(text: str) -> list[dict[str, Any]]:
    """A program's collectives: kind, bytes of one and how many, loops multiplied by their trips."""
    from jtrust.planning import hlo
    from jtrust.planning.collectives import KINDS

    def key(instruction: hlo.Instruction, scopes: hlo.Scopes) -> str | None:
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            return None
        return f"{kind} {result_bytes(instruction.text, instruction.opcode)}"

    found = hlo.tally(hlo.read(text), key, inside_fusions=True).counts
    return [
        {"kind": kind, "bytes": int(size), "count": found[f"{kind} {size}"]}
        for kind, size in sorted((k.split() for k in found), key=lambda x: (x[0], int(x[1])))
    ]


def written_bytes(text: str) -> int:
    """What a GPU's program writes to memory in an iteration: results of fusions, copies and calls.

    One that is written in place counts whole, so it is rather too much.
    """
    from jtrust.planning import hlo

    def key(instruction: hlo.Instruction, scopes: hlo.Scopes) -> str | None:
        if instruction.opcode not in ("fusion", "copy", "custom-call"):
            return None
        return str(result_bytes(instruction.text, instruction.opcode))

    found = hlo.tally(hlo.read(text), key, inside_fusions=False).counts
    return sum(int(size) * count for size, count in found.items())


def estimated_cycles(text: str) -> int:
    """Cycles of a TPU's core that XLA for TPUs expects of an iteration, as it writes them beside
    each fusion and copy. Loops whose end the program finds count once."""
    from jtrust.planning import hlo

    def key(instruction: hlo.Instruction, scopes: hlo.Scopes) -> str | None:
        found = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
        return found.group(1) if found else None

    found = hlo.tally(hlo.read(text), key, inside_fusions=False).counts
    return sum(int(cycles) * count for cycles, count in found.items())


def compile_row(row: Row) -> dict[str, Any]:
    """The row's figures, in this process."""
    import jax

    import jtrust
    from jtrust.algorithms import ALGORITHMS as BY_NAME
    from jtrust.planning.compilation import compile_iteration
    from jtrust.planning.launches import count_launches
    from jtrust.planning.targets import devices_of, find_target

    target = find_target(row.target)
    devices = devices_of(target)
    trainer = jtrust.make_trainer(
        jtrust.make_env(ENV, backend=BACKEND), BY_NAME[row.algorithm](), devices=devices,
        num_envs=IN_ALL, unroll_length=UNROLL,
    )
    program = compile_iteration(trainer)
    launches = count_launches(program.text, UNROLL)
    gpu = target.platform == "gpu"
    return {
        "name": row.name, "target": row.target, "platform": target.platform,
        "devices": len(devices), "hosts": len({d.process_index for d in devices}),
        "env": ENV, "backend": BACKEND, "algorithm": row.algorithm, "num_envs": IN_ALL,
        "unroll_length": UNROLL, "memory_bytes": program.memory_bytes,
        "usable_memory_bytes": target.usable_bytes,
        "messages": messages(program.text), "uncounted_loops": len(launches.uncounted_loops),
        "launches": launches.total if gpu else None,
        "written_bytes": written_bytes(program.text) if gpu else None,
        "estimated_cycles": None if gpu else estimated_cycles(program.text),
        "compile_seconds": round(program.seconds, 1), "jax": jax.__version__,
        "jtrust": jtrust.__version__, "note": "compiled, not run",
    }


# The model: seconds from what programs do and from published figures.


@dataclasses.dataclass(frozen=True)
class Links:
    """How devices of one kind reach each other.

    Attributes:
      name: of the device.
      latency: (devices) -> seconds of an all-reduce of nothing.
      bandwidth: (devices) -> bytes per second that a device sends while it receives as many.
    """

    name: str
    latency: Callable[[int], float]
    bandwidth: Callable[[int], float]


def ring_seconds(size: float, devices: int, bandwidth: float) -> float:
    """Seconds in which a ring all-reduces `size` bytes: each device sends 2 (n - 1) / n of them.

    Args:
      size: bytes.
      devices: n.
      bandwidth: bytes per second that a device sends while it receives as many.
    """
    return 2 * (devices - 1) / devices * size / bandwidth


def message_seconds(
    found: Iterable[dict[str, Any]], devices: int, links: Links, times: float = 1
) -> tuple[float, float]:
    """Seconds that an iteration's collectives take: by latency, and by bytes.

    Args:
      found: `bytes` of one and `count`, as `messages` gives them.
      devices: how many take part; one sends nothing.
      links: between them.
      times: what all latencies are multiplied by.
    """
    if devices == 1:
        return 0.0, 0.0
    found = list(found)
    latency = times * links.latency(devices) * sum(m["count"] for m in found)
    bandwidth = links.bandwidth(devices)
    return latency, sum(m["count"] * ring_seconds(m["bytes"], devices, bandwidth) for m in found)


def iteration_seconds(
    computing: float, found: Iterable[dict[str, Any]], devices: int, links: Links, times: float = 1
) -> float:
    """Seconds of an iteration, in which nothing of the collectives is hidden by computing.

    Args:
      computing: seconds that one device computes.
      found, devices, links, times: as for `message_seconds`.
    """
    return computing + sum(message_seconds(found, devices, links, times))


def gpu_computing(
    launches: float, written: float, launch_seconds: float, memory_bandwidth: float
) -> float:
    """Seconds of a GPU's iteration: its launches, and its memory's traffic on top of them.

    Args:
      launches: kernels, copies and calls.
      written: bytes of their results; as many are taken to be read.
      launch_seconds: of one that does next to nothing.
      memory_bandwidth: bytes per second.
    """
    return launches * launch_seconds + 2 * written / memory_bandwidth


def between(points: dict[int, float], at: float) -> float:
    """The value at `at` by straight lines through `points`, the outer ones prolonged."""
    known = sorted(points)
    if len(known) == 1:
        return points[known[0]]
    after = next((i for i, x in enumerate(known) if x >= at), len(known) - 1)
    low, high = known[max(after, 1) - 1], known[max(after, 1)]
    return points[low] + (points[high] - points[low]) * (at - low) / (high - low)


# Published figures. Bytes are per second and one way; seconds are of one step.
LAUNCH_SECONDS = 0.15 / 25_476  # docs/evidence/speed.md, plan/device.md there: hopper on an H200
H100_MEMORY = 3.35e12  # NVIDIA H100 data sheet, SXM
NVLINK = 900e9 / 2  # NVIDIA H100 data sheet: 900 GB/s, both ways together
INFINIBAND = 400e9 / 8  # NDR, a ConnectX-7 port of 400 Gb/s per GPU: DGX H100, core components
GPUS_OF_A_HOST = 8
# NCCL's own model, src/graph/tuning.cc: tree, LL protocol; start, a step by NVLink, by network.
NCCL_START, NCCL_NVLINK, NCCL_NETWORK = 6.8e-6, 0.6e-6, 5.0e-6
V5E_CLOCK = 1.5e9  # 197 Tflop/s by four units of 128 x 128 multiply-adds: Cloud TPU v5e
V5E_LINKS = 1600e9 / 8  # Cloud TPU v5e: 1600 Gb/s by four links
V5E_RING = 16  # an axis as long as this is a ring, a shorter one a line
# How to Scale Your Model, "Sharded matrices": 1 µs a hop; 3 hops took 8 µs, so 5 to begin with.
ICI_START, ICI_HOP = 5e-6, 1e-6


def gpu_latency(devices: int) -> float:
    """Seconds of an empty all-reduce over H100s, eight of a host: along hosts as a tree, in each as
    a chain, there and back."""
    near, hosts = min(devices, GPUS_OF_A_HOST), math.ceil(devices / GPUS_OF_A_HOST)
    steps = (near - 1) * NCCL_NVLINK + math.ceil(math.log2(hosts)) * NCCL_NETWORK
    return NCCL_START + 2 * steps


def gpu_bandwidth(devices: int) -> float:
    return NVLINK if devices <= GPUS_OF_A_HOST else INFINIBAND


def v5e_shape(devices: int) -> tuple[int, int]:
    """The slice of so many chips, a power of two: 8 are 2 x 4."""
    power = round(math.log2(devices))
    return 2 ** (power // 2), 2 ** (power - power // 2)


def v5e_latency(devices: int) -> float:
    """Seconds of an empty all-reduce over a slice: along each axis as far as it goes, two times."""
    hops = sum(n // 2 if n == V5E_RING else n - 1 for n in v5e_shape(devices))
    return ICI_START + 2 * hops * ICI_HOP


def v5e_bandwidth(devices: int) -> float:
    """Of the four links, those that take part: on a line two of them carry a message."""
    return V5E_LINKS if min(v5e_shape(devices)) == V5E_RING else V5E_LINKS / 2


LINKS = {
    "tpu": Links("TPU v5e", v5e_latency, v5e_bandwidth),
    "gpu": Links("H100", gpu_latency, gpu_bandwidth),
}


@dataclasses.dataclass(frozen=True)
class Scaling:
    """An algorithm on one kind of device, from its compiled programs.

    Attributes:
      platform, algorithm: which.
      found: rows of it, as `compile_row` gives them.
    """

    platform: str
    algorithm: str
    found: tuple[dict[str, Any], ...]

    @property
    def links(self) -> Links:
        return LINKS[self.platform]

    def messages(self, devices: int) -> list[dict[str, Any]]:
        """Those of the compiled program whose number of devices is nearest, by ratio."""
        row = min(self.found, key=lambda row: abs(math.log(row["devices"] / devices)))
        return row["messages"]

    def computing(self, each: int) -> float:
        """Seconds that a device with `each` environments computes in an iteration."""
        sizes = {row["num_envs"] // row["devices"]: row for row in self.found}
        if self.platform == "tpu":
            cycles = {n: row["estimated_cycles"] for n, row in sizes.items()}
            return between(cycles, each) / V5E_CLOCK
        # Launches of the size nearest by ratio; what is written grows with the environments.
        size = min(sizes, key=lambda n: abs(math.log(n / each)))
        row = sizes[size]
        written = row["written_bytes"] * each / size
        return gpu_computing(row["launches"], written, LAUNCH_SECONDS, H100_MEMORY)

    def memory(self, each: int) -> tuple[float, int]:
        """Bytes that a device with `each` environments needs, by straight lines, and may have."""
        needed = {row["num_envs"] // row["devices"]: row["memory_bytes"] for row in self.found}
        if len(needed) == 1:
            needed[0] = 0
        return between(needed, each), self.found[0]["usable_memory_bytes"]

    def seconds(self, devices: int, each: int, times: float = 1) -> float:
        return iteration_seconds(
            self.computing(each), self.messages(devices), devices, self.links, times
        )

    def weak(self, devices: int, times: float = 1) -> float:
        """Efficiency with `EACH` environments on every device."""
        return self.computing(EACH) / self.seconds(devices, EACH, times)

    def strong(self, devices: int, times: float = 1) -> float:
        """Efficiency with `IN_ALL` environments shared by all."""
        alone = self.computing(IN_ALL)
        return alone / (devices * self.seconds(devices, IN_ALL // devices, times))


def first_below(efficiency: Callable[[int], float], most: int = COUNTS[-1]) -> int | None:
    """The smallest power of two of devices whose efficiency is below `PAYS`; None up to `most`."""
    counts = (2**k for k in range(1, round(math.log2(most)) + 1))
    return next((n for n in counts if efficiency(n) < PAYS), None)


# The page.


def count(found: Iterable[dict[str, Any]]) -> int:
    return sum(m["count"] for m in found)


def sent(found: Iterable[dict[str, Any]]) -> int:
    """Bytes that all collectives of an iteration reduce."""
    return sum(m["count"] * m["bytes"] for m in found)


def more_collectives(found: Iterable[dict[str, Any]]) -> list[str]:
    """Rows with more collectives, of any kind, than the same algorithm's on one host."""
    found = list(found)
    kinds = {row["name"]: _by_kind(row["messages"]) for row in found}
    more = []
    for row in found:
        alone = [
            kinds[x["name"]] for x in found
            if x["hosts"] == 1 and (x["platform"], x["algorithm"]) == (
                row["platform"], row["algorithm"]
            )
        ]
        if any(n > one.get(kind, 0) for one in alone for kind, n in kinds[row["name"]].items()):
            more.append(row["name"])
    return more


def _by_kind(found: Iterable[dict[str, Any]]) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for m in found:
        kinds[m["kind"]] = kinds.get(m["kind"], 0) + m["count"]
    return kinds


def stops(scaling: Scaling) -> str:
    """Where adding devices stops paying, in a sentence."""
    said = []
    for what, efficiency in (
        (f"{EACH:,} environments a device", scaling.weak), (f"{IN_ALL:,} in all", scaling.strong),
    ):
        n, ten = first_below(efficiency), first_below(lambda n, e=efficiency: e(n, 10))
        last = COUNTS[-1]
        part = f"with {what} efficiency " + (
            f"is still {efficiency(last):.2f} on {last} devices" if n is None else
            f"falls below one half at {n} devices"
        )
        if ten != n:
            part += f" (with ten times the latency at {ten})"
        said.append(part)
    return f"{scaling.algorithm} on {scaling.links.name}: {'; '.join(said)}."


def advice(scalings: Iterable[Scaling]) -> str:
    """What follows for whoever wants more devices; empty where they do not agree."""
    scalings = list(scalings)
    grows = all(first_below(x.weak) is None for x in scalings)
    shrinks = all(first_below(x.strong) is None for x in scalings)
    if not grows or shrinks:
        return ""
    few = EACH // 4
    shares = sorted(x.computing(few) / x.computing(EACH) for x in scalings)
    return (
        "So add devices to have more environments, not to have the same ones faster. What stops "
        f"it is not the links: a device with {few:,} environments computes for {shares[0]:.2f} to "
        f"{shares[-1]:.2f} of the time that {EACH:,} take."
    )


def make_page() -> None:
    """Writes docs/evidence/plan/pod.md from the rows that there are."""
    found = [json.loads(row.path.read_text()) for row in rows() if row.path.exists()]
    if not found:
        raise SystemExit("no rows in docs/evidence/plan/pod yet")
    scalings = []
    for platform in LINKS:
        for algorithm in ALGORITHMS:
            of_it = tuple(
                x for x in found if (x["platform"], x["algorithm"]) == (platform, algorithm)
            )
            if of_it:
                scalings.append(Scaling(platform, algorithm, of_it))
    lines = [
        "# From one device to a pod", "",
        f"Every figure: {NOTE}. Made by `python scripts/benchmarks/pod.py`, jax "
        f"{', '.join(sorted({x['jax'] for x in found}))}: {ENV} on `{BACKEND}`, {UNROLL} steps an "
        "iteration.", "", *(f"- {stops(x)}" for x in scalings), "", advice(scalings), "",
        *_programs(found), *_model(),
        *_table("Weak scaling", f"{EACH:,} environments on every device", scalings, True),
        *_table("Strong scaling", f"{IN_ALL:,} environments in all", scalings, False),
    ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(PAGE.relative_to(ROOT))


def _programs(found: list[dict[str, Any]]) -> list[str]:
    more = more_collectives(found)
    said = (
        "No program of several hosts, that of 256 chips included, has more collectives than that "
        "of one host." if not more else f"More collectives than on one host: {', '.join(more)}."
    )
    lines = [
        "## The programs", "",
        f"Of {IN_ALL:,} environments, by XLA's text of each. {said} Loops "
        "that run until a condition holds (a line search, one in each round of the value fit) "
        "count once. Cycles are what XLA for TPUs writes beside each instruction.", "",
        "| target | hosts | devices | algorithm | collectives | bytes an iteration | largest "
        "| work of a device |", "|" + " --- |" * 8,
    ]
    for row in found:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in _by_kind(row["messages"]).items())
        work = (
            f"{row['estimated_cycles'] / 1e6:,.0f} million cycles" if row["launches"] is None else
            f"{row['launches']:,} launches, {row['written_bytes'] / 1e9:,.1f} GB written"
        )
        largest = max((m["bytes"] for m in row["messages"]), default=0)
        lines.append(
            f"| {row['target']} | {row['hosts']} | {row['devices']} | {row['algorithm']} | "
            f"{kinds or 'none'} | {sent(row['messages']) / 1e3:,.0f} kB | {largest / 1e3:,.1f} kB "
            f"| {work} |"
        )
    return [*lines, ""]


def _model() -> list[str]:
    ici = {n: f"{v5e_latency(n) * 1e6:.0f} µs" for n in COUNTS[1:]}
    nccl = {n: f"{gpu_latency(n) * 1e6:.0f} µs" for n in COUNTS[1:]}
    latencies = "; ".join(
        f"{name} {', '.join(f'{x} on {n}' for n, x in of.items())}"
        for name, of in (("TPU", ici), ("GPU", nccl))
    )
    return [
        "## The model", "",
        "Seconds of an iteration: what one device computes, and for each collective a latency and "
        "2 (n - 1) / n of its bytes over the link. Nothing is hidden behind computing. Efficiency "
        "is that of n devices beside one: 1 if each did as much as it does alone. Where one device "
        "has too little memory, by straight lines between the compiled sizes, it is reckoned as if "
        "it had enough.", "",
        f"- **A GPU computes** for launches x {LAUNCH_SECONDS * 1e6:.1f} µs, as hopper on "
        "`spring` with 4096 environments did on an H200 (0.15 s for 25,476: "
        "[speed.md](../speed.md#on-a-gpu), [device.md](device.md)), and for the bytes "
        "it writes and as many read at 3.35 TB/s ([H100 data sheet]"
        "(https://www.nvidia.com/en-us/data-center/h100/), SXM). Launches are those of the "
        "compiled program nearest in environments of a device, bytes grow with them.",
        "- **A TPU v5e computes** for XLA's cycles at 1.5 GHz, which are 197 Tflop/s by four units "
        "of 128 x 128 ([Cloud TPU v5e](https://cloud.google.com/tpu/docs/v5e)); between and beyond "
        "the compiled sizes by straight lines. No TPU was tried, so how far XLA's estimate is off "
        "is not known.",
        "- **Links, one way**: NVLink 4 450 GB/s (900 both ways: H100 data sheet) within eight "
        "GPUs, InfiniBand NDR 400 Gb/s beyond, a port for each GPU ([DGX H100](https://docs.nvidia"
        ".com/dgx-basepod/reference-architecture-infrastructure-foundation-enterprise-ai/latest/"
        "core-components.html)); v5e 1600 Gb/s a chip by four links (Cloud TPU v5e, as above), "
        "half of it on slices without rings, which are those below 16 x 16.",
        f"- **Latencies** are assumptions: {latencies}. TPU: 5 µs and 1 µs a hop, there and back "
        "([How to Scale Your Model](https://jax-ml.github.io/scaling-book/sharding/): about 1 µs a "
        "hop, 8 µs where three were expected). GPU: what NCCL reckons with, tree and LL "
        "([tuning.cc](https://github.com/NVIDIA/nccl/blob/b6475625fbcaa2c3c0e50eed2fa1255d7514d4a2/"
        "src/graph/tuning.cc): 6.8 µs, 0.6 a step by NVLink, 5.0 by network). The last "
        "column has ten times as much.",
        "- **Not in it**: hosts that are late, physics that takes longer on one device than on "
        "another, a GPU that more environments fill before its memory's traffic does, and slices "
        "joined by the data centre's network (6.4 Tb/s a v5e pod of 256).", "",
    ]


def _table(title: str, what: str, scalings: list[Scaling], weak: bool) -> list[str]:
    lines = [
        f"## {title}", "", f"{what[0].upper()}{what[1:]}; {NOTE}.", "",
        "| device | algorithm | devices | environments a device | memory | computing | latencies "
        "| bytes | seconds an iteration | efficiency | with ten times the latency |",
        "|" + " --- |" * 11,
    ]
    for scaling in scalings:
        for n in COUNTS:
            each = EACH if weak else IN_ALL // n
            latency, by_bytes = message_seconds(scaling.messages(n), n, scaling.links)
            efficiency = scaling.weak if weak else scaling.strong
            needed, usable = scaling.memory(each)
            mark = ": too much" if needed > usable else ""
            lines.append(
                f"| {scaling.links.name} | {scaling.algorithm} | {n} | {each:,} | "
                f"{needed / 1e6:,.0f} MB{mark} | {scaling.computing(each) * 1e3:,.0f} ms | "
                f"{latency * 1e3:,.1f} ms | {by_bytes * 1e3:,.2f} ms | "
                f"{scaling.seconds(n, each):.3f} | {efficiency(n):.2f} | {efficiency(n, 10):.2f} |"
            )
    return [*lines, ""]


def main(args: list[str] | None = None) -> None:
    from jtrust.planning.processes import QUIET

    kept_rows.main(__file__, __doc__, rows(), compile_row, make_page, args, QUIET)


if __name__ == "__main__":
    main()
