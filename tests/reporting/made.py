"""Run directories made by hand: what a page says of them can be worked out beside it."""

import json

CONFIG = {
    "env": "brax/ant", "algorithm": "trpo", "hyperparameters": {"max_kl": 0.01, "damping": 0.1},
    "network": {"min_std": 0.05}, "num_envs": 64, "total_steps": 409600, "seed": 0,
    "action": {"kind": "box", "size": 2, "low": -1.0, "high": 1.0}, "format": 1,
}


def row(i, **more):
    """Row `i` of a run in which all is well, from 1 on."""
    return {
        "step": 4096 * i, "iteration": i, "time/seconds": 0.5 * i, "time/steps_per_second": 8192.0,
        "environment/nonfinite": 0, "environment/overflow": 0, "episode/count": 3,
        "episode/return": 10.0 * i, "episode/length": 100.0, "observation/drift_kl": 1e-14,
        "observation/skipped": 0.0, "policy/accepted": 1.0, "policy/cg_residual": 1e-4,
        "policy/entropy": 2.0, "policy/kl": 0.008 + 1e-5 * i, "policy/kl_limit": 0.01,
        "policy/kl_mean": 0.007, "policy/kl_std": 0.001, "policy/kl_predicted": 0.009,
        "policy/skipped": 0.0, "policy/step_scale": 1.0, "policy/surrogate_gain": 0.02,
        "value/explained_variance": 0.8, "value/loss": 0.1, "value/skipped": 0.0,
        "value/targets_skipped": 0.0, **more,
    }


def write_run(path, rows=100, change=lambda row: None, config=None, **more):
    """A run directory; `change` edits each row, `config` and `more` the configuration."""
    path.mkdir(parents=True, exist_ok=True)
    told = CONFIG | more | (config or {})
    (path / "config.json").write_text(json.dumps(told))
    made = [row(i) for i in range(1, rows + 1)]
    for one in made:
        change(one)
    lines = [json.dumps(one) + "\n" for one in made]
    (path / "metrics.jsonl").write_text("".join(lines))
    return path
