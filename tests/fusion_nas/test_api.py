"""The Python API does what the command does, in a thread, a notebook or a script."""

import doctest
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny import Place, new_place
from typer.testing import CliRunner

import fusion_nas as fn
from fusion_nas import measuring, progress, searching, study
from studies.cli.app import app
from studies.config.settings import option_names

TRIALS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = new_place(tmp_path_factory.mktemp("api"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_NAS_HOME", str(place.home))
        patch.chdir(place.folder)
        yield place


def options(place: Place) -> fn.Options:
    return {
        "data": place.data,
        "space": place.folder / "tiny.toml",
        "trunks": "frozen",
        "threads": 1,
        "seeds": 1,
        "final_readings": 0,
        "seed_paper": True,
        "storage": place.folder / "api.db",
    }


@pytest.fixture(scope="module")
def searched(place: Place) -> fn.Study:
    """A study that was run in a thread."""
    found: list[fn.Study] = []

    def run() -> None:
        found.append(fn.search(trials=TRIALS, progress=False, **options(place)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found, "the search in a thread failed"
    return found[0]


def test_a_search_runs_in_a_thread_to_its_total(searched: fn.Study) -> None:
    assert [design.number for design in searched.trials] == list(range(TRIALS))
    assert len(searched.front) >= 1
    assert all(design.state == "complete" for design in searched.front)
    latencies = [design.latency_ms for design in searched.front]
    assert latencies == sorted(latencies, key=lambda ms: ms or 0.0)


def test_the_same_call_goes_on_where_an_interrupted_kernel_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = options(place) | {"storage": place.folder / "interrupted.db"}

    def interrupted(self: progress.Bars, done: int, total: int, text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Bars, "trial", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fn.search(trials=3, **own)
    assert len(fn.load(place.folder / "interrupted.db").trials) == 2
    again = fn.search(trials=3, **own)
    assert [design.state for design in again.trials].count("complete") == 3


def test_a_loaded_study_tells_what_the_command_tells(place: Place, searched: fn.Study) -> None:
    flags = ("--storage", f"sqlite:///{place.folder / 'api.db'}", "--json")
    told = json.loads(CliRunner().invoke(app, ["report", *flags]).stdout)
    loaded = fn.load(place.folder / "api.db", searched.name)
    assert repr(loaded) == repr(searched)
    assert [each.number for each in loaded.front] == told["front"]
    assert [each.accuracy for each in loaded.trials] == [each.accuracy for each in searched.trials]


def test_an_unknown_option_is_named_with_those_like_it() -> None:
    with pytest.raises(TypeError, match="trails: there is no such option; did you mean trials"):
        fn.search(trails=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="about: there is no such option"):
        fn.search(about="x")  # type: ignore[call-arg]


def test_options_lists_every_option_but_those_of_the_command_alone() -> None:
    assert set(option_names()) - set(get_type_hints(fn.Options)) == {"beside"}
    assert set(get_type_hints(fn.Options)) <= set(option_names())
    with pytest.raises(TypeError, match="beside: there is no such option"):
        fn.search(beside="built-in:shapes")  # type: ignore[call-arg]


def test_a_value_out_of_its_range_is_an_error_of_the_toolkit(tmp_path: Path) -> None:
    with pytest.raises(fn.FusionNasError, match="--sampler 'best'"):
        fn.search(sampler="best")
    with pytest.raises(fn.FusionNasError, match="there is no such file"):
        fn.load(tmp_path / "none.db")
    with pytest.raises(fn.FusionNasError, match="run this study by the command"):
        fn.search("superfuse")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"devices": "local"}, "devices='local': give a list"),
        ({"trials": "3"}, "trials='3': give int"),
        ({"probe": "no"}, "probe='no': give bool"),
        ({"trials": True}, "trials=True: give int"),
        ({"latency_limit_ms": "2"}, "latency_limit_ms='2': give int or float"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_of_another_type_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        fn.search(**wrong)  # type: ignore[arg-type]


def test_workers_on_this_machine_are_for_the_command() -> None:
    with pytest.raises(fn.FusionNasError, match="workers=2 on local: it lowers the priority"):
        fn.search(workers=2)


def test_columns_can_be_chosen(searched: fn.Study) -> None:
    assert list(searched.front.to_frame(["design", "accuracy"]).columns) == ["design", "accuracy"]
    with pytest.raises(ValueError, match="no column 'colour': there are number, name"):
        searched.front.to_frame(["colour"])


def test_handlers_of_signals_are_as_before(searched: fn.Study) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_table_has_a_row_for_every_trial(searched: fn.Study) -> None:
    pandas = pytest.importorskip("pandas")
    table = searched.trials.to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["number"]) == list(range(TRIALS))
    assert (table["latency_ms_low"] <= table["latency_ms"]).all()
    assert any(name.startswith("params_") for name in table.columns)


def test_without_pandas_a_table_is_of_arrow(place: Place, searched: fn.Study) -> None:
    program = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
import fusion_nas as fn

table = fn.load("api.db").trials.to_frame()
print(type(table).__module__, table.column("number").to_pylist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place.folder, capture_output=True, text=True
    )
    assert done.stdout.split(maxsplit=1) == ["pyarrow.lib", f"{list(range(TRIALS))}\n"], done.stderr


def test_the_best_design_is_the_most_accurate_within_a_latency(searched: fn.Study) -> None:
    assert searched.best().accuracy == max(each.accuracy or 0 for each in searched.trials)
    limit = min(each.latency_ms or 1e9 for each in searched.trials)
    assert searched.best(latency_ms=limit).latency_ms == limit
    with pytest.raises(ValueError, match="no complete design within 1e-06 ms; the fastest takes"):
        searched.best(latency_ms=1e-6)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_plot_brings_its_own_colours(searched: fn.Study, theme: str) -> None:
    figure = searched.plot_front(theme)
    assert "var(" not in figure.to_json() and len(figure.data) >= 3
    with pytest.raises(ValueError, match="theme 'blue'"):
        searched.plot_front("blue")


def test_predictions_are_those_that_the_study_judged(place: Place, searched: fn.Study) -> None:
    design = searched.best()
    assert design.genotype is not None
    lines = (place.data / "label.csv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split(",") for line in lines if line.endswith(",valid")]
    images = [place.data / "images" / f"{row[0]}.png" for row in rows]
    probabilities = design.predict([row[1] for row in rows], images)
    assert probabilities.shape == (len(rows), 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    classes = searched.predictor().classes
    right = [classes[k] == row[2] for k, row in zip(probabilities.argmax(1), rows, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(design.accuracy)


def test_missing_inputs_are_named(searched: fn.Study) -> None:
    design = next(
        each
        for each in searched.trials
        if each.genotype is not None and each.genotype.is_fused and each.state == "complete"
    )
    with pytest.raises(ValueError, match="reads vision: give it too"):
        design.predict(["a text"])
    with pytest.raises(ValueError, match="inputs of different numbers: 1 of text, 0 of vision"):
        design.predict(["a text"], [])
    with pytest.raises(ValueError, match="texts is one text"):
        design.predict("a text")


def test_an_exported_design_is_timed_by_its_file(searched: fn.Study, tmp_path: Path) -> None:
    folder = searched.best().export(tmp_path / "best")
    assert {"network.onnx", "card.json"} <= {file.name for file in folder.iterdir()}
    result = fn.measure(folder / "network.onnx", threads=1)
    low, high = result.interval_ms
    assert 0 < low <= result.median_ms <= high


def network(path: Path, batch: object) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_extents_that_a_file_leaves_open_are_asked_for(place: Place, tmp_path: Path) -> None:
    open_file = network(tmp_path / "open.onnx", "N")
    with pytest.raises(ValueError, match=r"input 'x' is \(N, 8\): give its extents"):
        fn.measure(open_file)
    with pytest.raises(ValueError, match="'z' is no input; there are x"):
        fn.measure(open_file, shapes={"z": (1,)})
    assert fn.measure(open_file, threads=1, shapes={"x": (2, 8)}).median_ms > 0


def test_what_cannot_be_timed_is_told(place: Place, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        fn.measure(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        fn.measure(tmp_path / "none.onnx")
    with pytest.raises(fn.FusionNasError, match="nowhere"):
        fn.measure(network(tmp_path / "fixed.onnx", 1), device="nowhere")


def test_importing_the_package_imports_no_torch() -> None:
    heavy = ("torch", "sklearn", "timm", "transformers")
    program = f"import fusion_nas, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("module", [measuring, searching, study], ids=lambda m: m.__name__)
def test_the_examples_in_docstrings_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
