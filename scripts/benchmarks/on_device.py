"""What `jtrust plan` says of a GPU's program beside what it does: docs/evidence/plan/device.md.

    python scripts/benchmarks/on_device.py plan                 # anywhere: compiled, not run
    python scripts/benchmarks/on_device.py measure [--only WORD ...] [--minutes 4]   # on a GPU
    python scripts/benchmarks/on_device.py tables

`measure` compiles all programs side by side, a process each, and runs one at a time once all are
ready. Kernels are counted in a trace of the JAX profiler. Both keep
docs/evidence/plan/device/NAME--*.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(ROOT)

DATA, TABLES = ROOT / "docs/evidence/plan/device", ROOT / "docs/evidence/plan/device.md"
UNROLL, TARGET = 64, "h100"


@dataclasses.dataclass(frozen=True)
class Row:
    """One program: an environment, an algorithm, a number of environments."""

    task: str
    env: str
    backend: str | None
    algorithm: str
    num_envs: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.algorithm}-{self.num_envs}"

    @property
    def options(self) -> dict[str, Any]:
        return {"backend": self.backend} if self.backend else {}

    def path(self, kind: str) -> Path:
        return DATA / f"{self.name}--{kind}.json"


ROWS = (
    *(Row("hopper-spring", "brax/hopper", "spring", "trpo", n) for n in (64, 1024, 4096, 16384)),
    Row("hopper-spring", "brax/hopper", "spring", "ppo", 4096),
    *(Row("ant-spring", "brax/ant", "spring", name, 4096) for name in ("trpo", "ppo")),
    Row("ant-mjx", "brax/ant", "mjx", "trpo", 4096),
    Row("humanoid-positional", "brax/humanoid", "positional", "trpo", 4096),
    Row("CheetahRun", "playground/CheetahRun", None, "trpo", 4096),
)


def plan(row: Row) -> dict[str, Any]:
    """What is said of the program without the device."""
    import jax

    import jtrust
    from jtrust.algorithms import ALGORITHMS

    found = jtrust.plan(
        row.env, ALGORITHMS[row.algorithm](), target=TARGET, env_options=row.options,
        num_envs=row.num_envs, unroll_length=UNROLL, largest=False,
    )
    return {
        "launches": found.launches, "launches_by_phase": found.launches_by_phase,
        "uncounted_loops": found.uncounted_loops, "memory_bytes": found.memory_bytes,
        "jax": jax.__version__, "note": found.note,
    }


def measure(row: Row) -> dict[str, Any]:
    """Compiles, waits for a line on standard input, and runs alone on the device."""
    import jax

    import jtrust
    from jtrust.algorithms import ALGORITHMS
    from jtrust.planning.launches import count_launches
    from jtrust.training.mesh import compiler_options

    trainer = jtrust.make_trainer(
        jtrust.make_env(row.env, **row.options), ALGORITHMS[row.algorithm](),
        num_envs=row.num_envs, unroll_length=UNROLL, devices=1,
    )
    state = trainer.init(jax.random.key(0))
    jax.block_until_ready(state)
    started = time.perf_counter()
    iterate = jax.jit(
        trainer.iterate, donate_argnums=0, compiler_options=compiler_options(trainer.mesh)
    ).lower(state).compile()
    compiled = time.perf_counter()
    print("ready", flush=True)
    sys.stdin.readline()

    analysis, text = iterate.memory_analysis(), iterate.as_text()
    assert analysis is not None and text is not None, "no GPU's program"
    for _ in range(2):
        state, _ = iterate(state)
    jax.block_until_ready(state)
    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(iterate(state))
        traced = _kernels(Path(folder))
    counted = count_launches(text, UNROLL)
    return {
        "device": device.device_kind, "jax": jax.__version__, "compile_seconds": compiled - started,
        "memory_bytes": analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "peak_bytes": peak, "launches": counted.total, "launches_by_phase": counted.by_phase,
        "traced": traced,
    }


def _kernels(folder: Path) -> dict[str, int]:
    """Kernels and copies on the device's streams in a trace."""
    from jax.profiler import ProfileData

    (path,) = folder.glob("**/*.xplane.pb")
    names = [
        event.name.lower() for plane in ProfileData.from_file(str(path)).planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines if line.name.startswith("Stream") for event in line.events
    ]
    copies = sum(name.startswith(("memcpy", "memset")) for name in names)
    return {"kernels": len(names) - copies, "copies": copies}


def keep(row: Row, kind: str, found: dict[str, Any]) -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    row.path(kind).write_text(json.dumps(dataclasses.asdict(row) | found, indent=1) + "\n")


def measure_all(rows: list[Row], minutes: float) -> None:
    """Compiles side by side; once all are ready, runs one at a time."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    stop = time.monotonic() + 60 * minutes
    children = {
        row: subprocess.Popen(
            [sys.executable, __file__, "row", row.name], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        ) for row in rows
    }
    for row, child in children.items():
        if not select.select([child.stdout], [], [], max(stop - time.monotonic(), 0))[0]:
            print(f"{row.name}: not compiled in time", flush=True)
            child.kill()
            continue
        if child.stdout.readline() != "ready\n":
            print(f"{row.name}: failed", flush=True)
    for row, child in children.items():
        if child.poll() is not None:
            continue
        try:
            out, _ = child.communicate("go\n", timeout=max(stop - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            child.kill()
            print(f"{row.name}: not run in time", flush=True)
            continue
        if child.returncode:
            print(f"{row.name}: failed", flush=True)
            continue
        found = json.loads(out.splitlines()[-1])
        keep(row, "measured", found)
        print(f"{row.name}: {found['launches']:,} launches, {found['traced']} traced", flush=True)


def make_tables() -> None:
    """Writes docs/evidence/plan/device.md from what was planned and measured."""
    pairs = [
        (row, *(json.loads(row.path(kind).read_text()) for kind in ("planned", "measured")))
        for row in ROWS if row.path("planned").exists() and row.path("measured").exists()
    ]
    if not pairs:
        raise SystemExit(f"nothing planned and measured in {DATA.relative_to(ROOT)} yet")
    devices = sorted({m["device"] for _, _, m in pairs})
    versions = sorted({x["jax"] for _, *both in pairs for x in both})
    lines = [
        "# A plan beside the device", "",
        f"Made by `python scripts/benchmarks/on_device.py`: planned for {TARGET} (compiled, not "
        f"run), measured on {', '.join(devices)}, jax {', '.join(versions)}; iterations of "
        f"{UNROLL} steps. Launches: `jtrust plan`'s count, the same count of the program that the "
        "device ran, and what the profiler saw it do in one iteration (a loop that runs until a "
        "condition holds counts once in the first two). Memory: the plan's, and the device's "
        "highest. Seconds: compiling, with others that compiled on the same 16 cores.",
        "",
        "| task | algorithm | environments | planned launches | compiled there | kernels and "
        "copies traced | planned memory | highest there | compiled in |",
        "|" + " --- |" * 9,
    ]
    for row, planned, measured in pairs:
        traced = measured["traced"]
        cells = [
            row.task, row.algorithm, f"{row.num_envs:,}", f"{planned['launches']:,}",
            f"{measured['launches']:,}", f"{traced['kernels'] + traced['copies']:,}",
            f"{planned['memory_bytes'] / 1e6:,.0f} MB", f"{measured['peak_bytes'] / 1e6:,.0f} MB",
            f"{measured['compile_seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    TABLES.write_text("\n".join(lines) + "\n")
    print(TABLES.relative_to(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("plan", "measure", "tables", "row"))
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one")
    parser.add_argument("--minutes", type=float, default=4.0, help="of `measure`, at most")
    given = parser.parse_args()
    rows = [row for row in ROWS if any(word in row.name for word in given.only)]
    if given.command == "row":
        print(json.dumps(measure(next(row for row in ROWS if row.name == given.name))))
    elif given.command == "plan":
        for row in rows:
            if not row.path("planned").exists():
                print(row.name, flush=True)
                keep(row, "planned", plan(row))
    elif given.command == "measure":
        measure_all(rows, given.minutes)
    else:
        make_tables()


if __name__ == "__main__":
    main()
