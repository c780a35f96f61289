"""What runs designs, and in which precisions, is the user's to say."""

import math
from pathlib import Path

import pytest
from tiny import new_place, write_space

from search_space.errors import DEVICE
from studies.config.settings import load_settings
from studies.study.context import load_space_of


@pytest.mark.slow
def test_precisions_given_stand_in_for_the_space_s_own(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    done = place.finish(place.run("--trials", "2", "--precision", "int8", "--runtime", "cpu"))
    assert done.returncode == 0, done.stderr
    judged = [one["details"] for one in place.kept() if one["kind"] == "quality"]
    told = [one["torch_distance_mean"] for one in judged if "torch_distance_mean" in one]
    # On a busy machine a reading may be unstable; such a design is not trained.
    assert 1 <= len(told) <= 2 and all(0 < distance < math.inf for distance in told)


@pytest.mark.parametrize(
    ("runtime", "given", "held"),
    [
        ("cpu", (), ("fp32", "int8-dynamic")),
        ("cuda", (), ("fp32", "fp16")),
        ("tensorrt", (), ("fp32", "fp16", "int8")),
        ("openvino", (), ("fp32",)),
        ("tensorrt", ("fp16", "fp16"), ("fp16",)),
    ],
)
def test_a_shipped_space_holds_what_the_runtime_can_run(
    runtime: str, given: tuple[str, ...], held: tuple[str, ...]
) -> None:
    settings = load_settings("pareto", {"runtime": runtime, "precisions": given})
    assert load_space_of(settings).precisions == held


def test_a_runtime_that_the_device_lacks_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    place = new_place(tmp_path)
    done = place.finish(place.run("--trials", "2", "--runtime", "tensorrt"))
    if done.returncode == 0:
        pytest.skip("this machine has TensorRT and a GPU")
    assert done.returncode == DEVICE and "fusion-nas: local: " in done.stderr
    assert "pip install tensorrt" in done.stderr and "trial" not in done.stderr
    assert not list(place.home.glob("data/*")) and not (place.home / "evaluations.jsonl").exists()


def test_a_space_of_the_user_s_own_is_taken_at_its_word(tmp_path: Path) -> None:
    file = write_space(tmp_path / "own.toml")
    settings = load_settings("pareto", {"runtime": "tensorrt", "space": str(file)})
    assert load_space_of(settings).precisions == ("fp32",)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--runtime", "abacus"),
            "--runtime 'abacus': choose one of cpu, cuda, tensorrt, openvino",
        ),
        (("--precision", "fp8"), "--precision 'fp8': choose one of fp32, fp16, int8, int8-dynamic"),
    ],
)
def test_what_there_is_not_is_told_before_anything_is_done(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    place = new_place(tmp_path)
    done = place.finish(place.run("--trials", "2", *flags))
    assert done.returncode == 2 and words in done.stderr


def test_a_runtime_that_the_device_cannot_load_ends_the_study_at_once(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    done = place.finish(place.run("--trials", "2", "--runtime", "tensorrt"))
    if done.returncode == 0:
        pytest.skip("this machine has TensorRT and a GPU")
    assert done.returncode == 5, done.stderr
    assert "tensorrt cannot be loaded" in done.stderr
    assert place.kept() == []
