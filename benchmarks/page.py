"""Seconds until a large study's page shows its first plot, and until everything is drawn.

    python benchmarks/page.py [--trials 5000] [--repeats 5] [--other CHECKOUT]

The page of a made-up study is opened from disk by a new headless Chromium each time, without network.
With --other the page that another checkout makes of the same study is opened in turns with it.
Times are from the start of the navigation; `front` is when the first plot stands, and `seen` the
next frame after it. `scripts` is the main thread's time in all tasks until everything is drawn.
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

MAKE = (
    "import sys, pathlib; from sample_outcome import sample; from studies.report.page import render; "
    "pathlib.Path(sys.argv[1]).write_text(render(sample(trials=int(sys.argv[2]))), 'utf-8')"
)
WATCH = """
window.seen = {drawn: {}, tasks: 0};
new PerformanceObserver(list => {
  for (const task of list.getEntries()) seen.tasks += task.duration;
}).observe({type: "longtask", buffered: true});
new MutationObserver(changes => {
  for (const {target} of changes) {
    if (!target.dataset || !target.dataset.drawn || seen.drawn[target.id]) continue;
    seen.drawn[target.id] = performance.now();
    if (!seen.front) {
      seen.front = performance.now();
      requestAnimationFrame(() => requestAnimationFrame(() => { seen.frame = performance.now(); }));
    }
  }
}).observe(document, {subtree: true, attributes: true, attributeFilter: ["data-drawn"]});
"""
STATE = """
const {domInteractive} = performance.getEntriesByType("navigation")[0];
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return {parsed: domInteractive, text: paint ? paint.startTime : 0, front: seen.front || 0,
        seen: seen.frame || 0, tasks: seen.tasks, plots: Object.keys(seen.drawn).length,
        last: Math.max(0, ...Object.values(seen.drawn)),
        nodes: document.getElementsByTagName("*").length};
"""
SCROLLED_S = 0.6
MOST_S = 120.0


def opened(page: Path, width: int) -> dict[str, Any]:
    """Open a page in a browser of its own and scroll through it; milliseconds."""
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
        wanted = "return document.querySelectorAll('[role=img][id^=plot-]').length"
        state, end_s = driver.execute_script(STATE), time.monotonic() + MOST_S
        while not state["seen"] and time.monotonic() < end_s:
            time.sleep(0.1)
            state = driver.execute_script(STATE)
        first, plots = state, driver.execute_script(wanted)
        driver.execute_script("document.body.style.scrollBehavior = 'auto'")
        while state["plots"] < plots and time.monotonic() < end_s:
            for place in range(20):  # a reader who scrolls down
                driver.execute_script(
                    "scrollTo(0, document.documentElement.scrollHeight * arguments[0])", place / 20
                )
                time.sleep(SCROLLED_S / 10)
            state = driver.execute_script(STATE)
        assert state["plots"] == plots, f"{state['plots']} of {plots} plots are drawn"
        return {**state, "front": first["front"], "seen": first["seen"]}
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
        for _ in range(given.repeats):
            for title, page in pages.items():
                taken[title].append(opened(page, given.width))
        for title, page in pages.items():
            median = {
                key: statistics.median(each[key] for each in taken[title])
                for key in ("parsed", "text", "front", "seen")
            }
            found[title] = {
                "bytes": page.stat().st_size,
                "elements": taken[title][0]["nodes"],
                "plots": taken[title][0]["plots"],
                **{f"{key}_s": round(value / 1e3, 2) for key, value in median.items()},
                "slowest_seen_s": round(max(each["seen"] for each in taken[title]) / 1e3, 2),
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
