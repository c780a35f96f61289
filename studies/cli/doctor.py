"""What `fusion-nas doctor` prints: versions, plugins, devices, caches, and what is missing."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from evaluators.devices.registry import DevicesError
from search_space.errors import USAGE, FusionNasError
from search_space.plugins import Plugin
from studies.config.home import devices, home_path
from studies.infra.locations import default_url
from studies.report import terminal
from studies.report.paragraphs import say
from studies.results.objectives import installed_plugins
from studies.results.text import counted

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")
LEAST_FREE_BYTES = 2e9
CACHES = {
    "evaluations.jsonl": "evaluations",
    "features": "features",
    "weights": "trained designs",
    "trunks": "fine-tuned trunks",
    "parts": "graph parts",
    "data": "frames and sounds",
    "device": "local agent",
}
_NVIDIA = Path("/proc/driver/nvidia/version")


class SomethingMissing(FusionNasError):
    """The doctor found what keeps commands from working."""

    exit_code = USAGE


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the command or step that resolves it.

    is_fatal: whether runs fail because of it; otherwise it is advice.
    """

    what: str
    remedy: str
    is_fatal: bool = True


@dataclass(frozen=True)
class Checkup:
    """What the doctor found; sizes in bytes."""

    python: str
    packages: dict[str, str]
    providers: list[str]
    plugins: list[Plugin]
    devices: dict[str, str]
    home: str
    caches: dict[str, int]
    storage: str
    free_bytes: int
    problems: list[Problem]


def show_doctor(json_only: bool) -> None:
    """Prints the state of this installation. Raises SomethingMissing if runs would fail."""
    found = checkup()
    if json_only:
        print(json.dumps(asdict(found), allow_nan=False))
    else:
        console = terminal.open_console()
        for line in in_words(found):
            say(console, line, hang=4)
    fatal = [problem for problem in found.problems if problem.is_fatal]
    if fatal:
        raise SomethingMissing(
            f"doctor: {counted(len(fatal), 'problem')}, first: {fatal[0].what}", fatal[0].remedy
        )


def checkup() -> Checkup:
    """Look at packages, runtimes, devices, caches and the disk; nothing is changed."""
    problems: list[Problem] = []
    packages = dict(_packages(problems))
    providers = _providers(packages, problems)
    where = home_path()
    return Checkup(
        platform.python_version(),
        packages,
        providers,
        _plugins(problems),
        _devices(problems),
        str(where),
        {words: _bytes(where / name) for name, words in CACHES.items()},
        _storage(),
        _free(where, problems),
        problems,
    )


def _packages(problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Installed versions of all that this package requires; those missing or too old are noted."""
    from packaging.requirements import Requirement

    yield "fusion-nas", metadata.version("fusion-nas")
    for text in metadata.requires("fusion-nas") or ():
        required = Requirement(text)
        is_extra = required.marker is not None and "extra" in str(required.marker)
        if is_extra and required.name not in RUNTIMES:
            continue
        try:
            version = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            if not is_extra:
                problems.append(
                    Problem(f"{required.name} is not installed", f"pip install '{required.name}'")
                )
            continue
        yield required.name, version
        if not is_extra and not required.specifier.contains(version, prereleases=True):
            wanted = f"{required.name}{required.specifier}"
            problems.append(Problem(f"{required.name} is {version}", f"pip install '{wanted}'"))


def _providers(packages: dict[str, str], problems: list[Problem]) -> list[str]:
    """What ONNX Runtime can run on here."""
    if "onnxruntime" in packages and "onnxruntime-gpu" in packages:
        problems.append(
            Problem(
                "onnxruntime and onnxruntime-gpu overwrite each other",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fusion-nas[gpu]'",
            )
        )
    try:
        import onnxruntime
    except ImportError as error:
        problems.append(
            Problem(f"onnxruntime cannot be imported ({error})", "pip install 'fusion-nas[cpu]'")
        )
        return []
    found = list(onnxruntime.get_available_providers())
    if _NVIDIA.exists() and "CUDAExecutionProvider" not in found:
        problems.append(
            Problem(
                "an NVIDIA driver is here, and onnxruntime runs on the CPU alone",
                "pip uninstall -y onnxruntime && pip install 'fusion-nas[gpu]'",
                is_fatal=False,
            )
        )
    return found


def _plugins(problems: list[Problem]) -> list[Plugin]:
    """Plugins that are installed; those that cannot be used are noted."""
    found = [*installed_plugins()]
    for plugin in found:
        if plugin.failure:
            what = f"plugin {plugin.name} of {plugin.origin} cannot be used: {plugin.failure}"
            remedy = f"pip install --upgrade {plugin.package}, or pip uninstall {plugin.package}"
            problems.append(Problem(what, remedy, is_fatal=False))
    return found


def _devices(problems: list[Problem]) -> dict[str, str]:
    """Registered devices and where they are."""
    try:
        return {device.name: device.url for device in devices().all()}
    except DevicesError as error:
        problems.append(Problem(str(error), "fusion-nas device list"))
        return {}


def _storage() -> str:
    """The default storage, and whether it is there."""
    url = default_url()
    file = Path(url.partition(":///")[2])
    return f"{file} ({'there' if file.is_file() else 'not made yet'})"


def _free(where: Path, problems: list[Problem]) -> int:
    """Free bytes of the disk that the home is on; whether files can be made there is tried."""
    there = where
    while not there.exists():
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".fusion-nas-"):
            pass
    except OSError as error:
        problems.append(
            Problem(
                f"{there}: cannot be written ({error.strerror})",
                "name another folder with FUSION_NAS_HOME",
            )
        )
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE_BYTES:
        problems.append(
            Problem(
                f"{_size(free)} are free in {there}",
                f"remove {where / 'features'}; features are computed again where needed",
                is_fatal=False,
            )
        )
    return free


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    sizes = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                sizes += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # removed meanwhile
    return sizes


def in_words(found: Checkup) -> Iterator[str]:
    """Yield what was found in lines."""
    yield f"python {found.python}"
    yield "packages: " + ", ".join(f"{name} {v}" for name, v in found.packages.items())
    yield f"ONNX Runtime runs on: {', '.join(found.providers) or 'nothing'}"
    if found.plugins:
        yield "plugins:"
        for plugin in found.plugins:
            state = "cannot be used, see below" if plugin.failure else plugin.group
            yield f"  {plugin.name} ({plugin.origin}): {state}"
    else:
        yield "plugins: none"
    if found.devices:
        named = ", ".join(f"{name} ({url})" for name, url in found.devices.items())
        yield f"devices: local, {named}; fusion-nas device check NAME connects to one"
    else:
        yield "devices: local; fusion-nas device add NAME ssh://USER@HOST adds a board"
    yield f"cache: {found.home}, {_size(found.free_bytes)} free"
    for words, size in found.caches.items():
        if size:
            yield f"  {words}: {_size(size)}"
    yield f"storage: {found.storage}"
    if not found.problems:
        yield "nothing is missing"
    for problem in found.problems:
        mark = "problem" if problem.is_fatal else "advice"
        yield f"{mark}: {problem.what}. Remedy: {problem.remedy}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
