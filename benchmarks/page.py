"""Seconds until a large study's page shows its front, and until the plot can be used.

    python benchmarks/page.py [--trials 5000] [--repeats 5] [--other CHECKOUT]

The page of a made-up study is opened from disk by a new headless Chromium each time, without a
network. With --other the page that another checkout makes of the same study is opened in turns with
it. Times are from the start of the navigation: `text` is the first paint, `front` the frame after
the front is first drawn, as a sketch or by plotly, and `usable` the frame after plotly has drawn
it. The first time all plots are drawn in the end, by scrolling.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from main_job import machine, show  # noqa: E402
from selenium import webdriver  # noqa: E402

MAKE = """
import sys, pathlib
from sample_outcome import sample
from studies.report.page import render

pathlib.Path(sys.argv[1]).write_text(render(sample(trials=int(sys.argv[2]))), "utf-8")
"""
WATCH = """
window.seen = {};
const note = name => requestAnimationFrame(() => requestAnimationFrame(() => {
  seen[name] ||= performance.now();
}));
new MutationObserver(changes => {
  for (const {target} of changes) if (target.id === "plot-front") {
    note("front");
    if (target.dataset.drawn) note("usable");
  }
}).observe(document, {
  subtree: true, attributes: true, attributeFilter: ["data-drawn", "data-sketched"],
});
"""
STATE = """
const paint = performance.getEntriesByName("first-contentful-paint")[0];
const text = paint ? paint.startTime : 0;
return {text, front: seen.front ? Math.max(seen.front, text) : 0, usable: seen.usable || 0,
        elements: document.getElementsByTagName("*").length};
"""
UNDRAWN = """
const left = document.querySelectorAll("[role=img][id^=plot-]:not([data-drawn])");
if (left.length) left[0].scrollIntoView();
return left.length;
"""
MOST_S = 120.0


def opened(page: Path, width: int, whole: bool) -> dict[str, Any]:
    """Open a page in a browser of its own until its front, or all, is drawn; milliseconds."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        f"--window-size={width},900",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        driver.get(page.as_uri())
        end_s = time.monotonic() + MOST_S
        while not (state := driver.execute_script(STATE))["usable"]:
            assert time.monotonic() < end_s, "the front is not drawn"
            time.sleep(0.2)
        while whole and (left := driver.execute_script(UNDRAWN)):
            assert time.monotonic() < end_s, f"{left} plots are not drawn"
            time.sleep(0.2)
        return dict(state)
    finally:
        driver.quit()


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    roots = {"this": ROOT, **({"other": given.other} if given.other else {})}
    with tempfile.TemporaryDirectory() as name:
        pages, found = {}, {}
        for title, root in roots.items():
            pages[title] = Path(name) / f"{title}.html"
            path = f"{root}:{ROOT / 'tests' / 'support'}"
            command = [sys.executable, "-c", MAKE, str(pages[title]), str(given.trials)]
            subprocess.run(command, check=True, cwd=name, env={"PYTHONPATH": path})
        taken: dict[str, list[dict[str, Any]]] = {title: [] for title in pages}
        for repeat in range(given.repeats):
            for title, page in pages.items():
                taken[title].append(opened(page, given.width, repeat == 0))
        for title, page in pages.items():
            median = {
                key: statistics.median(each[key] for each in taken[title])
                for key in ("text", "front", "usable")
            }
            found[title] = {
                "bytes": page.stat().st_size,
                "elements": taken[title][0]["elements"],
                **{f"{key}_s": round(value / 1e3, 2) for key, value in median.items()},
                "slowest_front_s": round(max(each["front"] for each in taken[title]) / 1e3, 2),
            }
    show(
        {
            "machine": machine(),
            "trials": given.trials,
            "repeats": given.repeats,
            "width": given.width,
            "pages": found,
        },
        given.out,
    )


if __name__ == "__main__":
    main()
