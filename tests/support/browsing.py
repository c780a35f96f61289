"""Pages in a real browser, where there is one."""

import json
import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

VOID = {"meta", "link", "img", "br", "input"}


class Parsed(HTMLParser):
    """Elements and words of a page; fails where elements do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


class Browser:
    """A headless Chromium without network."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self, text: str, folder: Path, width: int = 1400, dark: bool = False, whole: bool = True
    ) -> None:
        """Open a page, and if `whole` wait until all its plots are drawn."""
        file = folder / "page.html"
        file.write_text(text, encoding="utf-8")
        look = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [look]})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(file.as_uri())
        if not whole:
            return
        # A plot is drawn when it is about to be seen.
        undrawn = (
            "const plot = document.querySelector('[role=img]:not([data-drawn]):not(svg)');"
            "if (plot) plot.scrollIntoView(); else scrollTo(0, 0); return plot !== null"
        )
        for _ in range(100):
            if not self.driver.execute_script(undrawn):
                return
            time.sleep(0.05)
        raise AssertionError(f"plots are not drawn: {self.complaints()}")

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def wait_until(self, script: str) -> None:
        """Returns once the script says true."""
        for _ in range(200):
            if self.driver.execute_script(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; console: {self.complaints()}")

    def complaints(self) -> list[str]:
        """What the console holds but for the graphics driver's own warnings."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [m for m in messages if "GPU stall" not in m and "GL Driver" not in m]

    def requested(self) -> list[str]:
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]


def headless() -> Iterator[Browser]:
    """A browser, closed at the end; skips the test where none is installed."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    chrome.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chrome.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield Browser(chrome)
    chrome.quit()
