"""A headless Chromium, spoken to by its DevTools protocol on the loopback interface."""

import base64
import contextlib
import json
import subprocess
import time
import urllib.request

from websockets.sync.client import connect

from tests.reporting.chromium import find_chromium


class Browser:
    """One page.

    Attributes:
      said: what it wrote to its console, failures included.
      requests: addresses that it asked for.
    """

    def __init__(self, socket):
        self._socket, self._number = socket, 0
        self.said, self.requests = [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **given):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": given}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer["method"], answer["params"])

    def _note(self, method, told):
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(told)
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def show(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 700)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait_for("document.documentElement.dataset.drawn")

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                         awaitPromise=True)["result"].get("value")

    def wait_for(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)
        return found

    def picture(self):
        """A PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return base64.b64decode(self.call(
            "Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])


@contextlib.contextmanager
def browser(home):
    """A page of a browser that keeps its files in `home`, a directory."""
    process = subprocess.Popen(
        [find_chromium(), "--headless", "--no-sandbox", "--disable-gpu",
         "--remote-debugging-port=0", "--disable-background-networking",
         f"--user-data-dir={home}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        told = home / "DevToolsActivePort"
        while not told.exists() or "\n" not in told.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(x for x in json.load(answer) if x["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, origin=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait()
