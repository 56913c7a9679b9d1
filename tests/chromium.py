"""A real browser, Debian's Chromium, for the tests of the report's page. The screenshots stay in test-output/."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from conftest import ROOT

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SCREENSHOTS = ROOT / "test-output"

QUIET = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "headless")
QUIET += ("disable-component-update", "disable-sync", "hide-scrollbars", "disable-dev-shm-usage")
NO_NETWORK = ("proxy-server=127.0.0.1:9", "host-resolver-rules=MAP * ~NOTFOUND")
FIRST = "document.querySelector(arguments[0])"

CODES = {
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13},
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "ArrowDown": {"code": "ArrowDown", "windowsVirtualKeyCode": 40},
}


class Browser:
    """A Chromium without a network; `open` shows a page in a size and a colour scheme."""

    def __init__(self, profile: Path) -> None:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (
            *QUIET,
            f"user-data-dir={profile}",
            "proxy-server=127.0.0.1:9",
            "host-resolver-rules=MAP * ~NOTFOUND",
        ):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(str(DRIVER)))

    def open(self, file: Path, *, width: int = 1280, dark: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # what scrolls smoothly cannot be clicked yet
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        self.driver.get_log("performance")
        self.driver.get(file.as_uri())

    def see(self, selector: str) -> None:
        """Scrolls to an element, and waits until what came into sight is drawn."""
        self.run(f"{FIRST}.scrollIntoView({{block: 'center'}})", selector)
        self.wait("requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(arguments[0])))")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """What a script hands to its last argument, a function, some time later."""
        return self.driver.execute_async_script(script, *arguments)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """The mouse pressed and moved between two places of an element, as shares of its width and height."""
        self.run(f"{FIRST}.scrollIntoView({{block: 'center'}})", selector)
        box = f"const one = {FIRST}.getBoundingClientRect(); return [one.left, one.top, one.width, one.height]"
        left, top, width, height = self.run(box, selector)
        places = [(left + 1 + x * (width - 2), top + 1 + y * (height - 2)) for x, y in (start, end)]
        for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), (*places, places[1]), strict=True):
            pressed = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", pressed)

    def click(self, selector: str) -> None:
        """A real click, in the middle of the first element."""
        self.driver.find_element("css selector", selector).click()

    def tell(self, selector: str, event: str) -> None:
        """An event of the mouse at the first element, also where another one lies above it."""
        self.run(f"{FIRST}.dispatchEvent(new MouseEvent('{event}', {{bubbles: true}}))", selector)

    def text(self, selector: str) -> str:
        return str(self.run(f"return {FIRST}.textContent", selector))

    def texts(self, selector: str) -> list[str]:
        return list(
            self.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)
        )

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since `open`, without the page itself."""
        told = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if url.split("#")[0] != self.driver.current_url.split("#")[0]]

    def press(self, key: str) -> None:
        """A key, at whatever has the focus."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if key == "Enter" else {}
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key, **CODES[key], **text})

    def screenshot(self, name: str, most: int = 5000) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
        )
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))
