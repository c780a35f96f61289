"""Runtimes of plugins: found by entry points, used on this machine, refused on boards."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plugin_packages import on_path, write_package
from runtime_contract import model

import fusion_nas as fn
from device_agent.runtime import Unavailable
from device_agent.runtimes.onnx_runtime import CPU, OnnxRuntime
from device_agent.wire.request import MeasureRequest
from evaluators.devices.runtimes import GROUP, for_agent, runtime_names
from fusion_nas.testing import check_runtime
from studies.config.options import DeviceOptions, counts_threads, precisions_of
from studies.config.usage import UsageError

OWN = '''\
"""ONNX Runtime by another name."""

from device_agent.runtime import PluginRuntime
from device_agent.runtimes.onnx_runtime import OnnxRuntime


class Own(PluginRuntime):
    provider = "CPUExecutionProvider"
    precisions = ("fp32", "int8-dynamic")

    def version(self):
        return OnnxRuntime().version()

    def prepare(self, model, request, scratch, kept):
        return OnnxRuntime().prepare(model, request, scratch, kept)
'''
FAILING = {
    "breaks": ("raise ImportError('no driver')", "breaks = breaks:Own", "(ImportError: no driver)"),
    "takes-cpu": (OWN, "cpu = takes_cpu:Own", "fusion-nas has a built-in one of this name"),
    "counts": ("Three = 3", "counts = counts:Three", "3 is not a subclass of device_agent.runtime"),
    "eighth": (
        OWN.replace('"int8-dynamic"', '"int8-eighth"'),
        "eighth = eighth:Own",
        "Own.precisions are not some of fp32",
    ),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A plugin that works, beside others that do not."""
    folder = tmp_path_factory.mktemp("plugins")
    write_package(folder, "own-runtime", OWN, "own = own_runtime:Own", group=GROUP)
    for name, (code, entry, _) in FAILING.items():
        write_package(folder, name, code, entry, group=GROUP)
    with on_path(folder):
        yield
    for name in ("own-runtime", *FAILING):
        sys.modules.pop(name.replace("-", "_"), None)


@pytest.mark.parametrize("name", FAILING)
def test_a_plugin_that_fails_is_named_and_the_others_work(own: None, name: str) -> None:
    (found,) = (each for each in fn.plugins() if each.package == name)
    assert FAILING[name][2] in found.failure
    assert runtime_names() == ("cpu", "cuda", "tensorrt", "openvino", "own")


def test_a_network_is_timed_by_it(own: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    result = fn.measure(model(tmp_path / "m.onnx", "Abs"), runtime="own", shapes={"x": (1, 4)})
    assert result.provider == CPU and result.median_ms is not None
    assert result.runtime_version == f"{OnnxRuntime().version()} (own-runtime 1.0)"


def test_it_says_whether_threads_count_and_what_precisions_it_runs(own: None) -> None:
    assert counts_threads("own") and precisions_of("own") == ("fp32", "int8-dynamic")
    assert counts_threads("cpu") and not counts_threads("cuda")
    assert for_agent("cpu") is None


@pytest.mark.parametrize(
    ("name", "devices", "words"),
    [
        ("gone", ("local",), "--runtime 'gone': choose one of cpu, cuda, tensorrt, openvino, own,"),
        ("breaks", ("local",), "--runtime 'breaks' of the plugin breaks 1.0 cannot be used: "),
        ("own", ("orin",), "--runtime own with --device orin: the runtime of a plugin is for loc"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused(
    own: None, name: str, devices: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        DeviceOptions(devices, runtime=name)
    assert str(caught.value).startswith(words)


def test_an_agent_names_the_plugin_that_it_cannot_load(own: None) -> None:
    source = for_agent("own")
    assert source is not None
    gone = type(source)(source.name, source.origin, "gone_module", source.type, source.folder)
    with pytest.raises(Unavailable, match=r"'own' of the plugin own-runtime 1.0 cannot be loaded"):
        gone.load()


def own_runtime(**changes: Any) -> Any:
    scope: dict[str, Any] = {}
    exec(OWN, scope)
    return type("Own", (scope["Own"],), changes)()


def same_inputs(self: Any, file: Path, asked: MeasureRequest, *folders: Path) -> Any:
    return OnnxRuntime().prepare(file, replace(asked, seed=0), *folders)


def any_provider(self: Any, file: Path, asked: MeasureRequest, *folders: Path) -> Any:
    return OnnxRuntime().prepare(file, replace(asked, provider=CPU), *folders)


def lets_errors_out(self: Any, file: Path, asked: MeasureRequest, *folders: Path) -> Any:
    import onnxruntime

    onnxruntime.InferenceSession(file.read_bytes(), providers=[CPU])
    return OnnxRuntime().prepare(file, asked, *folders)


def test_the_checks_accept_a_runtime_that_works() -> None:
    check_runtime(own_runtime())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": lambda self: 1 / 0}, "Own: checking description raised ZeroDivisionError"),
        ({"prepare": same_inputs}, "Own: another seed gives the same outputs"),
        ({"prepare": any_provider}, "Own: provider AbacusProvider: it raises nothing, not Unava"),
        ({"prepare": lets_errors_out}, "Own: an unknown operator: it raises "),
    ],
)
def test_the_checks_name_each_kind_of_fault(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_runtime(own_runtime(**changes))
    assert str(caught.value).startswith(words)
