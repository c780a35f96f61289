"""Studies of three modalities, as users run them: what sound adds, what it costs, what it needs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hearing import HEARING, MAY_HEAR, OF_TWO, write_sounds
from tiny import SPACE, Place, new_place, tiny_space, write_space

from search_space.space.named import SpaceError, load_space
from studies.ablations.designs import READ, grid_in
from studies.config.settings import load_settings
from studies.config.usage import UsageError
from studies.results.ablation import TRIMODAL
from studies.study.context import _check_asked


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = new_place(tmp_path_factory.mktemp("three") / "place")
    write_sounds(made.data)
    write_space(made.folder / "tiny.toml", HEARING)
    return made


@pytest.fixture(scope="module")
def told(place: Place) -> Iterator[dict[str, Any]]:
    done = place.finish(place.run("--study", "trimodal", "--json"))
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout)


def named(told: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in told["trials"]}


@pytest.mark.slow
def test_each_stage_is_tried_with_and_without_sound(told: dict[str, Any]) -> None:
    stages = ("late", "intermediate", "early")
    found = named(told)
    assert set(found) == {f"{stage}, {' + '.join(read)}" for stage in stages for read in READ}
    assert {row["state"] for row in found.values()} == {"complete"}
    for point in told["list"]["points"]:
        own = f"{point['series']}, text + vision"
        assert point["against"] == (None if point["name"] == own else own)


@pytest.mark.slow
def test_what_sound_adds_is_told_in_points_and_what_it_costs_in_ms(told: dict[str, Any]) -> None:
    late = named(told)
    difference = next(
        point["test_points"]
        for point in told["list"]["points"]
        if point["name"] == "late, text + vision + audio"
    )
    both, all_three = late["late, text + vision"], late["late, text + vision + audio"]
    assert difference["value"] == pytest.approx(
        all_three["test_accuracy_percent"]["value"] - both["test_accuracy_percent"]["value"]
    )
    assert all_three["latency_ms"]["value"] > both["latency_ms"]["value"]


@pytest.mark.slow
def test_every_design_tells_what_it_uses_of_what_it_reads(told: dict[str, Any]) -> None:
    for name, row in named(told).items():
        read = name.partition(", ")[2].split(" + ")
        assert list(row["modality_use"]["shapley_points"]) == read, name


@pytest.mark.slow
def test_sound_alone_is_a_reference(told: dict[str, Any]) -> None:
    names = [row["name"] for row in told["references"]]
    assert names == ["text-only", "vision-only-tiny-vit", "audio-only"]
    alone = told["references"][-1]
    assert alone["design"].startswith("tiny-wav2vec2; 0x0x3 ") and alone["test_accuracy_percent"]


@pytest.mark.slow
def test_a_design_with_sound_is_exported_with_how_sounds_are_read(
    place: Place, told: dict[str, Any]
) -> None:
    number = named(told)["early, text + vision + audio"]["number"]
    done = place.finish(place.command("export", str(number), "--name", told["study"]))
    assert done.returncode == 0, done.stderr
    folder = place.folder / f"export-{number}"
    card = json.loads((folder / "card.json").read_text("utf-8"))
    names = [entry["name"] for entry in card["inputs"]]
    assert names == ["input_ids", "attention_mask", "pixel_values", "input_values"]
    assert card["sound"]["hertz"] == 16_000 and card["sound"]["seconds"] == 1
    for absent, missing in (("audio", {"input_values"}), ("vision", {"pixel_values"})):
        left = {entry["name"] for entry in card["without_a_modality"][absent]["inputs"]}
        assert left == set(names) - missing
        assert (folder / f"without-{absent}.onnx").is_file()


@pytest.mark.slow
def test_a_search_may_choose_whether_to_listen(place: Place) -> None:
    write_space(place.folder / "may-hear.toml", MAY_HEAR)
    flags = list(place.flags())
    flags[flags.index("--space") + 1] = str(place.folder / "may-hear.toml")
    command = place.command("run", *flags, "--sampler", "random", "--trials", "6", "--json")
    done = place.finish(command)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    heard = {row["params"]["audio_encoder"] for row in told["trials"]}
    assert heard == {"tiny-wav2vec2", "none"}
    for row in told["trials"]:
        silent = row["params"]["audio_encoder"] == "none"
        assert ("tiny-wav2vec2" in row["design"]) != silent


@pytest.mark.slow
def test_a_search_where_every_design_listens_runs_and_is_shown_again(place: Place) -> None:
    command = place.run("--sampler", "random", "--trials", "2", "--name", "all-listen")
    done = place.finish(command)
    assert done.returncode == 0, done.stderr
    again = place.finish(place.command("report", "--name", "all-listen", "--json"))
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert all("tiny-wav2vec2" in row["design"] for row in told["trials"])
    assert [row["name"] for row in told["references"]] == [
        "text-only",
        "vision-only-tiny-vit",
        "audio-only",
    ]


def test_published_designs_cannot_be_seeded_where_every_design_listens(place: Place) -> None:
    done = place.finish(place.run("--seed-paper", "--trials", "1", "--name", "seeded"))
    assert done.returncode == 2
    assert "--seed-paper: no published design is one of search space tiny" in done.stderr
    assert "seeded" not in optuna.study.get_all_study_names(place.url), "nothing was begun"


@pytest.mark.parametrize(
    ("objective", "refused"),
    [("without-text", True), ("robustness-audio", True), ("robustness-all", True),
     ("calibration", True), ("robustness-text", False), ("robustness", False)],
)  # fmt: skip
def test_an_objective_is_one_that_every_design_has(
    tmp_path: Path, objective: str, refused: bool
) -> None:
    settings = load_settings(
        "pareto",
        {
            "objectives": (objective,),
            "noise": 0.5 if objective.startswith("robustness") else None,
        },
    )
    space = tiny_space(tmp_path, MAY_HEAR)
    if not refused:
        _check_asked(settings, space)
        return
    with pytest.raises(UsageError, match=f"{objective}: not every design of .* reads is text;"):
        _check_asked(settings, space)
    _check_asked(settings, replace(space, optional=()))


def test_noise_on_both_is_of_two_modalities_and_on_all_of_three(tmp_path: Path) -> None:
    hearing, both = tiny_space(tmp_path, HEARING), tiny_space(tmp_path)
    for space, objective in ((hearing, "robustness-both"), (both, "robustness-all")):
        settings = load_settings("pareto", {"objectives": (objective,), "noise": 0.5})
        with pytest.raises(UsageError, match="not every design"):
            _check_asked(settings, space)
    for space, objective in ((hearing, "robustness-all"), (both, "robustness-both")):
        _check_asked(load_settings("pareto", {"objectives": (objective,), "noise": 0.5}), space)


def test_an_encoder_of_sound_leaves_operators_out_that_cannot_fuse_it(tmp_path: Path) -> None:
    file = write_space(tmp_path / "tiny.toml", SPACE)
    space = load_space(str(file), audio_encoders=["timm/resnet18"], weights="random")
    assert space.operators == ("concatenation", "gated", "tensor")
    only = SPACE.replace(OF_TWO, 'operators = ["cross-attention", "prefix"]')
    file = write_space(tmp_path / "tiny.toml", only)
    with pytest.raises(SpaceError, match="none of its operators fuses text, vision, audio"):
        load_space(str(file), audio_encoders=["timm/resnet18"], weights="random")


def test_the_list_needs_an_encoder_of_sound(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    done = place.finish(place.run("--study", "trimodal"))
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "search space tiny has no audio encoder: study trimodal compares designs of three "
        "modalities; give --audio-encoder"
    )


def test_a_row_without_sound_is_named_with_the_ways_out(tmp_path: Path, place: Place) -> None:
    other = new_place(tmp_path / "place")
    write_sounds(other.data)
    write_space(other.folder / "tiny.toml", HEARING)
    (other.data / "sounds" / "train03.wav").unlink()
    done = other.finish(other.run("--study", "trimodal"))
    assert done.returncode == 3
    assert "train03" in done.stderr and "sounds/train03" in done.stderr
    assert "--accept-faults" in done.stderr


def test_texts_alone_have_no_sound() -> None:
    with pytest.raises(UsageError, match="--text-only with --audio-encoder timm/x: give one"):
        load_settings("pareto", {"text_only": True, "audio_encoders": ("timm/x",)})
    with pytest.raises(UsageError, match="--modality with --text-encoder bert: give one"):
        load_settings("pareto", {"modalities": ("vision", "audio"), "text_encoders": ("bert",)})
    with pytest.raises(UsageError, match="--text-only with --modality: give one of them"):
        load_settings("pareto", {"text_only": True, "modalities": ("vision",)})
    with pytest.raises(UsageError, match="--modality"):
        load_settings("pareto", {"modalities": ("smell",)})


def test_the_list_is_cut_from_one_design_a_stage(tmp_path: Path) -> None:
    space, grid = grid_in(TRIMODAL, tiny_space(tmp_path, HEARING))
    designs = {design.name: design.genotype for design in grid.designs}
    assert set(space.optional) == {"text", "vision", "audio"}
    for stage in ("late", "intermediate", "early"):
        whole = designs[f"{stage}, text + vision + audio"]
        for read in READ:
            part = designs[f"{stage}, {' + '.join(read)}"]
            assert tuple(part.encoders) == read and space.holds(part)
            for modality in read:
                taps = [point.tap(modality) for point in whole.points]
                assert [point.tap(modality) for point in part.points] == taps


@pytest.mark.slow
def test_pictures_and_sounds_are_searched_without_texts(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen = new_place(tmp_path_factory.mktemp("two") / "place")
    write_sounds(seen.data)
    write_space(seen.folder / "tiny.toml", HEARING)
    rows = [line.split(",") for line in (seen.data / "label.csv").read_text("utf-8").splitlines()]
    (seen.data / "label.csv").write_text("\n".join(f"{a},{c},{d}" for a, _, c, d in rows))
    done = seen.finish(seen.run("--trials", "1"))
    assert done.returncode == 3 and "--modality vision --modality audio" in done.stderr
    read = ("--modality", "vision", "--modality", "audio")
    done = seen.finish(seen.run(*read, "--seed-paper", "--trials", "4", "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {row["name"]: row for row in told["trials"] if row["name"]}
    assert list(found) == [f"{stage}-tiny-vit" for stage in ("late", "intermediate", "early")]
    assert found["late-tiny-vit"]["design"].startswith("tiny-vit + tiny-wav2vec2; 0x3x3 ")
    assert "tiny-wav2vec2 instead of bert-base-uncased" in found["late-tiny-vit"]["carried_over"]
    assert {row["state"] for row in found.values()} == {"complete"}
    assert [row["name"] for row in told["references"]] == ["vision-only-tiny-vit", "audio-only"]
