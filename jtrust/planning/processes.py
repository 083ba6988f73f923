"""Where a plan is made: in a process of its own, in which JAX has the CPU alone."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import jax

from jtrust import checks
from jtrust.environments import Environment
from jtrust.planning.plan import Plan, Request

Say = Callable[[str], None]
# For libtpu and XLA in that process: look for no TPU of this machine and lock none, whoever
# compiles or trains beside it; and keep to themselves what says nothing to a user.
QUIET = {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost", "TF_CPP_MIN_LOG_LEVEL": "2",
}
# What a user may have set in this process that shapes a program.
_SETTINGS = (
    "jax_default_matmul_precision", "jax_default_prng_impl", "jax_enable_x64",
    "jax_threefry_partitionable", "jax_numpy_dtype_promotion",
)


class PlanningFailed(checks.TrainingFailed):
    """A program could not be compiled, and not for want of memory; the message says why."""


class _Refused(Exception):
    """What is asked for cannot be handed to another process."""


def answer(request: Request, say: Say) -> Plan:
    """The plan, from a process of its own; from this one where it cannot be handed over."""
    try:
        return _from_child(_pickled(request), say)
    except _Refused:
        pass
    if _jax_has_started():
        return _from_here(request, say)
    return _from_fork(request, say)


def _pickled(request: Request) -> bytes:
    """The request for another process; an environment that was made by name goes by that name."""
    env = request.env
    if isinstance(env, Environment) and not request.env_options:
        if "+" in env.name or not any(mark in env.name for mark in "/:"):
            raise _Refused
        request = dataclasses.replace(request, env=env.name, env_options=dict(env.options))
    try:
        return pickle.dumps(request)
    except Exception as error:  # objects raise what they like
        raise _Refused from error


def _from_child(message: bytes, say: Say) -> Plan:
    settings = {name: getattr(jax.config, name) for name in _SETTINGS if hasattr(jax.config, name)}
    environment = os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    # -P: what lies in the current directory hides no package.
    command = [sys.executable, "-P", "-m", "jtrust.planning.child"]
    with tempfile.TemporaryFile() as noise, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, env=environment
    ) as child:
        try:
            with contextlib.suppress(BrokenPipeError), cast(BinaryIO, child.stdin) as given:
                pickle.dump(settings, given)
                given.write(message)
            return _read_answer(cast(BinaryIO, child.stdout), say, noise)
        finally:
            if child.poll() is None and sys.exc_info()[0] is not None:
                child.kill()


def serve(given: BinaryIO, told: BinaryIO) -> None:
    """The child's side: reads settings and a request, writes lines and then what came of it."""
    for name, value in pickle.load(given).items():
        jax.config.update(name, value)
    try:
        request = pickle.load(given)
    except Exception as error:  # such as a class of a notebook, which is nowhere to import from
        _tell(told, "refused", str(error))
        return
    _tell_what_came(request, told)


def _tell_what_came(request: Request, told: BinaryIO) -> None:
    """Carries out a request where JAX has not started, and tells what came of it."""
    from jtrust.planning.work import carry_out, use_cpu_alone

    def show(message, category, *rest: Any) -> None:
        if not issubclass(category, DeprecationWarning):  # of libraries, to their developers
            _tell(told, "warning", (str(message), category.__name__))

    warnings.showwarning = cast(Any, show)
    try:
        use_cpu_alone(request)
        found = carry_out(request, lambda line: _tell(told, "line", line))
    except checks.BadArgument as error:
        _tell(told, "bad", (error.name, _sendable(error.value), error.remedy))
    except Exception as error:  # XLA's and an environment's own code raise what they like
        _tell(told, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    else:
        _tell(told, "plan", found)


def _tell(told: BinaryIO, what: str, content: Any) -> None:
    pickle.dump((what, content), told)
    told.flush()


def _sendable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _read_answer(told: BinaryIO, say: Say, noise: BinaryIO) -> Plan:
    while True:
        try:
            what, content = pickle.load(told)
        except EOFError:
            raise PlanningFailed(
                f"the process that compiled has died: {_last_line(noise)}"
            ) from None
        if what == "plan":
            return content
        if what == "line":
            say(content)
        elif what == "warning":
            message, category = content
            kind = getattr(builtins, category, UserWarning)
            warnings.warn(message, kind, stacklevel=2)
        elif what == "bad":
            raise checks.BadArgument(*content)
        elif what == "refused":
            raise _Refused
        else:
            raise PlanningFailed(f"the program could not be compiled: {content}")


def _last_line(noise: BinaryIO) -> str:
    noise.seek(0)
    lines = noise.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "the compiler ended without a word"


def _jax_has_started() -> bool:
    from jax._src import xla_bridge  # JAX says it nowhere else

    return xla_bridge.backends_are_initialized()


def _from_fork(request: Request, say: Say) -> Plan:
    """For what cannot be pickled, while JAX has not started: a copy of this process."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(), tempfile.TemporaryFile() as noise:
        warnings.simplefilter("ignore")  # JAX warns of forks, for the sake of its threads
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                os.dup2(noise.fileno(), 1)
                os.dup2(noise.fileno(), 2)
                os.environ.update(QUIET)
                with os.fdopen(writer, "wb") as told:
                    _tell_what_came(request, told)
            finally:
                os._exit(0)
        os.close(writer)
        try:
            with os.fdopen(reader, "rb") as told:
                return _read_answer(told, say, noise)
        finally:
            os.waitpid(child, 0)


def _from_here(request: Request, say: Say) -> Plan:
    """For what cannot be pickled, where JAX has started: what it computes stays on the CPU."""
    from jtrust.planning.work import carry_out

    with _environment_variables(QUIET), jax.default_device(jax.devices("cpu")[0]):
        try:
            return carry_out(request, say)
        except RuntimeError as error:
            raise PlanningFailed(
                f"the program could not be compiled: {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error


@contextlib.contextmanager
def _environment_variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
