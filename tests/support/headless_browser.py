"""A headless Chromium driven through ChromeDriver's HTTP interface (W3C WebDriver).

Tests that need it skip where there is none, but for ``BROWSER=required``: there they fail.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
IS_MISSING = not (CHROMIUM and CHROMEDRIVER) and os.environ.get("BROWSER") != "required"
needs_browser = pytest.mark.skipif(IS_MISSING, reason="needs chromium and chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


class Browser:
    """One session; ``script`` runs JavaScript in the page and returns its value."""

    def __init__(self, address, session):
        self._base = f"{address}/session/{session}"

    def open(self, path):
        self._post("/url", {"url": Path(path).resolve().as_uri()})

    def script(self, source, *arguments):
        return self._post("/execute/sync", {"script": source, "args": list(arguments)})

    def press(self, *keys):
        """Keys on the element that has the focus."""
        downs = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": downs}]})

    def media(self, **features):
        """Emulate, say, ``prefers_color_scheme="dark"``, or ``media="print"``."""
        media = features.pop("media", "")
        found = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        parameters = {"media": media, "features": found}
        self._post("/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": parameters})

    def width(self, pixels):
        parameters = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": parameters}
        self._post("/goog/cdp/execute", command)

    def log(self):
        """What the page has written to the console since the last call, errors included."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def _post(self, path, body):
        return call(f"{self._base}{path}", body)


def call(url, body=None, method="POST"):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


@contextmanager
def headless_browser():
    """A :class:`Browser`; needs ``chromium`` and ``chromedriver`` on the path."""
    assert CHROMIUM, "BROWSER=required, and no chromium on the path: make browser installs it"
    assert CHROMEDRIVER, (
        "BROWSER=required, and no chromedriver on the path: make browser installs it"
    )
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        try:
            line = next(line for line in driver.stdout if "successfully on port" in line)
            address = f"http://127.0.0.1:{line.rstrip().rstrip('.').split()[-1]}"
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            body = {"capabilities": {"alwaysMatch": wanted}}
            session = call(f"{address}/session", body)["sessionId"]
            try:
                yield Browser(address, session)
            finally:
                call(f"{address}/session/{session}", method="DELETE")
                time.sleep(0.2)  # Chromium lets go of its profile
        finally:
            driver.terminate()
            driver.wait(timeout=10)
            driver.stdout.close()
