"""Options that several commands share, and what they give to `jtrust.make_env`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from jtrust import checks
from jtrust.hosts.connecting import ClusterOptions

# What only `--env-option` gives, of what every environment takes.
_ENV_OPTIONS_ALONE = ("policy_observation", "value_observation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentOptions:
    """What to train in, and how much of it side by side."""

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """SUITE/NAME, such as brax/ant (see `jtrust envs`); or MODULE:CALLABLE of your own."""
    algorithm: str = "trpo"
    """trpo, npg, ppo, ppo-kl, trpl, cpo, trpo-lagrangian or ppo-lagrangian; decides which
    hyperparameters there are."""
    num_envs: int | None = None
    """Environments side by side, over all devices; by default 64 on CPUs, 4096 on accelerators."""
    unroll_length: int = 64
    """Steps of each environment per iteration."""
    action_bins: int | None = None
    """Cut each action dimension into this many values; by default actions stay continuous."""
    backend: str | None = None
    """Physics backend, where the environment has a choice."""
    episode_length: int | None = None
    """Steps after which an episode is cut, a time limit and not a failure; by default the
    suite's, mostly 1000."""
    env_option: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = ()
    """An option of the environment, such as policy_observation=state; may be given repeatedly."""
    domain_randomization: bool = False
    """Give every environment its own physical model, by the suite's own randomiser."""
    download: Annotated[bool, FlagCreatePairsOff] = False
    """Fetch the robots' models that a Playground task needs, where they are missing."""

    def of_environment(self) -> dict[str, Any]:
        """What is given to `jtrust.make_env` beside the name."""
        of_env: dict[str, Any] = {}
        for text in self.env_option:
            key, value = _key_and_value(text)
            if key in of_env:
                raise checks.BadArgument("env_option", text, f"{key} was given before")
            of_env[key] = value
        given = {"backend": self.backend, "episode_length": self.episode_length}
        given = {k: v for k, v in given.items() if v is not None}
        if self.domain_randomization:
            given["domain_randomization"] = True
        if self.download:
            given["download"] = True
        for key in of_env:
            if key in given:
                option = f"--{key.replace('_', '-')}"
                raise checks.BadArgument("env_option", key, f"{option} gives it too")
        return {**given, **of_env}

    @contextlib.contextmanager
    def told_as_options(self) -> Iterator[None]:
        """Complaints about what `--env-option` gave name that option."""
        of_env = {text.partition("=")[0] for text in self.env_option}
        try:
            yield
        except checks.BadArgument as error:
            if error.name in of_env or error.name in _ENV_OPTIONS_ALONE:
                text = f"{error.name}={error.value}" if error.name != error.value else error.name
                raise checks.BadArgument("env_option", text, error.remedy) from error
            raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class HereOptions(EnvironmentOptions):
    """The same on the devices of this machine."""

    seed: int = 0
    """Of the run's random key; the same seed gives the same run."""
    devices: int | None = None
    """How many devices to use; by default all, and on a CPU one per core."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""
    cluster: Annotated[ClusterOptions, OmitArgPrefixes] = dataclasses.field(
        default_factory=ClusterOptions
    )

    def prepare(self) -> Any:
        """Sets JAX up as the options ask, and makes the environment."""
        from jtrust.environments import make_env
        from jtrust.runs.compilation_cache import use_compilation_cache
        from jtrust.runs.cpu_devices import use_all_cores
        from jtrust.startup import collector_paused

        connection = self.cluster.connect()
        use_compilation_cache(self.compilation_cache)
        use_all_cores(self.num_envs, self.devices, connection.count if connection else 1)
        given = self.of_environment()
        with collector_paused(), self.told_as_options():
            return make_env(self.env, **given)


def _key_and_value(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; a value that is JSON, or True or False, is what it says, any other a text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise checks.BadArgument("env_option", text, "must be KEY=VALUE")
    if value == "null":
        raise checks.BadArgument("env_option", text, "null is nothing; leave it out")
    if value in ("True", "False"):
        return key, value == "True"
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
