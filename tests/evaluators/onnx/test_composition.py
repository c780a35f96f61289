"""A design composed of kept parts is the design exported whole, and each part is exported once."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from composed import EARLY, assert_same, composing, network_of
from quick_evaluators import QUICK_TIMING
from tiny import SPACE, tiny_space
from torch import nn

from evaluators.devices.client import open_local_device
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.onnx import builder as onnx_builder
from evaluators.onnx import composition
from evaluators.onnx.builder import ParityError
from evaluators.onnx.stripped import strip_weights
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.rewrites import ALL, NONE, OWN_LENGTH, Rewrites
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

HERE = Path(__file__).parents[2] / "support"
LATE = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(3, 3, "gated", 16),))
UNIMODAL = Genotype("tiny-bert", None, 16, (FusionPoint(2, 0),))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts that all tests share which do not count or damage them."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first output of each part that is exported from here on."""
    made: list[str] = []
    export = composition.export

    def noted(network: nn.Module, inputs: object, file: Path, *more: object) -> None:
        made.append(more[1][0])  # type: ignore[index]
        export(network, inputs, file, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(composition, "export", noted)
    return made


@pytest.mark.parametrize("how", [NONE, ALL, OWN_LENGTH], ids=["none", "all", "own-length"])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_design_composed_is_the_design_exported(
    space: SearchSpace, tmp_path: Path, parts: Path, seed: int, how: Rewrites
) -> None:
    genotype = space.sample(random.Random(seed))
    assert_same(space, genotype, tmp_path, parts, how)


@pytest.mark.parametrize("vision", ["small-mobilenet", "small-vit"])
@pytest.mark.parametrize("whole", [False, True], ids=["cut", "whole"])
def test_trunks_of_other_kinds_end_as_they_do_when_they_are_cut(
    tmp_path: Path, parts: Path, vision: str, whole: bool
) -> None:
    small = load_space(str(HERE / "small_space.toml"))
    deepest = small.shapes[vision].depth if whole else 2
    points = (FusionPoint(1, 1, "gated", 16), FusionPoint(2, deepest, "cross-attention", 16))
    genotype = Genotype("small-bert", vision, 16, points, vision_pooling="max")
    assert_same(small, genotype, tmp_path, parts, NONE)


@pytest.mark.parametrize("genotype", [UNIMODAL, LATE], ids=Genotype.describe)
def test_what_the_device_gets_is_the_whole_file_without_its_weights(
    space: SearchSpace, tmp_path: Path, parts: Path, genotype: Genotype
) -> None:
    builder = composing(space, tmp_path, parts)
    made, light = builder.build(genotype), builder.build(genotype, weights=False)
    for one in (made, light):
        assert hashlib.sha256(one.path.read_bytes()).hexdigest() == one.sha256
    assert light.stripped and light.sha256 == strip_weights(made).sha256
    assert light.costs == made.costs and light.path.stat().st_size < made.path.stat().st_size / 2


# -- each part once


def test_parts_are_exported_once_for_all_designs_that_share_them(
    space: SearchSpace, tmp_path: Path, exports: list[str]
) -> None:
    builder = composing(space, tmp_path / "a", tmp_path / "parts")
    builder.build(EARLY)
    trunks = ["text-1-cls", "vision-1-mean"]
    assert exports == [*trunks, "branch-0", "logits"]
    builder.build(EARLY)
    builder.build(LATE)  # other taps of the same widths: nothing new
    composing(space, tmp_path / "b", tmp_path / "parts").build(LATE)
    assert len(exports) == 4


def test_trained_networks_and_reduced_precision_are_exported_whole(
    space: SearchSpace, tmp_path: Path, parts: Path, exports: list[str]
) -> None:
    builder = composing(space, tmp_path, parts)
    trained = builder.build(EARLY, network_of(space, EARLY))
    reduced = builder.build(replace(EARLY, precision="fp16"), weights=False)
    assert not exports and not trained.stripped and not reduced.stripped


@pytest.mark.parametrize("damage", ["a byte", "half written", "empty"])
def test_a_damaged_part_is_made_again(
    space: SearchSpace, tmp_path: Path, exports: list[str], damage: str
) -> None:
    kept = tmp_path / "parts"
    first = composing(space, tmp_path / "a", kept).build(EARLY)
    file = max(kept.glob("*.part"), key=lambda one: one.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    ends = {"a byte": len(content), "half written": len(content) // 2, "empty": 0}
    file.write_bytes(content[: ends[damage]])
    exports.clear()
    again = composing(space, tmp_path / "b", kept).build(EARLY)
    assert len(exports) == 1 and again.sha256 == first.sha256


def test_an_export_that_ends_early_leaves_no_part(
    space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(network: nn.Module, inputs: object, file: Path, *more: object) -> None:
        file.write_bytes(b"half of a grap")
        raise OSError("as if the disk were full")

    monkeypatch.setattr(composition, "export", torn)
    with pytest.raises(OSError, match="as if"):
        composing(space, tmp_path / "a", tmp_path / "parts").build(EARLY)
    assert {file.suffix for file in (tmp_path / "parts").iterdir()} <= {".lock"}


CHILD = """\
import sys
from pathlib import Path
import composed as here
from evaluators.onnx import composition
from search_space.space.named import load_space

export = composition.export
def noted(network, inputs, file, *more):
    print(more[1][0])
    export(network, inputs, file, *more)
composition.export = noted
folder = Path(sys.argv[1])
space = load_space(str(folder / "tiny.toml"))
made = here.composing(space, folder / sys.argv[2], folder / "parts").build(here.EARLY)
print(made.sha256)
"""


def test_two_processes_that_need_one_part_make_it_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SPACE, encoding="utf-8")
    path = os.pathsep.join((str(HERE), str(HERE.parents[1])))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), name],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    said = [child.communicate(timeout=240)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    exported = [name for one in said for name in one[:-1]]
    assert sorted(exported) == ["branch-0", "logits", "text-1-cls", "vision-1-mean"]
    assert said[0][-1] == said[1][-1]


# -- refused, and timed


def test_a_composed_graph_that_differs_from_torch_is_refused(
    space: SearchSpace, tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = onnx_builder.run_joined
    monkeypatch.setattr(onnx_builder, "run_joined", lambda graph, rows: run(graph, rows) + 2e-5)
    with pytest.raises(ParityError, match=r"tiny-bert.*differs from torch by .*allowed 1\.0e-05"):
        composing(space, tmp_path / "made", parts).build(EARLY)
    assert not (tmp_path / "made").exists()


def test_a_design_that_cannot_be_composed_is_refused_in_words(
    space: SearchSpace, tmp_path: Path, parts: Path
) -> None:
    wrong = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(4, 1),))
    with pytest.raises(ValueError, match="taps 1 to 3"):
        composing(space, tmp_path, parts).build(wrong)


@pytest.fixture
def evaluator(space: SearchSpace, tmp_path: Path, parts: Path) -> Iterator[LatencyEvaluator]:
    runs = Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0)
    made = LatencyEvaluator(
        composing(space, tmp_path / "artifacts", parts),
        lambda: open_local_device(tmp_path / "device"),
        runs,
    )
    yield made
    made.close()


def test_a_composed_design_is_timed_on_a_device_and_leaves_no_file(
    evaluator: LatencyEvaluator, tmp_path: Path, exports: list[str]
) -> None:
    found = evaluator.evaluate(EARLY)
    assert found["latency_ms"].value > 0 and found.details["torch_difference"] <= 1e-5
    assert found.details["sent_sha256"] == found.details["onnx_sha256"]
    assert not list((tmp_path / "artifacts").iterdir())
