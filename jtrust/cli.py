"""`jtrust ...`: train, resume, evaluate, profile, plan, envs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from jtrust import checks, console
from jtrust.paths import user_path

# What only `--env-option` gives, of what every environment takes.
_ENV_OPTIONS_ALONE = ("policy_observation", "value_observation")

_USAGE = """\
usage: jtrust COMMAND ...

Trust-region reinforcement learning, compiled end to end with JAX.

  jtrust train ENV        train a policy; ENV is SUITE/NAME, such as brax/ant
  jtrust resume RUN_DIR   go on with a run from its newest checkpoint
  jtrust evaluate RUN_DIR whole episodes of what a run has learned
  jtrust profile ENV      where the time of training goes, with a JAX profiler trace
  jtrust plan ENV         memory and program of a run on a GPU or TPU that is not here
  jtrust envs             what ENV may be

`jtrust COMMAND --help` tells the options of each; `jtrust --version` the version.
"""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What to train in, for how long, and where to keep it."""

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """SUITE/NAME, such as brax/ant (see `jtrust envs`); or MODULE:CALLABLE of your own."""
    algorithm: str = "trpo"
    """trpo, npg, ppo or ppo-kl; decides which hyperparameters there are."""
    steps: int = 1_000_000
    """Environment steps to train for; rounded up to whole iterations."""
    num_envs: int | None = None
    """Environments side by side, over all devices; by default 64 on CPUs, 4096 on accelerators."""
    unroll_length: int = 64
    """Steps of each environment per iteration."""
    seed: int = 0
    """Of the run's random key; the same seed gives the same run."""
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
    run_dir: str | None = None
    """Where to keep the run; by default checkpoints/<suite>-<name>-<algorithm>-seed<S>."""
    checkpoint_every: int | None = None
    """Iterations between checkpoints; by default a tenth of the run."""
    keep_checkpoints: int = 0
    """How many of the newest checkpoints to keep; 0 keeps all."""
    devices: int | None = None
    """How many devices to use; by default all, and on a CPU one per core."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run directory."""
    wandb: bool = False
    """Also send metrics to Weights & Biases."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""


@dataclasses.dataclass(frozen=True)
class ResumeOptions:
    """Goes on with a run from its newest whole checkpoint, as if it had never stopped."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    steps: int | None = None
    """Environment steps in total; by default what the run was begun with."""
    devices: int | None = None
    """How many devices to use; by default all, and on a CPU one per core."""
    keep_checkpoints: int | None = None
    """How many of the newest checkpoints to keep, 0 for all; by default as the run was begun."""
    tensorboard: Annotated[bool, FlagCreatePairsOff] = False
    """Also write TensorBoard event files from now on, where the run was begun without."""
    no_tensorboard: Annotated[bool, FlagCreatePairsOff] = False
    """Write none from now on, where the run was begun with them."""
    wandb: Annotated[bool, FlagCreatePairsOff] = False
    """Also send metrics to Weights & Biases from now on, where the run was begun without."""
    no_wandb: Annotated[bool, FlagCreatePairsOff] = False
    """Send none from now on, where the run was begun with it."""
    allow_code: Annotated[bool, FlagCreatePairsOff] = False
    """Call the MODULE:CALLABLE that the run names, though your own jtrust did not begin it."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""

    def __post_init__(self):
        for name in ("tensorboard", "wandb"):
            if getattr(self, name) and getattr(self, f"no_{name}"):
                raise checks.BadArgument(name, True, f"--no-{name} says the contrary")

    def wanted(self, name: str) -> bool | None:
        """Whether `name` is to be; None for as it was."""
        return True if getattr(self, name) else False if getattr(self, f"no_{name}") else None


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Whole episodes of a run's policy, each environment counted once."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    episodes: int = 64
    """How many, side by side."""
    seed: int = 0
    """Of the start states, and of the actions with --stochastic."""
    step: int | None = None
    """The checkpoint of this step; by default the newest."""
    stochastic: bool = False
    """Sample actions; by default the policy's mode acts."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""
    allow_code: Annotated[bool, FlagCreatePairsOff] = False
    """Call the MODULE:CALLABLE that the run names, though your own jtrust did not begin it."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """Trains a few iterations, takes the next one apart, and writes a JAX profiler trace."""

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """SUITE/NAME, such as brax/ant; see `jtrust envs`."""
    algorithm: str = "trpo"
    """trpo, npg, ppo or ppo-kl; decides which hyperparameters there are."""
    num_envs: int | None = None
    """Environments side by side, over all devices; by default 64 on CPUs, 4096 on accelerators."""
    unroll_length: int = 64
    """Steps of each environment per iteration."""
    iterations: int = 5
    """Iterations to train before one is taken apart."""
    repeats: int = 7
    """Measurements of each part; their median counts."""
    seed: int = 0
    """Of the run's random key."""
    backend: str | None = None
    """Physics backend, where the environment has a choice."""
    action_bins: int | None = None
    """Cut each action dimension into this many values; by default actions stay continuous."""
    episode_length: int | None = None
    """Steps after which an episode is cut, a time limit and not a failure; by default the
    suite's, mostly 1000."""
    env_option: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = ()
    """An option of the environment, such as policy_observation=state; may be given repeatedly."""
    domain_randomization: bool = False
    """Give every environment its own physical model, by the suite's own randomiser."""
    trace_dir: str | None = None
    """Where to write the trace; by default checkpoints/profile-...-seed<S>."""
    devices: int | None = None
    """How many devices to use; by default all, and on a CPU one per core."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """Compiles one iteration for devices that need not be here, and runs nothing."""

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """SUITE/NAME, such as brax/ant (see `jtrust envs`); or MODULE:CALLABLE of your own."""
    target: str
    """h100, h100:4 or another GPU; a TPU's topology, such as v5e:2x2; cpu; or a file with XLA's
    description of a GPU."""
    algorithm: str = "trpo"
    """trpo, npg, ppo or ppo-kl; decides which hyperparameters there are."""
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
    devices: int | None = None
    """How many of the target's devices to use; by default all."""
    largest: bool = True
    """Also find the largest number of environments that fits, by compiling a few programs more."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


def train_command(args: Sequence[str]) -> int:
    from jtrust.runs import train
    from jtrust.runs.metrics import check_services
    from jtrust.runs.progress import make_progress

    parsed = _parse_training(TrainOptions, "train", args)
    options = parsed.options
    if options.run_dir is not None:
        user_path("run_dir", options.run_dir)
    check_services(options.tensorboard, options.wandb)
    result = train(
        _prepare(options), parsed.hyperparameters, num_envs=options.num_envs,
        total_steps=options.steps,
        seed=options.seed, run_dir=options.run_dir, unroll_length=options.unroll_length,
        network=parsed.network, action_bins=options.action_bins,
        checkpoint_every=options.checkpoint_every,
        keep_checkpoints=options.keep_checkpoints, devices=options.devices,
        tensorboard=options.tensorboard, wandb=options.wandb, make_progress=make_progress,
        default_run_dir=options.run_dir is None, hand_on_signals=False,
    )
    return _finish(result)


def _make_environment(options: TrainOptions | ProfileOptions) -> Any:
    from jtrust.environments import make_env

    given = _environment_options(options)
    with _told_as_options(options):
        return make_env(options.env, **given)


def _environment_options(options: TrainOptions | ProfileOptions | PlanOptions) -> dict[str, Any]:
    """What the options give to `jtrust.make_env` beside the name."""
    of_env: dict[str, Any] = {}
    for text in options.env_option:
        key, value = _key_and_value(text)
        if key in of_env:
            raise checks.BadArgument("env_option", text, f"{key} was given before")
        of_env[key] = value
    given = {"backend": options.backend, "episode_length": options.episode_length}
    given = {k: v for k, v in given.items() if v is not None}
    if options.domain_randomization:
        given["domain_randomization"] = True
    for key in of_env:
        if key in given:
            raise checks.BadArgument("env_option", key, f"--{key.replace('_', '-')} gives it too")
    return {**given, **of_env}


@contextlib.contextmanager
def _told_as_options(options: TrainOptions | ProfileOptions | PlanOptions) -> Iterator[None]:
    """Complaints about what `--env-option` gave name that option."""
    of_env = {text.partition("=")[0] for text in options.env_option}
    try:
        yield
    except checks.BadArgument as error:
        if error.name in of_env or error.name in _ENV_OPTIONS_ALONE:
            text = f"{error.name}={error.value}" if error.name != error.value else error.name
            raise checks.BadArgument("env_option", text, error.remedy) from error
        raise


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


def resume_command(args: Sequence[str]) -> int:
    from jtrust.runs import resume
    from jtrust.runs.compilation_cache import use_compilation_cache
    from jtrust.runs.cpu_devices import use_all_cores
    from jtrust.runs.directory import RunDirectory
    from jtrust.runs.progress import make_progress

    options = _parse(ResumeOptions, "resume", args)
    use_compilation_cache(options.compilation_cache)
    config = RunDirectory.open(options.run_dir)[1]
    use_all_cores(config.num_envs, options.devices or config.devices)
    return _finish(resume(
        options.run_dir, options.steps, devices=options.devices,
        keep_checkpoints=options.keep_checkpoints, tensorboard=options.wanted("tensorboard"),
        wandb=options.wanted("wandb"), allow_code=options.allow_code,
        make_progress=make_progress, hand_on_signals=False,
    ))


def evaluate_command(args: Sequence[str]) -> int:
    from jtrust.runs import evaluate
    from jtrust.runs.compilation_cache import use_compilation_cache

    options = _parse(EvaluateOptions, "evaluate", args)
    use_compilation_cache(options.compilation_cache)
    found = evaluate(
        options.run_dir, episodes=options.episodes, seed=options.seed, step=options.step,
        stochastic=options.stochastic, allow_code=options.allow_code,
    )
    print(json.dumps(found) if options.json else checks.printable(_sentence(found)))
    return 0


def _sentence(found: dict[str, Any]) -> str:
    """What an evaluation found."""
    broken = found["nonfinite"]
    whole = found["episodes"] - broken
    start = f"{found['algorithm']} on {found['env']} after {found['step']:,} steps: "
    if not whole:
        return start + f"no whole episode; all {broken} ended in NaN or infinity"
    return start + (
        f"return {found['return_mean']:.1f} ± {found['return_std']:.1f}, "
        f"length {found['length_mean']:.1f}, over {whole} episodes"
        + f"; {broken} more ended in NaN or infinity and do not count" * bool(broken)
    )


def profile_command(args: Sequence[str]) -> int:
    from jtrust.profiling import profile, to_text
    from jtrust.runs.directory import DEFAULT_PARENT, default_name

    parsed = _parse_training(ProfileOptions, "profile", args)
    options = parsed.options
    if options.trace_dir is not None:
        user_path("trace_dir", options.trace_dir)
    environment = _prepare(options)
    algorithm = parsed.hyperparameters
    place = DEFAULT_PARENT / default_name(
        f"profile-{environment.name}", algorithm.name, options.seed
    ) if options.trace_dir is None else options.trace_dir
    found = profile(
        environment, algorithm, trace_dir=place, num_envs=options.num_envs,
        unroll_length=options.unroll_length, network=parsed.network, devices=options.devices,
        action_bins=options.action_bins, seed=options.seed, iterations=options.iterations,
        repeats=options.repeats,
    )
    print(json.dumps(dataclasses.asdict(found)) if options.json else to_text(found))
    return 0


def plan_command(args: Sequence[str]) -> int:
    from jtrust.planning import plan
    from jtrust.planning.report import to_text

    parsed = _parse_training(PlanOptions, "plan", args)
    options = parsed.options
    with _told_as_options(options):
        found = plan(
            options.env, parsed.hyperparameters, target=options.target,
            env_options=_environment_options(options), num_envs=options.num_envs,
            unroll_length=options.unroll_length, network=parsed.network,
            action_bins=options.action_bins, devices=options.devices, largest=options.largest,
            say=lambda line: print(f"{line} ...", file=sys.stderr),
        )
    print(json.dumps(dataclasses.asdict(found)) if options.json else to_text(found))
    return 0


def _parse_training(options: type, command: str, args: Sequence[str]) -> Any:
    """Parses (options, hyperparameters of the algorithm that they name, network)."""
    from jtrust.algorithms import ALGORITHMS
    from jtrust.networks import NetworkConfig

    name = _given(args, "algorithm") or "trpo"
    checks.one_of("algorithm", name, ALGORITHMS)
    fields = {"options": options, "hyperparameters": ALGORITHMS[name], "network": NetworkConfig}
    kind = dataclasses.make_dataclass(
        command.capitalize(), [(k, Annotated[v, OmitArgPrefixes]) for k, v in fields.items()]
    )
    return _parse(kind, command, args)


def _prepare(options: TrainOptions | ProfileOptions) -> Any:
    """Sets JAX up as the options ask, and makes the environment."""
    from jtrust.runs.compilation_cache import use_compilation_cache
    from jtrust.runs.cpu_devices import use_all_cores
    from jtrust.startup import collector_paused

    use_compilation_cache(options.compilation_cache)
    use_all_cores(options.num_envs, options.devices)
    with collector_paused():
        return _make_environment(options)


def envs_command(args: Sequence[str]) -> int:
    from jtrust.environments import SUITES
    from jtrust.startup import check_platform

    if args and args[0] in ("-h", "--help"):
        print(
            "usage: jtrust envs\n\nLists what ENV may be, with the backends of each; beside these, "
            "MODULE:CALLABLE makes one of your own."
        )
        return 0
    if args:
        raise checks.BadArgument("ARGUMENT", args[0], "`jtrust envs` takes none")
    check_platform()
    for label, suite in SUITES.items():
        try:
            names = suite.names()
        except checks.BadArgument as error:
            print(f"{label + '/...':50}{error.remedy}")
            continue
        for name in names:
            said = " ".join([*suite.backends(name), suite.remark(name)])
            print(f"{label + '/' + name:50}{said}".rstrip())
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train_command,
    "resume": resume_command,
    "evaluate": evaluate_command,
    "profile": profile_command,
    "plan": plan_command,
    "envs": envs_command,
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command: its exit status. 0 success, 2 bad input, 128 + n after signal n."""
    args = list(sys.argv[1:] if args is None else args)
    warnings.showwarning = _show_warning
    _keep_libraries_quiet()
    try:
        with console.forgiving():
            return _answer(args)
    except OSError as error:  # what was said could not all be written
        return _fail(str(error), 1)


def _answer(args: list[str]) -> int:
    """The status of a command, its failures told."""
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(_USAGE, end="", file=sys.stdout if args else sys.stderr)
            return 0 if args else 2
        if args[0] == "--version":
            from jtrust.version import __version__

            print(f"jtrust {__version__}")
            return 0
        checks.one_of("COMMAND", args[0], COMMANDS)
        from jtrust.runs.platforms import without_absent_accelerators

        without_absent_accelerators()
        return COMMANDS[args[0]](args[1:])
    except checks.BadArgument as error:
        return _fail(error.as_option(), 2)
    except (OSError, checks.TrainingFailed) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130


def _fail(text: str, status: int) -> int:
    print(f"jtrust: {checks.printable(text)}", file=sys.stderr)
    return status


def _keep_libraries_quiet() -> None:
    """Failures are told here, in one line; Orbax's threads also log them as tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.CRITICAL)
    show = sys.unraisablehook

    def hook(found: Any) -> None:
        # From a write that was still under way when its save had already failed.
        if "Event loop is closed" not in str(found.exc_value):
            show(found)

    sys.unraisablehook = hook


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"jtrust: warning: {checks.printable(str(message))}", file=sys.stderr)


def _finish(result: Any) -> int:
    import numpy as np

    from jtrust.runs.signals import exit_status

    metrics = result.metrics
    if metrics:
        step, seconds = int(metrics["step"][-1]), metrics["time/seconds"][-1]
        reward = metrics["episode/return"][-1]
        shown = "no episode has ended yet" if np.isnan(reward) else f"return {reward:.1f}"
        done = f"{step:,} steps, {seconds:.1f} s in this session, {shown}"
    elif result.stopped_by is not None:
        done = "the start of this session"
    else:
        done = "nothing left to do"
    if result.stopped_by is not None:
        print(checks.printable(
            f"stopped at {done}; checkpoint in {result.run_dir}; "
            f"go on with: jtrust resume {shlex.quote(result.run_dir)}"
        ))
        return exit_status(result.stopped_by)
    print(checks.printable(f"done: {done}; checkpoint in {result.run_dir}"))
    return 0


def _given(args: Sequence[str], name: str) -> str | None:
    """The value of an option that decides which others there are."""
    for i, argument in enumerate(args):
        if argument == f"--{name}":
            return args[i + 1] if i + 1 < len(args) else None
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None


def _parse(kind: type, command: str, args: Sequence[str]) -> Any:
    """Parses by tyro; its boxed complaints become one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"jtrust {command}", args=list(args))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = complaint.getvalue()
    # Between the box's top border and its first rule stands what is wrong.
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    rule = next((i for i, line in enumerate(lines) if line.startswith(("─", "╰"))), len(lines))
    said = " ".join(lines[:rule])
    ours = re.fullmatch(r"Error parsing \S+: (\w+)=(.*?): (.*)", said)
    if ours:  # a hyperparameter that its own class refused
        name, value, remedy = ours.groups()
        raise checks.BadArgument(name, value.strip("'"), remedy)
    unread = re.fullmatch(r"Error parsing --(\S+): .*?(int|float)\b.*: '(.*)'", said)
    if unread:
        name, kind, value = unread.groups()
        wanted = "a whole number" if kind == "int" else "a number"
        raise checks.BadArgument(name, value, f"must be {wanted}")
    raise checks.BadArgument("OPTIONS", " ".join(args), f"{said}; see `jtrust {command} --help`")
