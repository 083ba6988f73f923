"""The run directory: `config.json`, `metrics.jsonl`, checkpoints named by step, and a lock."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import io
import itertools
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import cast

from jtrust import checks
from jtrust.paths import open_plain, read_plain, user_path
from jtrust.runs.config import RunConfig
from jtrust.runs.reading import MOST_BYTES, read_json

CONFIG = "config.json"
SWEEP = "sweep.json"  # of a directory that holds runs
METRICS = "metrics.jsonl"
LOCK = "lock"
TEMPORARY = "config.json.tmp"
PROFILE = "profile.json"  # where a profile is kept, beside its trace
_OURS = (CONFIG, SWEEP, METRICS, LOCK, TEMPORARY, "wandb", "mlflow.db", "best")
_LONGEST_LINE = 2**20
# A file system's caches may take some seconds to show what another machine has written.
_SEEN_WITHIN = 20.0
DEFAULT_PARENT = Path("checkpoints")


class RunDirectory:
    """One run's directory, held by at most one process that writes.

    Attributes:
      path: where it is.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = user_path("RUN_DIR", path)
        self._final: Path | None = None
        self._lock: io.FileIO | None = None

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    @classmethod
    def create(cls, path: str | os.PathLike) -> RunDirectory:
        """Makes and locks a directory for a new run.

        Where nothing is at `path` yet, the directory is made beside it under another name, which
        `settle` changes once there is something to open: a process killed before that leaves
        nothing at `path`, one killed later leaves a run that opens.

        Raises:
          BadArgument: the directory holds a run or is in use, is a file, or cannot be written.
        """
        final = user_path("run_dir", path)
        if final.name in ("", ".."):
            final = final.resolve()
        for name, what in ((CONFIG, "a run"), (SWEEP, "a sweep")):
            if os.path.lexists(final / name):
                raise checks.BadArgument(
                    "run_dir", path, f"holds {what}; go on with it by `jtrust resume {path}`, or "
                    "name another directory",
                )
        if os.path.lexists(final) and not final.is_dir():
            raise checks.BadArgument("run_dir", path, "is a file; name a directory")
        try:
            # A link and the current directory are not to be replaced by another directory.
            if final.is_dir() and (
                any(final.iterdir()) or final.is_symlink() or final.samefile(".")
            ):
                directory = cls(final)
            else:
                directory = cls(final.with_name(f".{final.name}.starting-{os.getpid()}"))
                directory._final = final
                directory._sweep()
            directory.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise checks.BadArgument(
                "run_dir", path,
                f"cannot be made ({_reason(error)}); name a directory that can be written",
            ) from error
        directory._refuse_links()
        directory.lock()
        return directory

    @property
    def settled_path(self) -> Path:
        """Where it is, or will be once it is settled."""
        return self.path if self._final is None else self._final

    @property
    def token(self) -> str:
        """What its lock says of who holds it."""
        return read_plain(self.path / LOCK, 400).decode("utf-8", "replace")

    def check_seen(self, token: str) -> None:
        """For the directory of another process of the run: `SharedDirectory`."""

    def settle(self) -> None:
        """Gives a new run's directory its own name; the run can be opened from now on.

        Raises:
          BadArgument: another process has put a run there meanwhile.
        """
        if self._final is None:
            return
        try:
            os.rename(self.path, self._final)
        except OSError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            raise checks.BadArgument(
                "run_dir", self._final, f"was taken meanwhile ({_reason(error)}); name another"
            ) from error
        self.path, self._final = self._final, None

    def abandon(self) -> None:
        """Removes a directory that never became a run's."""
        if self._final is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what killed processes left beside this name before there was a run."""
        final = cast(Path, self._final)
        for left in final.parent.glob(f".{glob.escape(final.name)}.starting-*"):
            if left.is_symlink():
                continue
            other = RunDirectory(left)
            with contextlib.suppress(checks.BadArgument):
                other.lock()
                shutil.rmtree(left, ignore_errors=True)
                other.unlock()

    @classmethod
    def create_default(cls, name: str) -> RunDirectory:
        """The same at `checkpoints/NAME`, or with -2, -3 ... behind it where that is taken."""
        for suffix in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
            path = DEFAULT_PARENT / f"{name}{suffix}"
            starting = list(path.parent.glob(f".{path.name}.starting-*"))
            if not path.exists() and not any(map(_in_use, starting)):
                return cls.create(path)
        raise AssertionError("unreachable")

    @classmethod
    def open(cls, path: str | os.PathLike) -> tuple[RunDirectory, RunConfig]:
        """An existing run, for reading.

        Raises:
          BadArgument: no such directory, or one without a run, or a damaged configuration.
        """
        directory = cls(path)
        text = directory.read(CONFIG, "run")
        return directory, RunConfig.from_json(text, str(path))

    def read(self, name: str, what: str) -> str:
        """The text of `name`, which makes this the directory of a `what`.

        Raises:
          BadArgument: no such directory, one without it, or a file that cannot be read.
        """
        path = self.path
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise checks.BadArgument("RUN_DIR", path, f"{found}; give the directory of a {what}")
        try:
            self._refuse_links()
            return read_plain(path / name, MOST_BYTES).decode()
        except FileNotFoundError as error:
            if name == CONFIG and (path / SWEEP).exists():
                raise checks.BadArgument(
                    "RUN_DIR", path, "is a sweep's; give the directory of one of its runs, in it"
                ) from error
            raise checks.BadArgument(
                "RUN_DIR", path, f"holds no {what} (no {name}); give the directory of a {what}"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise checks.BadArgument(
                "RUN_DIR", path, f"its {name} cannot be read ({_reason(error)})"
            ) from error

    def _refuse_links(self) -> None:
        """Raises `BadArgument` where what a run reads or writes would lie somewhere else."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_symlink() and (name in _OURS or name[0].isdecimal()):
                    raise checks.BadArgument(
                        "RUN_DIR", self.path,
                        f"{name} in it is a symbolic link, and a run's own files lie in its own "
                        f"directory; put what it leads to in its place",
                    )

    def write_config(self, config: RunConfig) -> None:
        """Writes `config.json`, whole or not at all."""
        self.write(CONFIG, config.to_json())

    def write(self, name: str, text: str) -> None:
        """Writes a file, whole or not at all."""
        temporary = self.path / TEMPORARY
        temporary.unlink(missing_ok=True)
        with open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            left = memoryview(text.encode())
            while left:
                left = left[file.write(left):]
            os.fsync(file.fileno())
        os.replace(temporary, self.path / name)

    def lock(self) -> None:
        """Keeps other processes from writing here until this one ends or calls `unlock`.

        Raises:
          BadArgument: another process holds it, or the directory cannot be written.
        """
        try:
            file = open_plain(self.path / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise checks.BadArgument(
                "run_dir", self.path,
                f"cannot be written ({_reason(error)}); name a directory that can",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            said = file.read(400).decode("utf-8", "replace").partition("\n")[0]
            holder = checks.short(said) or "another process"
            file.close()
            raise checks.BadArgument(
                "run_dir", self.path, f"is in use by {holder}; wait for it or stop it"
            ) from error
        file.truncate(0)
        holder = f"process {os.getpid()} on {os.uname().nodename}"
        file.write(f"{holder}\n{secrets.token_hex(8)}\n".encode())
        self._lock = file

    def unlock(self) -> None:
        """Lets others write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def cut_metrics(self, iteration: int) -> None:
        """Drops the lines of `metrics.jsonl` behind `iteration`, and half a line at the end.

        Raises:
          BadArgument: it is no plain file.
        """
        try:
            file = open_plain(self.metrics_path, os.O_RDWR)
        except FileNotFoundError:
            return
        except OSError as error:
            raise checks.BadArgument(
                "RUN_DIR", self.path, f"its {METRICS} cannot be written ({_reason(error)})"
            ) from error
        with file, io.BufferedReader(file) as lines:
            kept = 0
            while line := lines.readline(_LONGEST_LINE):
                number = _iteration(line)
                if number is None or number > iteration:
                    break
                kept += len(line)
            if kept < os.fstat(file.fileno()).st_size:
                os.truncate(file.fileno(), kept)


class SharedDirectory(RunDirectory):
    """A run's directory that another process of the run has made and locked, and writes to.

    Args:
      path: where it is.
      final: where it will be, once it is settled; None where it is there.
    """

    def __init__(self, path: str | os.PathLike, final: str | os.PathLike | None = None):
        super().__init__(path)
        self._final = None if final is None else Path(final)
        self._seen: str | None = None

    def check_seen(self, token: str) -> None:
        """Raises `BadArgument` where this process does not see what the other has written."""
        end = time.monotonic() + _SEEN_WITHIN
        while True:
            try:
                if self.token == token:
                    self._seen = token
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise checks.BadArgument(
                    "run_dir", self.path,
                    "not what process 0 has there; name a directory on a file system that all "
                    "processes share",
                )
            time.sleep(0.2)

    def settle(self) -> None:
        if self._final is not None:
            self.path, self._final = self._final, None
            if self._seen is not None:
                self.check_seen(self._seen)

    def abandon(self) -> None: ...

    def lock(self) -> None: ...

    def unlock(self) -> None: ...

    def write_config(self, config: RunConfig) -> None: ...

    def cut_metrics(self, iteration: int) -> None: ...


def _iteration(line: bytes) -> int | None:
    """The iteration that a whole line of `metrics.jsonl` is of; None for any other line."""
    if not line.endswith(b"\n"):
        return None
    try:
        number = read_json(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if type(number) is int else None


def default_name(env: str, algorithm: str, seed: int) -> str:
    """`<environment>-<algorithm>-seed<S>`, with nothing that a path could trip over."""
    return re.sub(r"[^\w.]+", "-", f"{env}-{algorithm}-seed{seed}").lstrip(".-")


def _in_use(path: Path) -> bool:
    directory = RunDirectory(path)
    try:
        directory.lock()
    except checks.BadArgument:
        return True
    directory.unlock()
    return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
