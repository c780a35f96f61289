"""NVIDIA's own tool is asked with every flag given, and its exported times are read."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.jobs.child import own_command
from device_agent.runtime import Unavailable
from device_agent.runtimes.trtexec import cross_check, read_times, trtexec_command

# One run as `exportJSONTrace` of NVIDIA's samples (sampleReporting.cpp) writes it.
RUN = {
    "startEnqMs": 1.0, "endEnqMs": 1.1, "startH2dMs": 1.0, "endH2dMs": 1.2,
    "startComputeMs": 1.2, "endComputeMs": 3.2, "startD2hMs": 3.2, "endD2hMs": 3.3,
    "h2dMs": 0.2, "computeMs": 2.0, "d2hMs": 0.1, "latencyMs": 2.3,
}  # fmt: skip


def tool(folder: Path, version: str, fails: bool = False) -> str:
    """A program that answers as `trtexec` does: its banner, and a file of times."""
    runs = [{**RUN, "computeMs": ms, "latencyMs": ms + 0.3} for ms in (2.0, 9.0, 2.5)]
    lines = [
        f"#!{sys.executable}",
        "import sys",
        f"print('&&&& RUNNING TensorRT.trtexec [TensorRT {version}] [b17] #', *sys.argv)",
        "times = [one.partition('=')[2] for one in sys.argv if one.startswith('--exportTimes=')]",
        f"if times and {fails}: sys.exit('[E] Engine could not be created')",
        f"if times: open(times[0], 'w').write({json.dumps(json.dumps(runs))})",
    ]
    file = folder / "trtexec"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


@pytest.mark.parametrize(
    ("major", "has", "lacks"),
    [
        (10, {"--stronglyTyped"}, {"--includeDataTransfers", "--noCudaGraph"}),
        (11, {"--includeDataTransfers", "--noCudaGraph"}, {"--stronglyTyped"}),
    ],
)
def test_what_a_major_version_does_by_default_is_never_left_to_it(
    major: int, has: set[str], lacks: set[str]
) -> None:
    command = set(trtexec_command("trtexec", major, Path("m.onnx"), Path("t.json")))
    assert has <= command and not lacks & command
    assert {"--onnx=m.onnx", "--exportTimes=t.json", "--noTF32", "--infStreams=1"} <= command


def test_the_medians_of_its_exported_times_are_told(tmp_path: Path) -> None:
    found = cross_check(tmp_path / "m.onnx", tmp_path, tool(tmp_path, "v100300"))
    assert (found.version, found.samples) == (100300, 3)
    assert (found.compute_ms, found.latency_ms) == (2.5, 2.8)
    assert "--stronglyTyped" in found.command


def test_a_person_may_ask_the_agent_for_it(tmp_path: Path) -> None:
    command = own_command("cross-check", "m.onnx", "--trtexec", tool(tmp_path, "v110400"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["compute_ms"] == 2.5


def test_a_version_whose_flags_are_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="TensorRT 12: the flags of 10 and 11 are known"):
        cross_check(tmp_path / "m.onnx", tmp_path, tool(tmp_path, "v120000"))


def test_a_tool_that_fails_or_is_missing_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"exit status 1: .*Engine could not be created"):
        cross_check(tmp_path / "m.onnx", tmp_path, tool(tmp_path, "v100300", fails=True))
    with pytest.raises(Unavailable, match=r"cannot be run: .*give its path with --trtexec"):
        cross_check(tmp_path / "m.onnx", tmp_path, str(tmp_path / "none"))


@pytest.mark.parametrize("content", ["[]", "{}", '[{"computeMs": 1}]', "[1]", "no JSON"])
def test_times_of_another_form_are_not_believed(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_times(tmp_path / "t.json", 100300, ())
