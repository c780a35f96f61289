"""Commands about devices and studies on virtual Jetsons: every line against what the board is."""

import json
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import onnxruntime
import pytest
import virtual_board
from desk import Desk, one_line
from faulty import network, request
from jetsons import AGX_ORIN, AGX_THOR, JETSONS, ORIN_NANO, ORIN_NX, Jetson, clusters_on, limits
from tiny import Place, new_place
from virtual_board import VirtualBoard, bare_python310, start_board

from device_agent.bundle import zipapp, zipapp_name
from device_agent.wire.result import Status
from evaluators.devices.registry import Devices
from evaluators.devices.ssh.link import open_ssh_device
from search_space import errors as codes

pytestmark = pytest.mark.skipif(bool(virtual_board.missing()), reason=virtual_board.missing())

AI_LAB = {"6": "jp6/cu126", "7": "sbsa/cu130"}
VENV = "python3 -m venv --system-site-packages fusion-nas-venv"
Finding = tuple[str, str, str]
"""Mark, value, and what to do."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Desk]]:
    """One board of each kind with its agent, all known in one place."""
    folder = tmp_path_factory.mktemp("fleet")
    place = new_place(folder / "place", COLUMNS="1000")
    with ExitStack() as stack:
        starts = [start_board(folder / board.kind, board) for board in JETSONS]
        with ThreadPoolExecutor() as threads:
            boards = list(threads.map(stack.enter_context, starts))
        desks = {board.jetson.kind: Desk(place, board) for board in boards}  # type: ignore
        for kind, desk in desks.items():
            desk.add(kind)
        installing = [place.start(place.command("device", "install", kind)) for kind in desks]
        for started in installing:
            out, err = started.communicate(60)
            assert started.returncode == 0, err
            assert "run by /usr/local/bin/python3" in out
        yield desks


def board_of(desk: Desk) -> VirtualBoard:
    assert isinstance(desk.server, VirtualBoard)
    return desk.server


def parsed(out: str) -> dict[str, Finding]:
    """Findings of a check by what was looked at; the last line is left out."""
    found: dict[str, Finding] = {}
    for line in out.splitlines()[:-1]:
        if advice := re.fullmatch(r" +-> (.*)", line):
            what = next(reversed(found))
            found[what] = (*found[what][:2], advice[1])
            continue
        told = re.fullmatch(r"(ok|warning|PROBLEM) +(\S+(?: \S+)*) {2,}(\S.*)", line)
        assert told, line
        found[told[2]] = (told[1], told[3], "")
    return found


def checks(place: Place, kinds: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Exit code and output of `device check` on several boards at once."""
    running = {kind: place.start(place.command("device", "check", kind)) for kind in kinds}
    return {kind: (each.wait(90), each.communicate(90)[0]) for kind, each in running.items()}


def truth(board: VirtualBoard, name: str, mode: int, pinned: bool) -> dict[str, Finding]:
    """What a check has to say of a board on which nothing else is wrong."""
    jetson = board.jetson
    limit, fastest = limits(jetson, mode), jetson.modes[jetson.fastest].name
    now = [(f"policy{k}", jetson.idle_khz / 1e3, limit.cpu_khz / 1e3) for k in on(jetson, mode)]
    now += [(jetson.gpu, jetson.idle_gpu_hz / 1e6, limit.gpu_hz / 1e6)]
    if jetson.memory_hz:
        now += [("emc", *(hz / 1e6 for hz in jetson.memory_hz))]
    low = "; ".join(f"{clock} at {at:.0f} of {most:.0f} MHz" for clock, at, most in now)
    hottest = max((zone for zone in jetson.zones if zone[1]), key=lambda zone: zone[1] or 0)
    own = zipapp_name(zipapp()).removeprefix("fusion-nas-agent-").removesuffix(".pyz")
    again = f"fusion-nas device install {name} --python fusion-nas-venv/bin/python"
    jetpack, pip = "sudo apt install nvidia-jetpack", "fusion-nas-venv/bin/pip install"
    version = onnxruntime.__version__
    if jetson.jetpack == "5":
        cuda = trt = (
            "flash JetPack 6 or newer (that of JetPack 5 is for a Python older than 3.10), or "
            f"start a container: fusion-nas device install {name} --python SCRIPT"
        )
    else:
        lab = f"(from NVIDIA's Jetson AI Lab index, {AI_LAB[jetson.jetpack]})"
        cuda = f"{jetpack}; {VENV}; {pip} onnxruntime-gpu {lab}; {again}"
        trt = f"{jetpack}; {VENV}; {again}"
    found = {
        "reachable": ("ok", f"127.0.0.1 port {board.port}", ""),
        "host key": ("ok", "the one that was trusted", ""),
        "log-in": ("ok", "jetson, by ssh-ed25519 key", ""),
        "agent": ("ok", f"of this version ({own})", ""),
        "board": (
            "ok",
            f"{jetson.model}, {limit.cores} processors on, L4T {jetson.l4t} "
            f"(JetPack {jetson.jetpack})",
            "",
        ),
        "Python": ("ok", board.run("python3 -V").split()[1], ""),
        "CUDA": (
            "warning",
            f"{version} has no CUDAExecutionProvider: --runtime cuda cannot be used",
            cuda,
        ),
        "onnxruntime": (
            "ok",
            f"{version}, AzureExecutionProvider, CPUExecutionProvider, opset up to 26",
            "",
        ),
        "tensorrt": (
            "warning",
            "tensorrt cannot be loaded by /usr/local/bin/python3: ModuleNotFoundError: No module "
            "named 'tensorrt'",
            trt,
        ),
        "memory": (
            "ok",
            f"{jetson.available_kb // 1024} MB available of {jetson.memory_kb // 1024} MB",
            "",
        ),
        "clock": ("ok", "within 30 s of this machine's", ""),
        "power mode": (
            ("ok", f"pmode:{mode:04} {limit.name}", "")
            if mode == jetson.fastest
            else (
                "warning",
                f"pmode:{mode:04} {limit.name}",
                f"sudo nvpmodel -m {jetson.fastest} is {fastest} (it may ask for a restart), "
                "unless this mode is the one you mean to measure",
            )
        ),
        "temperature": ("ok", f"{hottest[1] / 1e3:.1f} C at {hottest[0]}, the hottest zone", ""),
        "power": ("ok", "; ".join(f"{r.label} {r.watts:.2f} W" for r in jetson.rails), ""),
        "other programs": ("ok", "0.00 processors busy over 10 s, 0.1 are allowed", ""),
    }
    if jetson.counters:
        found["over-current"] = ("ok", "no event", "")
    if pinned:
        found["governor"] = ("ok", "performance", "")
    else:
        found["governor"] = ("warning", "schedutil", "sudo jetson_clocks")
        found["clocks"] = ("warning", low, "sudo jetson_clocks")
    return found


def on(jetson: Jetson, mode: int) -> tuple[int, ...]:
    return clusters_on(jetson, mode)


def told(out: str) -> dict[str, Finding]:
    """Findings as `truth` has them: the host's disk and how long exactly was watched left out."""
    found = parsed(re.sub(r"busy over \d+ s", "busy over 10 s", out))
    mark, value, _ = found.pop("disk")
    assert mark == "ok" and re.fullmatch(r"\d+ MB are free", value)
    return found


def test_every_line_of_a_check_is_true_of_its_board(fleet: dict[str, Desk]) -> None:
    place = fleet["nano"].place
    for kind, (code, out) in checks(place, fleet).items():
        board = board_of(fleet[kind])
        assert told(out) == truth(board, kind, board.jetson.mode, pinned=False), kind
        assert (code, out.splitlines()[-1]) == (0, f"{kind}: ready, 5 warnings")


def test_what_a_check_advises_brings_a_board_in_order(fleet: dict[str, Desk]) -> None:
    place = fleet["nano"].place
    for desk in fleet.values():
        board = board_of(desk)
        board.advised(f"sudo nvpmodel -m {board.jetson.fastest}")
        board.advised("sudo jetson_clocks")
    for kind, (code, out) in checks(place, fleet).items():
        board = board_of(fleet[kind])
        assert told(out) == truth(board, kind, board.jetson.fastest, pinned=True), kind
        assert (code, out.splitlines()[-1]) == (0, f"{kind}: ready, 2 warnings")


def test_a_list_of_the_boards_tells_how_far_each_has_come(fleet: dict[str, Desk]) -> None:
    out = fleet["nano"].device("list").stdout.splitlines()
    assert out == [
        f"{kind}: {desk.url}, key {desk.server.key_file}, trusted, agent installed"
        for kind, desk in sorted(fleet.items())
    ] + ["local: this machine"]


def test_what_troubles_a_board_is_named_and_a_reboot_is_survived(
    fleet: dict[str, Desk], tmp_path: Path
) -> None:
    place = fleet["nano"].place
    nano, nx, orin, thor = (board_of(fleet[each.kind]) for each in JETSONS)
    with ExitStack() as stack:
        plain = replace(ORIN_NANO, kind="plain", modes=(), monitors=())
        other = stack.enter_context(start_board(tmp_path / "plain", plain, bare_python310()))
        desk = Desk(place, other)  # type: ignore[arg-type]
        desk.add("plain")
        wrapper = other.write_wrapper("in-container", "echo starting the container")
        installed = desk.device("install", "plain", "--python", wrapper)
        assert f"run by {wrapper} (" in installed.stdout, installed

        nano.set_power_mode(nano.jetson.fastest)
        nano.pin_clocks()
        before = nano.boot_id
        nano.reboot()
        assert nano.run("cat /proc/sys/kernel/random/boot_id").strip() == nano.boot_id != before
        for board in (nx, orin, thor):
            board.set_power_mode(board.jetson.fastest)
            board.pin_clocks()
        nx.throttle("cpu-throttle-alert", 1)
        orin.break_rail("VDD_CPU_CV")
        thor.break_rail("VIN")
        with shaking(lambda: nx.over_current("oc3", 3)):
            found = checks(place, [*fleet, "plain"])
        nx.throttle("cpu-throttle-alert", 0)

    assert told(found["nano"][1]) == truth(nano, "nano", nano.jetson.fastest, pinned=False)

    events, held = (told(found["nx"][1])[what] for what in ("over-current", "throttling"))
    counted = re.fullmatch(r"oc3 (\d+) since the start of the board, (\d+) in 1\d s", events[1])
    assert counted and 3 <= int(counted[2]) <= int(counted[1]) and int(counted[2]) % 3 == 0
    assert events[0] == "warning" and "stronger supply" in events[2]
    assert held[:2] == ("warning", "throttled by cpu-throttle-alert")

    rails = {kind: told(found[kind][1])["power"] for kind in ("agx-orin", "thor", "plain")}
    assert rails["agx-orin"][:2] == (
        "warning",
        "VDD_GPU_SOC 3.18 W; VIN_SYS_5V0 3.78 W; VDDQ_VDD2_1V8AO 0.48 W; VDD_CPU_CV cannot be read;"
        " energy is measured without it",
    )
    assert rails["thor"][:2] == (
        "warning",
        "VDD_GPU 0.00 W; VDD_CPU_SOC_MSS 6.55 W; VIN_SYS_5V0 -0.04 W; VIN cannot be read; "
        "energy cannot be measured",
    )
    assert rails["plain"][:2] == ("warning", "energy cannot be measured")
    assert all("/sys/class/hwmon" in advice for _, _, advice in rails.values())

    code, out = found["plain"]
    mode = told(out)["power mode"]
    assert mode == ("warning", "not reported", "sudo nvpmodel -q prints it there")
    if python := bare_python310():
        assert told(out)["Python"][1].startswith("3.10."), python
        runtime = told(out)["onnxruntime"]
        assert runtime[0] == "PROBLEM" and "ModuleNotFoundError" in runtime[1]
        assert runtime[2] == "fusion-nas device install plain --with-runtime"
        assert code == codes.DEVICE


@contextmanager
def shaking(shake: Callable[[], None]) -> Iterator[None]:
    """Do something to a board every half second."""
    done = Event()

    def work() -> None:
        while not done.wait(0.5):
            shake()

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_power_mode_that_changes_under_a_study_is_an_error(
    fleet: dict[str, Desk], tmp_path: Path
) -> None:
    desk = fleet["nano"]
    board = board_of(desk)
    board.set_power_mode(0)
    artifact = network(tmp_path / "network.onnx")
    device = Devices(desk.place.home / "devices.json").get("nano")
    with open_ssh_device(device) as client:
        assert client.hello().board.power_mode == "pmode:0000 15W"
        timed = client.measure(artifact, request(artifact, energy_s=0.0))
        assert timed.status is Status.OK, timed
        board.set_power_mode(2)
        result = client.measure(artifact, request(artifact, energy_s=0.0, threads=2))
    assert result.status is Status.ERROR
    assert "power_mode 'pmode:0000 15W' and 'pmode:0002 MAXN_SUPER'" in result.reason


def test_a_whole_study_is_timed_on_a_board_that_reboots_meanwhile(fleet: dict[str, Desk]) -> None:
    desk = fleet["nano"]
    board = board_of(desk)
    board.set_power_mode(board.jetson.fastest)
    running = desk.place.start(study_on("nano", desk.place))
    before = board.boot_id
    until(lambda: any(" job " in command for command in board.commands()), running)
    board.reboot()
    out, errors = running.communicate(240)
    assert running.returncode == 0, errors
    assert_of_its_board(board, "nano", json.loads(out), desk.place)
    interruptions = [text for kept in timings(desk.place, "nano") for text in kept["interruptions"]]
    assert f"and was restarted in between, boot {before} to {board.boot_id}" in interruptions

    board.set_power_mode(0)
    again = desk.place.finish(study_on("nano", desk.place, "3"))
    one_line(again, codes.STORAGE, "power mode pmode:0002 MAXN_SUPER, now pmode:0000 15W")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ORIN_NX.kind, AGX_ORIN.kind, AGX_THOR.kind])
def test_a_whole_study_is_timed_on_each_other_board(fleet: dict[str, Desk], kind: str) -> None:
    desk = fleet[kind]
    board = board_of(desk)
    board.reboot()  # its rails can be read again
    done = desk.place.finish(study_on(kind, desk.place))
    assert done.returncode == 0, done.stderr
    assert_of_its_board(board, kind, json.loads(done.stdout), desk.place)


def study_on(kind: str, place: Place, trials: str = "2") -> list[str]:
    """The command of a study in a storage of its own; what was trained for one serves all."""
    storage = f"sqlite:///{place.folder / kind}.db"
    given = ("--device", kind, "--timing", "shared", "--objective", "energy")
    return place.run(*given, "--trials", trials, "--storage", storage, "--json")


def until(holds: Callable[[], bool], running: object, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end and running.poll() is None, running.communicate(1)
        time.sleep(0.01)


def timings(place: Place, kind: str) -> list[dict[str, Any]]:
    """What is kept of each timing on a board."""
    kept = [each["details"] for each in place.kept() if each["kind"] == "latency"]
    return [details for details in kept if details["device"] == kind]


def assert_of_its_board(board: VirtualBoard, kind: str, outcome: Any, place: Place) -> None:
    """What a study says of the board, and the energy that it measured, are the board's own."""
    jetson = board.jetson
    mode = jetson.modes[board.mode]
    said = f"{kind}: {jetson.model}, {platform.machine()}, {mode.cores} cores, "
    said += f"power mode pmode:{board.mode:04} {mode.name}, L4T {jetson.l4t}"
    assert outcome["conditions"]["device"] == said
    assert {trial["device"] for trial in outcome["trials"]} == {kind}
    whole = next((r for r in jetson.rails if r.label in ("VDD_IN", "VIN")), None)
    rails = [whole] if whole else jetson.rails
    found = timings(place, kind)
    assert found
    for details in found:
        assert details["board"]["fastest_mode"].endswith(jetson.modes[jetson.fastest].name)
        assert details["energy"]["source"].endswith(" + ".join(rail.label for rail in rails))
        drawn = sum(rail.watts for rail in rails)
        assert details["energy"]["busy_w"] == pytest.approx(drawn, abs=0.01)
        assert details["energy"]["idle_w"] == pytest.approx(drawn, abs=0.01)


# -- the tutorial

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "your-board.md"


def lines_of(page: Path) -> list[str]:
    """Every command of the page: lines of code blocks, and commands within the text."""
    text = page.read_text("utf-8")
    blocks = [line.strip() for line in text.splitlines() if line.startswith("    fusion-nas ")]
    joined = " ".join(text.split())
    within = re.findall(r"`((?:fusion-nas|device|sudo|python3 -m) [^`]+)`", joined)
    return [*blocks, *within]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A Nano that `~/.ssh/config` knows as orin.local, and a key of `~/.ssh/orin`."""
    folder = tmp_path_factory.mktemp("evening")
    ssh = folder / "user" / ".ssh"
    ssh.mkdir(parents=True)
    with start_board(folder / "nano", ORIN_NANO) as board:
        (ssh / "config").write_text(
            f"Host orin.local orin-?.local\n  HostName 127.0.0.1\n  Port {board.port}\n"
        )
        (ssh / "orin").write_bytes(board.key_file.read_bytes())
        place = new_place(folder / "place", COLUMNS="80", HOME=str(ssh.parent))
        yield Desk(place, board)  # type: ignore[arg-type]


def run_line(desk: Desk, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(line, comments=True)
    assert program == "fusion-nas"
    return desk.place.finish(desk.place.command(*words, *more))


ADD = "fusion-nas device add orin ssh://jetson@orin.local --key ~/.ssh/orin"
TRUST = "fusion-nas device trust orin"
INSTALL = "fusion-nas device install orin"
CHECK = "fusion-nas device check orin"
RUN = "fusion-nas run --study pareto --device orin --runtime tensorrt --precision fp16"
TWO = "fusion-nas run --study pareto --device orin-1 --device orin-2 --workers 4"
ADD_TAGGED = "fusion-nas device add orin-1 ssh://jetson@orin-1.local --tag orin"
TAG = "fusion-nas device tag orin-2 orin                       # sets all tags of a board"
TAGGED = "fusion-nas run --study pareto --device orin --workers 4"
QUEUE = "fusion-nas device queue"
WITH_RUNTIME = "fusion-nas device install orin --with-runtime"
JETPACK = "sudo apt install nvidia-jetpack"
IN_VENV = "fusion-nas device install orin --python fusion-nas-venv/bin/python"
CLOCKS = "sudo jetson_clocks"
REPLACE = "device trust orin --replace"
OTHER_KEY = "device install orin --key FILE"


def test_these_are_all_commands_of_the_tutorial() -> None:
    run_here = {ADD, TRUST, INSTALL, CHECK, RUN, TWO, WITH_RUNTIME, JETPACK, VENV, IN_VENV, CLOCKS}
    of_several = {ADD_TAGGED, TAG, TAGGED, QUEUE}
    lines = set(lines_of(PAGE)) - {"device install"}
    assert lines == run_here | of_several | {REPLACE, OTHER_KEY}


def known(desk: Desk) -> None:
    """Have the board added and trusted, also where a test is run alone."""
    if "orin: " not in desk.device("list").stdout:
        for line in (ADD, f"{TRUST} --yes", INSTALL):
            assert run_line(desk, line).returncode == 0


def test_the_first_quarter_of_an_hour_goes_as_the_tutorial_says(evening: Desk) -> None:
    board = board_of(evening)
    done = run_line(evening, ADD)
    assert done.stdout == "orin is ssh://jetson@orin.local. Next: fusion-nas device trust orin\n"

    asked = run_line(evening, TRUST)
    one_line(asked, codes.USAGE, "not a terminal", "--yes")
    trusted = run_line(evening, TRUST, "--yes")
    shown = board.run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert shown in trusted.stdout and "ssh_host_ed25519_key.pub" in trusted.stdout

    installed = run_line(evening, INSTALL)
    assert installed.returncode == 0, installed.stderr
    assert "/home/jetson/.fusion-nas/agent/fusion-nas-agent-" in installed.stdout
    checked = run_line(evening, CHECK)
    assert checked.returncode == 0 and checked.stdout.endswith("orin: ready, 5 warnings\n")
    assert max(map(len, checked.stdout.splitlines())) <= 80

    flags = evening.place.flags()
    refused = run_line(evening, RUN, *flags, "--trials", "1")
    assert refused.returncode == codes.DEVICE
    assert "tensorrt cannot be loaded by /usr/local/bin/python3" in refused.stderr
    for command in ("sudo apt install nvidia-jetpack", VENV, "device install orin --python fusion"):
        assert command in refused.stderr


@pytest.mark.slow
def test_commands_of_the_tutorial_s_text_do_what_it_says(evening: Desk) -> None:
    board = board_of(evening)
    known(evening)
    board.install_tensorrt()  # as JETPACK does
    board.run(VENV)
    own = run_line(evening, IN_VENV)
    assert "run by /home/jetson/fusion-nas-venv/bin/python (" in own.stdout, own.stderr

    brief = ("--trials", "1", "--timing", "shared")
    done = run_line(evening, RUN, *evening.place.flags(), *brief, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["conditions"]["runtime"].startswith("tensorrt 10.3.0, GPU")

    board.advised(CLOCKS)
    again = run_line(evening, f"fusion-nas {REPLACE}", "--yes")
    assert "trusted already" in again.stdout
    key = str(board.key_file)
    done = run_line(evening, f"fusion-nas {OTHER_KEY}".replace("FILE", key))
    assert done.returncode == 0, done.stderr

    run_line(evening, "fusion-nas device remove orin")  # A tag is no board's name.
    for line in (ADD_TAGGED, "fusion-nas device add orin-2 ssh://jetson@orin-2.local"):
        assert run_line(evening, line, "--key", key).returncode == 0
    for name in ("orin-1", "orin-2"):
        run_line(evening, f"fusion-nas device trust {name} --yes")
        assert run_line(evening, f"fusion-nas device install {name}").returncode == 0
    assert run_line(evening, TAG).returncode == 0
    for line, boards in ((TWO, "orin-1, orin-2"), (TAGGED, "orin (orin-1, orin-2)")):
        dry = run_line(evening, line, *evening.place.flags(), "--name", "two", "--dry-run")
        assert dry.returncode == 0 and f"on {boards} (cpu)" in dry.stdout, dry
    queue = run_line(evening, QUEUE)
    assert queue.returncode == 0 and queue.stdout.count("free") == 2, queue
    for name in ("orin-1", "orin-2"):
        assert run_line(evening, f"fusion-nas device remove {name}").returncode == 0


@pytest.mark.slow
def test_a_board_without_a_package_index_is_told_how_to_bring_the_runtime(evening: Desk) -> None:
    known(evening)
    done = run_line(evening, WITH_RUNTIME)
    assert done.returncode == codes.DEVICE
    for words in ("was not installed there", "no package index", "copy the wheels there"):
        assert words in done.stderr, done.stderr
