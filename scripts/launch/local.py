#!/usr/bin/env python3
"""Starts a command as N processes of one run on this machine, on the loopback interface.

    python scripts/launch/local.py 2 -- jtrust train brax/ant --num-envs 128

Each gets `--coordinator 127.0.0.1:PORT --num-processes N --process-id I`. Process 0 speaks for all.
SIGINT and SIGTERM go to process 0 alone, which tells the others, and a second one to all. Once a
process has failed, the others have 60 s to end by themselves. The status is the largest of theirs,
where a process that signal S ended counts as 128 + S.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

# Seconds from the first failure to SIGTERM for the others, and from there to SIGKILL.
PATIENCE, GRACE = 60.0, 10.0


def free_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commands(command: list[str], count: int, port: int) -> list[list[str]]:
    """The command of each process."""
    return [
        [
            *command, "--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count),
            "--process-id", str(index),
        ]
        for index in range(count)
    ]


def status_of(code: int) -> int:
    """What a shell makes of `Popen.returncode`."""
    return 128 - code if code < 0 else code


def run(commands: list[list[str]], patience: float = PATIENCE, grace: float = GRACE) -> int:
    """Starts all and waits for all; the largest status.

    Args:
      commands: of process 0 first.
      patience: seconds that the others have to end by themselves once one has failed.
      grace: seconds from SIGTERM, which they get then, to SIGKILL.
    """
    started: list[subprocess.Popen] = []
    signals: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        signals.append(number)
        for child in started[: 1 if len(signals) == 1 else None]:
            child.send_signal(number)  # none where it has ended

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for command in commands:
            # In a session of its own, so that a terminal's Ctrl-C comes to this process alone.
            started.append(subprocess.Popen(command, start_new_session=True))
        _wait(started, patience, grace)
    finally:
        for child in started:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return max(status_of(child.returncode) for child in started)


def _wait(started: list[subprocess.Popen], patience: float, grace: float) -> None:
    """Until all have ended, or the time of those that did not is over."""
    end, told = float("inf"), False
    while any(child.poll() is None for child in started):
        now = time.monotonic()
        if end == float("inf") and any(child.poll() for child in started):
            end = now + patience
        if now > end:
            if told:
                return
            told, end = True, now + grace
            for child in started:
                child.terminate()  # likewise
        time.sleep(0.1)


def main(args: list[str]) -> int:
    if len(args) < 3 or not args[0].isdecimal() or int(args[0]) < 1 or args[1] != "--":
        print("usage: python scripts/launch/local.py N -- COMMAND ...", file=sys.stderr)
        return 2
    try:
        return run(commands(args[2:], int(args[0]), free_port()))
    except OSError as error:
        print(f"{args[2]}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
