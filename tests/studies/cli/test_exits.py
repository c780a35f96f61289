"""Errors that a user can resolve end a command with one line and an exit code of their kind."""

import errno
import importlib
import pickle
import pkgutil
import re
from pathlib import Path

import pytest
import typer
from plugin_packages import MAXIMUM, on_path, write_package
from sqlalchemy.exc import OperationalError

import evaluators
import search_space
import studies
from evaluators.data.errors import DataError
from evaluators.devices.link import DeviceRefused
from evaluators.devices.ssh.host_key import HostKeyChanged
from search_space.errors import (
    DATA,
    DEVICE,
    DISK_FULL,
    HOST_KEY,
    STORAGE,
    USAGE,
    FusionNasError,
)
from search_space.operators.registry import operator_of
from studies.cli.exits import errors
from studies.search.trial_runner import SearchStopped

COMMANDS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "commands.md"


def kinds() -> list[type[FusionNasError]]:
    """Every kind of error in the product."""
    for package in (search_space, evaluators, studies):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, left = [], [FusionNasError]
    while left:
        subclasses = left.pop().__subclasses__()
        found += subclasses
        left += subclasses
    return found


def ended(error: Exception) -> int:
    with pytest.raises(typer.Exit) as left, errors():
        raise error
    return left.value.exit_code


def test_each_kind_of_error_has_a_documented_exit_code() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS.read_text("utf-8"), re.M)}
    assert {HOST_KEY, DEVICE, STORAGE, DISK_FULL} <= listed
    found = kinds()
    assert len(found) > 15
    for kind in found:
        assert kind.exit_code in listed or kind is SearchStopped, kind


def test_a_stopped_search_takes_the_code_of_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = SearchStopped("the device needs a person: orin", "then run it again")
    stopped.__cause__ = HostKeyChanged("its key is another")
    assert ended(stopped) == HOST_KEY
    assert capsys.readouterr().err == (
        "fusion-nas: the device needs a person: orin; then run it again\n"
    )


def test_a_full_disk_replaces_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = SearchStopped("3 trials failed", "once that is resolved, run it again")
    stopped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "file")
    assert ended(stopped) == DISK_FULL
    said = capsys.readouterr().err
    assert "make room" in said and "once that is resolved" not in said


def test_a_fault_of_the_toolkit_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), errors():
        raise ZeroDivisionError
    stopped = SearchStopped("no reason that a user could resolve")
    stopped.__cause__ = ZeroDivisionError()
    with pytest.raises(SearchStopped), errors():
        raise stopped


@pytest.mark.parametrize(
    "error",
    [
        SearchStopped("what", "hint"),
        DeviceRefused("disk-full", "no room"),
        DataError("folder", ["row 1: no text"], "add it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_a_process_boundary_as_they_are(error: FusionNasError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.hint, other.args) == (str(error), error.hint, error.args)


def test_what_a_database_says_is_shown_without_a_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "no such host in postgresql://tester:S3cr3t@host/name"
    assert ended(OperationalError("INSERT", {}, Exception(said))) == STORAGE
    assert "postgresql://tester:***@host/name" in capsys.readouterr().err


def test_only_data_are_told_in_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(HostKeyChanged("a\nb \x1b]0;title\x07")) == HOST_KEY
    assert capsys.readouterr().err.count("\n") == 1
    assert ended(DataError("folder", ["row 1: no text", "row 2: no text"])) == DATA
    assert capsys.readouterr().err.count("\n") == 3


def test_an_error_in_the_code_of_a_plugin_names_the_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = MAXIMUM.replace("return (np", "raise IndexError('too short')\n        return (np")
    write_package(tmp_path, "fails-late", code, "late = fails_late:Maximum")
    with on_path(tmp_path), pytest.raises(typer.Exit) as left, errors():
        operator_of("late").reference({}, [], [])
    assert left.value.exit_code == USAGE
    assert capsys.readouterr().err == (
        "fusion-nas: 'late' of the plugin fails-late 1.0 fails (IndexError: too short); "
        "leave it out, or install a version of fails-late without this fault\n"
    )
