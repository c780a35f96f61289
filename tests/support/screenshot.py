"""Make a screenshot of a study's page, from its top to the end of its first plot.

    python tests/support/screenshot.py runs/pareto.html docs/images/gallery/faces.png

For `docs/images/gallery/`. Needs chromium and chromedriver. The picture has a palette of 256
colours, which keeps it small.
"""

import argparse
import io
import math
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

sys.path[:0] = [str(Path(__file__).parent)]

from browsing import headless  # noqa: E402

COLOURS = 256
MARGIN = 12
END = "return document.querySelector('[role=img]:not(svg)').getBoundingClientRect().bottom"


def main() -> None:
    """Write one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, help="pixels; default: to the end of the plot")
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    text = given.page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder, contextmanager(headless)() as browser:
        browser.open(text, Path(folder), given.width, given.dark)
        height = given.height or math.ceil(browser.run(END)) + MARGIN
        size = {"width": given.width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.run("scrollTo(0, 0)")
        taken = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    taken.quantize(COLOURS, dither=Image.Dither.NONE).save(given.picture, optimize=True)


if __name__ == "__main__":
    main()
