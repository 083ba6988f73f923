"""Programs of an iteration for devices that are not here: docs/evidence/plan/tables.md.

    python scripts/benchmarks/plan_tables.py             # all rows not there yet, then the tables
    python scripts/benchmarks/plan_tables.py --only ant  # those whose name holds the word
    python scripts/benchmarks/plan_tables.py --page      # the tables alone, of what there is

Each row is compiled in a process of its own and kept as docs/evidence/plan/data/NAME.json, so it
goes on where it was stopped; delete a row to have it again. Needs the extras plan-gpu, plan-tpu,
playground and gymnax. Nothing is run, on any device.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(ROOT)
from scripts.benchmarks import kept_rows

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

DATA, TABLES = ROOT / "docs/evidence/plan/data", ROOT / "docs/evidence/plan/tables.md"
UNROLL = 64
TARGETS = {"h100": 4096, "v5e:16x16": 65536}
ENVIRONMENTS = {
    "ant": ("brax/ant", {"backend": "mjx"}),
    "humanoid": ("brax/humanoid", {"backend": "mjx"}),
    "CheetahRun": ("playground/CheetahRun", {}),
    "CartPole": ("gymnax/CartPole-v1", {}),
}
ALGORITHMS = ("trpo", "npg", "ppo", "ppo-kl")
BRAX = "brax-ppo"


@dataclasses.dataclass(frozen=True)
class Row:
    """One program."""

    target: str
    env: str
    algorithm: str

    @property
    def name(self) -> str:
        return f"{self.target.replace(':', '-')}--{self.env}--{self.algorithm}"

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.json"


def rows() -> list[Row]:
    return [
        Row(target, env, algorithm) for target in TARGETS for env in ENVIRONMENTS
        for algorithm in (*ALGORITHMS, BRAX)
        # CartPole's actions are discrete, which brax's PPO has none of.
        if not (algorithm == BRAX and env == "CartPole")
    ]


def compile_row(row: Row) -> dict[str, Any]:
    """The row's figures, in this process."""
    import jax

    import jtrust

    found = _brax(row) if row.algorithm == BRAX else _ours(row)
    return {
        "name": row.name, "target": row.target, "env": row.env, "algorithm": row.algorithm,
        **found, "jax": jax.__version__, "jtrust": jtrust.__version__, "note": "compiled, not run",
    }


def _ours(row: Row) -> dict[str, Any]:
    import jtrust
    from jtrust.algorithms import ALGORITHMS as BY_NAME

    name, options = ENVIRONMENTS[row.env]
    found = jtrust.plan(
        name, BY_NAME[row.algorithm](), target=row.target, env_options=options,
        num_envs=TARGETS[row.target], unroll_length=UNROLL, largest=False,
    )
    steps = found.num_envs * found.unroll_length
    phases = found.launches_by_phase
    return {
        "num_envs": found.num_envs, "steps": steps, "fits": found.fits,
        "memory_bytes": found.memory_bytes, "launches": found.launches, "phases": phases,
        "physics_launches_per_step":
            None if phases is None else phases["physics"] / found.unroll_length,
        "collectives": found.collectives, "compile_seconds": found.compile_seconds,
    }


def _brax(row: Row) -> dict[str, Any]:
    from jtrust.planning.collectives import count_collectives
    from jtrust.planning.launches import count_launches
    from jtrust.planning.targets import devices_of, find_target
    from scripts.benchmarks.brax_program import compile_brax_ppo
    from scripts.learning import peers
    from scripts.learning.suite import Task

    name, options = ENVIRONMENTS[row.env]
    task = Task(row.env, name, 0, 0, 1, **options)
    suite = name.split("/")[0]
    make = peers.of_playground if suite == "playground" else peers.of_brax
    environment, settings = make(name.split("/")[1], task)
    settings = with_environments(settings, TARGETS[row.target])
    settings.pop("num_resets_per_eval", None)
    found = compile_brax_ppo(environment, settings, devices_of(find_target(row.target)))
    unroll, repeat = settings["unroll_length"], settings["action_repeat"]
    steps = settings["batch_size"] * settings["num_minibatches"] * unroll * repeat
    launches = phases = None
    if row.target == "h100":
        counted = count_launches(found.text)
        launches, phases = counted.total, counted.by_phase
    in_time = steps // settings["num_envs"]
    return {
        "num_envs": settings["num_envs"], "steps": steps, "fits": not found.refused,
        "memory_bytes": found.memory_bytes, "launches": launches, "phases": phases,
        "physics_launches_per_step": None if phases is None else phases["physics"] / in_time,
        "collectives": count_collectives(found.text), "compile_seconds": round(found.seconds, 2),
        "settings": {k: v for k, v in settings.items() if isinstance(v, (int, float, bool))},
    }


def with_environments(settings: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """The published settings with as many environments as jtrust has in the table.

    A batch that would not hold a whole unroll of each grows to hold one.
    """
    batch, count = settings["batch_size"], settings["num_minibatches"]
    if batch * count % num_envs:
        batch = num_envs // count
    return settings | {"num_envs": num_envs, "batch_size": batch}


def make_tables() -> None:
    """Writes docs/evidence/plan/tables.md from the rows that there are."""
    found = [json.loads(row.path.read_text()) for row in rows() if row.path.exists()]
    if not found:
        raise SystemExit("no rows in docs/evidence/plan/data yet")
    versions = sorted({row["jax"] for row in found})
    lines = [
        "# Programs for devices that are not here", "",
        "Every figure: compiled, not run. Made by `python scripts/benchmarks/plan_tables.py`, jax "
        f"{', '.join(versions)}; what the columns mean: [plan.md](../../do/plan.md). "
        "brax's PPO has the settings published for the task, with as many environments; its "
        "launches and collectives are those of one of its training steps, scaled to the same "
        "number of environment steps; its memory is that step's. Seconds are of a small machine "
        "that had other work.", "",
    ]
    for target, num_envs in TARGETS.items():
        of_target = [row for row in found if row["target"] == target]
        if of_target:
            steps = num_envs * UNROLL
            lines += [
                f"## {target}, {num_envs:,} environments x {UNROLL} steps", "",
                *(_gpu_table if target == "h100" else _tpu_table)(of_target, steps), "",
            ]
    TABLES.parent.mkdir(parents=True, exist_ok=True)
    TABLES.write_text("\n".join(lines).rstrip() + "\n")
    print(TABLES.relative_to(ROOT))


# Columns of a GPU's table, and what of `Plan.launches_by_phase` is in each; all else is the rest.
PHASES = {
    "physics": ("physics",), "rest of the rollout": ("rollout",),
    "fresh starts": ("fresh_starts",), "value fit": ("value_fit",),
}


def _gpu_table(found: list[dict], steps: int) -> list[str]:
    head = [
        "task", "algorithm", "launches", "physics a step", *PHASES, "the rest", "memory",
        "compiled in",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in found:
        scale = steps / row["steps"]
        phases = {k: v * scale for k, v in row["phases"].items()}
        parts = {
            name: sum(phases[k] for k in kinds) if set(kinds) <= set(phases) else None
            for name, kinds in PHASES.items()
        }
        rest = row["launches"] * scale - sum(x for x in parts.values() if x is not None)
        cells = [
            row["env"], row["algorithm"], f"{row['launches'] * scale:,.0f}",
            f"{row['physics_launches_per_step']:,.0f}",
            *("-" if x is None else f"{x:,.0f}" for x in parts.values()), f"{rest:,.0f}",
            f"{row['memory_bytes'] / 1e6:,.0f} MB", f"{row['compile_seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _tpu_table(found: list[dict], steps: int) -> list[str]:
    lines = [
        "| task | algorithm | memory of a chip | all-reduce | other collectives | compiled in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        scale = steps / row["steps"]
        kinds = {k: v * scale for k, v in (row["collectives"] or {}).items()}
        reduce = kinds.pop("all-reduce", 0)
        others = ", ".join(f"{v:,.0f} {k}" for k, v in kinds.items())
        lines.append(
            f"| {row['env']} | {row['algorithm']} | {row['memory_bytes'] / 1e6:,.0f} MB | "
            f"{reduce:,.0f} | {others or 'none'} | {row['compile_seconds']:.0f} s |"
        )
    return lines


def main(args: list[str] | None = None) -> None:
    kept_rows.main(__file__, __doc__, rows(), compile_row, make_tables, args, {})


if __name__ == "__main__":
    main()
