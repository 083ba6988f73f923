"""What a search comes to."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from jtrust.sweeps.comparison import Comparison
from jtrust.sweeps.settings import Settings
from jtrust.sweeps.trials import BEHIND

_STATES = {"pruned": BEHIND, "fail": "failed", "complete": "complete"}


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
      env: its name.
      env_options: with which it was made.
      total_steps: environment steps of each run.
      algorithm: the same.
      fixed: settings that all trials had.
      defaults: of what was searched.
      trials: {"trial", "settings", "value", "state"} of each that ended, best first.
      comparison: the best and the defaults, by fresh seeds; None before the search's end.
      difference: of their interquartile means, and its 95 % interval by bootstrap over seeds; None
        where there is none.
      run_dir: where it is kept, or None.
      stopped_by: number of the signal that ended it early, or None.
    """

    env: str
    env_options: dict[str, Any]
    total_steps: int
    algorithm: str
    fixed: Settings
    defaults: Settings
    trials: list[dict[str, Any]]
    comparison: Comparison | None
    difference: tuple[float, float, float] | None
    run_dir: str | None
    stopped_by: int | None

    @property
    def finished(self) -> int:
        """Trials that have ended."""
        return len(self.trials)

    @property
    def best(self) -> Settings:
        """Settings of the best trial; {} where none has a value."""
        return next((t["settings"] for t in self.trials if t["value"] is not None), {})

    @property
    def beyond_noise(self) -> bool:
        """Whether the best is better than the defaults beyond the noise of seeds."""
        return self.difference is not None and self.difference[1] > 0

    @property
    def command(self) -> str:
        """Trains with the best settings."""
        told = {k: v for k, v in {**self.fixed, **self.best}.items() if v is not None}
        of_env = [_env_option(k, v) for k, v in self.env_options.items()]
        options = [
            _option(k, v) for k, v in told.items()
        ]
        return " ".join([
            "jtrust train", shlex.quote(self.env), *of_env, "--algorithm", self.algorithm, *options,
            f"--steps {self.total_steps}",
        ])

    def as_json(self) -> dict[str, Any]:
        """What `jtrust sweep --search N --json` prints."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        compared = None if self.comparison is None else self.comparison.as_json()
        return found | {
            "comparison": compared, "best": self.best, "beyond_noise": self.beyond_noise,
            "command": self.command,
        }

    def as_text(self) -> str:
        """The trials, the comparison, what it says and the command."""
        lines = [
            f"trial {t['trial']}: {_outcome(t)}  "
            + ", ".join(f"{k} {v:.4g}" for k, v in t["settings"].items()) for t in self.trials
        ]
        if not self.best:
            return "\n".join([*lines, "no trial came to its end with a value"])
        if self.best == self.defaults:
            lines.append("no setting was better than the defaults")
        if self.comparison is not None:
            lines += ["", self.comparison.as_text(), ""]
        if self.difference is not None:
            middle, low, high = self.difference
            lines.append(
                "best against the defaults, by fresh seeds: "
                f"{middle:+.4g} [{low:+.4g}, {high:+.4g}]"
                + (": beyond the noise of seeds" if low > 0 else
                   ": worse, beyond the noise of seeds" if high < 0 else
                   ": not beyond the noise of seeds")
            )
        return "\n".join([*lines, self.command])


def _outcome(trial: dict[str, Any]) -> str:
    value = trial["value"]
    return _STATES[trial["state"]] if value is None else f"{value:.4g}"


def _env_option(name: str, value: Any) -> str:
    if name in ("backend", "episode_length"):
        return f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
    if name == "domain_randomization" and value is True:
        return "--domain-randomization"
    return f"--env-option {shlex.quote(f'{name}={value}')}"


def _option(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    return f"--{option} {value}"
