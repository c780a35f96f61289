"""What all tests share: real data where there is some, no network, one thread a process."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before any hub client is imported
# Before PyTorch is imported, here and in every child process: each worker of pytest-xdist would
# otherwise start a thread for every core.
os.environ["OMP_NUM_THREADS"] = "1"

import commands
import pytest
from hypothesis import HealthCheck, settings
from sshd import Sshd, missing, start_sshd

ROOT = Path(__file__).parent.parent
# How long a draw takes depends on what else the machine does.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")
LONGEST_FIRST = (
    "system/test_damage.py",
    "system/test_virtual_boards.py",
    "studies/infra/test_worker_processes.py",
    "search_space/test_three_modalities.py",
    "system/test_trimodal.py",
    "system/test_ssh_study.py",
    "studies/cli/test_bad_input.py",
    "search_space/test_rewrites.py",
    "studies/search/test_early_stopping.py",
    "system/test_resume.py",
    "studies/ablations/test_designs.py",
    "system",
    "studies",
)
"""Files, then folders, in the order in which they are begun: a worker takes whole files."""
HANDLERS = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker ends on a long file alone."""
    places = [Path(__file__).parent / name for name in LONGEST_FIRST]
    items.sort(key=lambda item: [not item.path.is_relative_to(place) for place in places])


@pytest.fixture(scope="session", autouse=True)
def _short_readings() -> None:
    """A run in this process times designs as the commands of `tiny.Place` do."""
    if "tiny" in sys.modules:
        commands.time_briefly()


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap() -> None:
    """Exclude what exists before the tests of a module from garbage collection.

    Every timing begins with a collection. Over all that the tests import it takes half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """A test that draws without a generator of its own draws the same in every run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(1234)  # not 0, which random weights of encoders are drawn from


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A run in this process takes signals for itself and leaves them so."""
    yield
    for each, handler in HANDLERS.items():
        signal.signal(each, handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; tests that need it are skipped where there is none."""
    folder = Path(os.environ.get("FUSION_NAS_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set FUSION_NAS_SHARED to a folder that holds it")
    return folder.resolve()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A real SSH server on the loopback; tests that need it are skipped where none is installed."""
    if why := missing():
        pytest.skip(why)
    with start_sshd(tmp_path / "sshd") as server:
        yield server
