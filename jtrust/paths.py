"""Paths: what users give, made ready in one place, and files of directories that others made."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from typing import Any, cast

from jtrust import checks

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class NotPlain(OSError):
    """What should be a plain file is a link, a device or a pipe."""


def user_path(name: str, value: Any) -> Path:
    """A path that a user gave, `~` expanded; nothing is made or opened.

    Args:
      name: the argument that gave it.
      value: a text or an `os.PathLike` of a text.

    Raises:
      BadArgument: it is no path, empty, of another file system (`gs://...`), or none that the
        operating system could have.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise checks.BadArgument(name, value, "must be a path: a text, or a pathlib.Path")
    text = os.fspath(value)
    if not text.strip():
        raise checks.BadArgument(name, text, "is empty; name a directory, such as runs/first")
    if "\0" in text:
        raise checks.BadArgument(name, text, "has a NUL character in it, which no path can have")
    if _SCHEME.match(text):
        raise checks.BadArgument(
            name, text, "is not on this machine's file system; name a directory that is (mounted "
            "storage will do)",
        )
    try:
        path = Path(text).expanduser()
        os.fsencode(path)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise checks.BadArgument(name, text, f"cannot be a path: {error}") from error
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # told where it is used, in that argument's own words
    except OSError as error:
        raise checks.BadArgument(name, text, f"cannot be a path: {error.strerror}") from error
    return path


def open_plain(path: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """Opens a plain file inside a run directory, unbuffered; made where `flags` say so.

    A run directory may come from elsewhere. A link in it could lead to any file of the user's, and
    a pipe would be waited on for ever, so neither is opened.

    Raises:
      NotPlain: it is a link or no plain file.
      OSError: it cannot be opened.
    """
    try:
        number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if os.path.islink(path):
            raise NotPlain(error.errno, "it is a symbolic link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise NotPlain(0, "it is no plain file", str(path))
    mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}[flags & os.O_ACCMODE]
    return cast(io.FileIO, os.fdopen(number, mode, buffering=0))


def read_plain(path: Path, most: int) -> bytes:
    """What a plain file inside a run directory holds, of at most `most` bytes.

    Raises:
      NotPlain: it is a link, no plain file, or larger.
      OSError: it cannot be read.
    """
    with open_plain(path) as file:
        chunks, left = [], most + 1
        while left and (chunk := file.read(left)):
            chunks.append(chunk)
            left -= len(chunk)
    if not left:
        raise NotPlain(0, f"it is larger than {most:,} bytes", str(path))
    return b"".join(chunks)
