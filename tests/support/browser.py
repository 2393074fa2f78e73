"""Debian's Chromium without a window, driven through a pipe: no socket and no further package.

The DevTools protocol: JSON messages, each ended by a zero byte, on the browser's descriptors
3 (in) and 4 (out). https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--remote-debugging-pipe"),
)
PATIENCE_SECONDS = 60


class Page:
    """One open page; what the browser says meanwhile is kept in `events`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._in, self._out, self._buffer, self._number = to_browser, from_browser, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there; earlier events are forgotten."""
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._read())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; runs in spite of its policy."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Show the page on a screen of that many CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **metrics)

    def prefer(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def photograph(self, path: Path, *, is_whole: bool = False) -> None:
        """A PNG of what the screen shows, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What stood in the console, and exceptions."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e) for e in self.events if e.get("method") in kinds]

    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        method = "Network.requestWillBeSent"
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == method]

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0, end - time.monotonic()))
            found = os.read(self._out, 1 << 20) if ready else b""
            assert found, "the browser ended or does not answer"
            self._buffer += found
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def open_browser() -> Iterator[Page]:
    """A browser with a profile of its own, ended with the block."""
    assert CHROMIUM is not None
    (child_in, ours_out), (ours_in, child_out) = os.pipe(), os.pipe()
    # a helper of the browser may still write into its profile while that is being removed
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # numbers from 10 on, so that neither is 3 or 4; bash takes them, the plain sh does not
        inner = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (child_in, child_out)]
        place = f'exec "$@" 3<&{inner[0]} 4>&{inner[1]}'
        process = subprocess.Popen(
            ["bash", "-c", place, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            env={**os.environ, "HOME": profile},
            pass_fds=inner,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (child_in, child_out, *inner):
            os.close(end)
        try:
            yield Page(ours_out, ours_in)
        finally:
            os.close(ours_out)  # the browser ends when its pipe does
            os.close(ours_in)
            os.killpg(process.pid, signal.SIGKILL)  # its helpers too
            process.wait()
