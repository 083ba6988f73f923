"""`jtrust watch`: the page of a report, served on this machine and kept up to date.

It only reads files, and of metrics only what is new, when a browser asks; a run that goes on in
another process is not touched.
"""

from __future__ import annotations

import http.server
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jtrust import checks
from jtrust.reporting.content import make_content
from jtrust.reporting.page import check_library, to_html, to_json
from jtrust.reporting.sources import Sources

HOST = "127.0.0.1"
_SHORTEST_WAIT = 2.0
# Of one core, at most this share goes into making pages.
_SHARE = 0.05


class Live:
    """What a page shows now; made again when files have changed, and not more often than is cheap.

    Args:
      sources: what is watched.
    """

    def __init__(self, sources: Sources):
        self._sources, self._lock = sources, threading.Lock()
        self._session, self._number = secrets.token_hex(4), 0
        self._content: dict[str, Any] | None = None
        self._next, self.wait = 0.0, _SHORTEST_WAIT

    @property
    def version(self) -> str:
        """Another one for each content; unlike those of another `jtrust watch`."""
        return f"{self._session}-{self._number}"

    def content(self) -> dict[str, Any]:
        """The newest content, with {"live": {"version", "milliseconds"}} in it."""
        with self._lock:
            if self._content is None or time.monotonic() >= self._next:
                self._refresh()
            assert self._content is not None
            return self._content

    def _refresh(self) -> None:
        start = time.thread_time()
        if self._sources.poll() or self._content is None:
            self._number += 1
            content = make_content(self._sources)
            self._content = content
        cost = time.thread_time() - start
        self.wait = max(_SHORTEST_WAIT, cost / _SHARE)
        self._content["live"] = {"version": self.version, "milliseconds": round(1e3 * self.wait)}
        self._next = time.monotonic() + 0.9 * self.wait


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET / and GET /content.json?version=...; nothing else."""

    server: Server
    timeout = 30

    def do_GET(self) -> None:
        # A page of another site that has its name lead to this machine has another name in Host.
        if self.headers.get("Host") not in self.server.names:
            self._answer(403, "text/plain", b"not this host\n")
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            content = self.server.live.content()
            page = to_html(content, kind="watch", made=self.server.what)
            self._answer(200, "text/html; charset=utf-8", page.encode())
        elif asked.path == "/content.json":
            content = self.server.live.content()
            if parse_qs(asked.query).get("version") == [content["live"]["version"]]:
                self._answer(204, "", b"")
            else:
                self._answer(200, "application/json", to_json(content).encode())
        else:
            self._answer(404, "text/plain", b"there is only /\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Serves what is watched on this machine alone, from its making to `server_close`.

    Args:
      run_dirs: as for `jtrust.report`; they need not have rows yet.
      port: 0 for a free one.

    Attributes:
      url: where it is.

    Raises:
      BadArgument: no such directory, a port that is taken, or the extra `report` is missing.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, run_dirs: Iterable[str | os.PathLike], port: int = 0):
        checks.whole_number("port", port, minimum=0, maximum=65535, example=8000)
        check_library()
        given = list(run_dirs)
        self.live = Live(Sources(given, waiting=True))
        self.what = "Watching " + ", ".join(checks.short(os.fspath(path), 80) for path in given[:3])
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise checks.BadArgument(
                "port", port, f"cannot be had ({error.strerror}); leave it out for a free one"
            ) from error
        self.port = self.server_address[1]
        self.names = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{self.port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is nobody's failure; anything else is told as usual."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def watch(
    run_dirs: Iterable[str | os.PathLike], port: int = 0, say: Callable[[str], None] = print
) -> None:
    """Serves a page about runs that is kept up to date, until Ctrl-C.

    Args:
      run_dirs: as for `jtrust.report`; they need not have rows yet.
      port: on 127.0.0.1; 0 takes a free one.
      say: told the address.

    Raises:
      BadArgument: as `Server`.
      KeyboardInterrupt: after Ctrl-C.
    """
    with Server(run_dirs, port) as server:
        say(f"watching at {server.url} (Ctrl-C ends it)")
        server.serve_forever(poll_interval=0.5)
