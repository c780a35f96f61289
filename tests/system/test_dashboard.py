"""Optuna's dashboard on a finished study, as a browser shows it."""

import json
import os
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny import Place, finished_place

SEEDED = ("late-tiny-vit", "intermediate-tiny-vit", "early-tiny-vit")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def address(finished: Place) -> Iterator[str]:
    """Where `fusion-nas dashboard` serves the finished study."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = finished.start(finished.command("dashboard", "--port", str(port)))
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"{url}/api/studies", timeout=5):
            break
        time.sleep(0.1)
    yield url
    server.terminate()
    server.communicate(timeout=10)


@pytest.fixture
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1600"):
        options.add_argument(flag)
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def wait_for(browser: Any, *words: str) -> str:
    """The text of the page, once all the words are in it."""
    until = time.monotonic() + 40
    text = ""
    while time.monotonic() < until:
        with suppress(Exception):
            text = browser.find_element("tag name", "body").text
            if all(word in text for word in words):
                return text
        time.sleep(0.1)
    raise AssertionError(f"{words} not all on the page:\n{text}")


def picture(browser: Any, name: str) -> None:
    """Keeps what is shown in the folder that FUSION_NAS_PICTURES names, for people to see."""
    if folder := os.environ.get("FUSION_NAS_PICTURES"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def study_of(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/api/studies", timeout=10) as answer:
        (study,) = json.load(answer)["study_summaries"]
    with urllib.request.urlopen(f"{address}/api/studies/{study['study_id']}", timeout=10) as answer:
        return {"id": study["study_id"], **json.load(answer)}


def test_the_trials_page_shows_seeded_trials_by_name_with_values(
    address: str, browser: Any
) -> None:
    study = study_of(address)
    for number, name in enumerate(SEEDED):
        browser.get(f"{address}/dashboard/studies/{study['id']}/trials?numbers={number}")
        text = wait_for(browser, f"Trial {number}", name, "scaled in proportion")
        for value in study["trials"][number]["values"]:
            assert str(value)[:5] in text
        picture(browser, f"trial-{number}")


def test_constraints_are_there_and_kept(address: str) -> None:
    for trial in study_of(address)["trials"]:
        assert trial["state"] in ("Complete", "Pruned")
        if trial["state"] == "Complete":
            assert all(value <= 0 for value in trial["constraints"])


def test_the_networks_of_the_front_can_be_fetched_as_artifacts(
    address: str, browser: Any, finished: Place
) -> None:
    done = finished.finish(finished.command("report", "--json"))
    outcome = json.loads(done.stdout)
    named = [trial["name"] for trial in outcome["trials"] if trial["name"]]
    front = [f"trial-{n}" for n in outcome["front"] if not outcome["trials"][n]["name"]]
    study = study_of(address)
    kept = {artifact["filename"]: artifact["artifact_id"] for artifact in study["artifacts"]}
    assert set(kept) == {f"{name}.onnx" for name in named + front}
    url = f"{address}/artifacts/{study['id']}/{kept[f'{SEEDED[0]}.onnx']}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert len(answer.read()) > 100_000
    browser.get(f"{address}/dashboard/studies/{study['id']}")
    wait_for(browser, "pareto-data-tiny", f"{SEEDED[0]}.onnx")
    picture(browser, "study")


def test_a_port_that_is_taken_is_one_line(address: str, finished: Place) -> None:
    port = address.rpartition(":")[2]
    done = finished.finish(finished.command("dashboard", "--port", port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"--port {port}: cannot listen" in done.stderr


def test_a_dashboard_without_a_study_is_one_line(finished: Place) -> None:
    command = finished.command("dashboard", "--storage", "sqlite:///none.db")
    done = finished.finish(command)
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1 and "run a study first" in done.stderr
