"""What it takes to build a run again: `config.json`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jtrust import checks
from jtrust.advantages import GAE
from jtrust.algorithms import ALGORITHMS, ActorCritic, Algorithm, ValueFit
from jtrust.algorithms.actor_critic import by_name_of_value_fit
from jtrust.environments import Environment, make_env, with_action_bins
from jtrust.environments.base import ActionSpace
from jtrust.hosts.group import Hosts
from jtrust.networks import NetworkConfig
from jtrust.runs import permission
from jtrust.runs.matching import check_custom_network, check_environment, check_name
from jtrust.runs.reading import FORMAT, action_space, check_fields, read_fields
from jtrust.runs.spaces import action_to_json, observation_to_json
from jtrust.training import Trainer, make_trainer
from jtrust.version import __version__

# What updates did before runs said so, whatever the size of their rollouts.
_EARLIER = {"parts": 1, "value_rounds": 1, "value_solver": "adam"}

# Fields that say how a run was kept or how far it went, and not what was trained: runs that differ
# in nothing else are seeds of one setting.
BOOKKEEPING = frozenset({
    "seed", "total_steps", "checkpoint_every", "keep_checkpoints", "devices", "processes",
    "tensorboard", "wandb", "wandb_id", "mlflow", "mlflow_id", "random_keys", "signature",
    "evaluation", "observation", "jtrust", "format", "preset",
})


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that defines a run.

    Attributes:
      env: name for `jtrust.make_env`, or the user's own name for an object.
      env_options: keyword arguments for it.
      algorithm: name of the algorithm.
      hyperparameters: its arguments, with those of `GAE` and `ValueFit` by the names that
        algorithms give them.
      trainer: class of the trainer where that was a user's own; "" for jtrust's.
      network: arguments of `NetworkConfig`.
      num_envs: environments side by side.
      unroll_length: steps of each per iteration.
      seed: of the run's random key.
      total_steps: environment steps to train for.
      checkpoint_every: iterations between checkpoints.
      observation: shape and type of an observation; of a dictionary, those of each that the
        networks read, and which network reads which.
      action: the space of actions that the policy chooses from.
      devices: how many devices it was started on.
      processes: how many processes these belonged to.
      episode_length: steps after which an episode was cut; 0 where a run does not say.
      own_networks: class names of networks of the user's own, by the arguments that gave them.
      keep_checkpoints: how many of the newest checkpoints are kept; 0 keeps all.
      tensorboard: whether metrics also go to TensorBoard event files.
      wandb: whether they also go to Weights & Biases.
      wandb_id: of the run there.
      evaluation: what is done about evaluations, by the names of `Evaluations`.
      initialize_from: the run from whose policy it started; "" for none.
      preset: the environment whose preset its settings came from; "" for none.
      mlflow: whether they also go to MLflow.
      mlflow_id: by which the run is found there.
      random_keys: JAX's kind of random keys, such as threefry2x32; "" where a run does not say.
      signature: of the user whose jtrust wrote `env`, where that names code (see `permission`).
      jtrust: version that wrote it.
      format: of this file.
    """

    env: str
    env_options: dict[str, Any]
    algorithm: str
    hyperparameters: dict[str, Any]
    network: dict[str, Any]
    num_envs: int
    unroll_length: int
    seed: int
    total_steps: int
    checkpoint_every: int
    observation: dict[str, Any]
    action: dict[str, Any]
    devices: int
    processes: int = 1
    own_networks: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainer: str = ""
    episode_length: int = 0
    keep_checkpoints: int = 0
    tensorboard: bool = False
    wandb: bool = False
    wandb_id: str = ""
    mlflow: bool = False
    mlflow_id: str = ""
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    initialize_from: str = ""
    preset: str = ""
    random_keys: str = ""
    signature: str = ""
    jtrust: str = __version__
    format: int = FORMAT

    @classmethod
    def describe(
        cls, trainer: Trainer, *, seed: int, total_steps: int, checkpoint_every: int, **others: Any
    ) -> RunConfig:
        """The configuration of a trainer's run; `others` are fields as they are."""
        environment = trainer.environment
        return cls(
            env=environment.name,
            env_options=_plain(dict(environment.options), "env_options"),
            algorithm=trainer.algorithm.name,
            hyperparameters=hyperparameters_of(trainer),
            network=_plain(dataclasses.asdict(trainer.network), "network"),
            num_envs=trainer.num_envs,
            unroll_length=trainer.unroll_length,
            seed=seed,
            total_steps=total_steps,
            checkpoint_every=checkpoint_every,
            observation=observation_to_json(environment),
            action=action_to_json(environment.action),
            devices=trainer.mesh.size,
            processes=Hosts.of(trainer.mesh).count,
            episode_length=environment.episode_length,
            own_networks={
                name: type(module).__name__
                for name, module in (
                    ("policy_network", trainer.custom_policy),
                    ("value_network", trainer.custom_value),
                ) if module is not None
            },
            trainer="" if type(trainer) is Trainer else type(trainer).__name__,
            random_keys=jax.config.jax_default_prng_impl,  # type: ignore[attr-defined]
            **others,
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> RunConfig:
        """Reads what `to_json` wrote.

        Raises:
          BadArgument: where it is no such text, or of a format that this version does not read.
        """
        fields = read_fields(text, where)
        known = {f.name: f for f in dataclasses.fields(cls)}
        # What runs did not say at first is as its default says.
        for name, field in known.items():
            if name in ("jtrust", "format"):
                continue
            if field.default is not dataclasses.MISSING:
                fields.setdefault(name, field.default)
            elif field.default_factory is not dataclasses.MISSING:
                fields.setdefault(name, field.default_factory())
        missing = sorted(set(known) - set(fields))
        unknown = sorted(set(fields) - set(known))
        if missing or unknown:
            raise checks.BadArgument(
                "RUN_DIR", where,
                "its config.json " + "; ".join(
                    [f"lacks {', '.join(missing)}"] * bool(missing)
                    + [f"has the unknown {', '.join(unknown)}"] * bool(unknown)
                ),
            )
        check_fields(fields, {name: str(field.type) for name, field in known.items()}, where)
        if _series(fields["jtrust"]) != _series(__version__):
            raise checks.BadArgument(
                "RUN_DIR", where,
                f"was written by jtrust {fields['jtrust']} and this is {__version__}; "
                f"install the other, or train again",
            )
        return cls(**fields)

    def make_algorithm(self) -> Algorithm:
        if self.algorithm not in ALGORITHMS:
            raise checks.BadArgument(
                "algorithm", self.algorithm, "is none of jtrust's; if it is your own, go on from "
                "Python: jtrust.resume(RUN_DIR, trainer=...)"
            )
        cls, told = ALGORITHMS[self.algorithm], self._told()
        if not issubclass(cls, ActorCritic):
            apart = {f.name for f in dataclasses.fields(GAE)} | set(by_name_of_value_fit())
            own = {f.name for f in dataclasses.fields(cls)}
            told = {name: x for name, x in told.items() if name in own or name not in apart}
        return self._made(cls, told)

    def make_gae(self) -> GAE:
        told, names = self._told(), [f.name for f in dataclasses.fields(GAE)]
        return self._made(GAE, {name: told[name] for name in names if name in told})

    def make_value_fit(self) -> ValueFit:
        told, names = self._told(), by_name_of_value_fit()
        return self._made(
            ValueFit, {field: told[name] for name, field in names.items() if name in told}
        )

    def _told(self) -> dict[str, Any]:
        """The hyperparameters, also those that runs did not say at first."""
        earlier = _EARLIER | {"value_lambda": self.hyperparameters.get("gae_lambda")}
        return earlier | self.hyperparameters

    def _made(self, cls: Any, told: dict[str, Any]) -> Any:
        try:
            return cls(**told)
        except TypeError as error:
            raise checks.BadArgument("hyperparameters", self.hyperparameters, str(error)) from error

    def make_network(self) -> NetworkConfig:
        try:
            return NetworkConfig(**self.network)
        except TypeError as error:
            raise checks.BadArgument("network", self.network, str(error)) from error

    def signed(self) -> RunConfig:
        """The same with this user's signature, where the environment's name is one of code."""
        return dataclasses.replace(self, signature=permission.sign(self.env, self.env_options))

    def check_code(self, run_dir: Path, allow_code: bool = False) -> None:
        """Raises `BadArgument` where the environment's name is of code that nobody has allowed."""
        permission.check(run_dir, self.env, self.env_options, self.signature, allow_code)

    def make_environment(self, run_dir: Path, allow_code: bool = False) -> Environment:
        """The run's environment, made again from its name and options.

        Args:
          run_dir: where the configuration was read.
          allow_code: call what the name says, whoever wrote it.

        Raises:
          BadArgument: it was an object, or made by name and then changed; or its name is one of
            code that this user's own jtrust did not write there.
        """
        self.check_code(run_dir, allow_code)
        if not any(mark in self.env for mark in "/:+"):  # as every name that makes one has
            raise checks.BadArgument(
                "env", None, f"the run was trained in {self.env}, an object; give it again from "
                "Python: env=..."
            )
        try:
            return make_env(self.env, **self.env_options)
        except checks.BadArgument:
            raise
        except Exception as error:  # a suite's answer to options that no jtrust has written
            raise checks.BadArgument(
                "RUN_DIR", run_dir,
                f"{self.env} cannot be made with the options of its config.json, "
                f"{self.env_options}: {type(error).__name__}: {error}",
            ) from error

    def make_trainer(
        self, env: Environment, devices: Any = None, policy_network: Any = None,
        value_network: Any = None,
    ) -> Trainer:
        """The run's trainer in its environment.

        Raises:
          BadArgument: an environment whose observations or actions are not the run's, or networks
            of the user's own that are not.
        """
        check_custom_network(self, "policy_network", policy_network)
        check_custom_network(self, "value_network", value_network)
        if self.trainer:
            raise checks.BadArgument(
                "trainer", None, f"the run was begun with a trainer of your own, {self.trainer}; "
                "go on from Python: jtrust.resume(RUN_DIR, trainer=...)"
            )
        trainer = make_trainer(
            env, self.make_algorithm(), gae=self.make_gae(), value_fit=self.make_value_fit(),
            num_envs=self.num_envs, unroll_length=self.unroll_length,
            network=self.make_network(), action_bins=self.action.get("bins"),
            policy_network=policy_network, value_network=value_network, devices=devices,
        )
        check_environment(self, trainer.environment)
        check_name(self, trainer.environment)
        return trainer

    def with_action_bins(self, environment: Environment) -> Environment:
        """The environment with its actions in bins, where the run has them so."""
        return with_action_bins(environment, self.action.get("bins"))

    def action_space(self) -> ActionSpace:
        return action_space(self.action)

    def observation_sample(self) -> tuple[Any, str | None]:
        """(the observation that is stored statistics of, as shapes; which one the policy reads)."""
        read = lambda x: jax.ShapeDtypeStruct(tuple(x["shape"]), np.float32)  # noqa: E731
        if "dictionary" not in self.observation:
            return read(self.observation), None
        parts = self.observation["dictionary"]
        return {key: read(spec) for key, spec in parts.items()}, self.observation["policy"]

    @property
    def steps_per_iteration(self) -> int:
        return self.num_envs * self.unroll_length

    @property
    def total_iterations(self) -> int:
        """Iterations until at least `total_steps` environment steps are done."""
        return -(-self.total_steps // self.steps_per_iteration)


def hyperparameters_of(trainer: Trainer) -> dict[str, Any]:
    """What a trainer's algorithm, advantages and values are told, by the names that algorithms
    give them."""
    of_fit = dataclasses.asdict(trainer.value_fit)
    return _plain({
        **dataclasses.asdict(trainer.algorithm), **dataclasses.asdict(trainer.gae),
        **{name: of_fit[field] for name, field in by_name_of_value_fit().items()},
    }, "algorithm")


def _series(version: str) -> list[str]:
    """Versions that differ only behind the second number read each other's runs."""
    return version.split(".")[:2]


def _plain(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Numbers as Python's own, which JSON can hold.

    Raises:
      BadArgument: for what it cannot hold.
    """

    def plain(key, value):
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            if np.ndim(value):
                raise checks.BadArgument(name, value, "a run takes one value, not several")
            return np.asarray(value).item()
        if isinstance(value, (tuple, list)):
            return [plain(key, x) for x in value]
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {k: plain(key, v) for k, v in value.items()}
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise checks.BadArgument(
                key, value, "cannot be kept with a run: must be numbers, texts, lists or "
                "dictionaries of them"
            )
        return value

    return {k: plain(k, v) for k, v in values.items()}
