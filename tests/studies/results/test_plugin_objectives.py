"""Objectives of plugins: found by entry points, searched for, and read again without the plugin."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from plugin_packages import BALANCED, on_path, write_package
from tiny import Place, new_place

import fusion_nas as fn
from evaluators.objectives import ObjectiveError, measures_of
from studies.config.settings import load_settings
from studies.config.usage import UsageError
from studies.results.objectives import (
    GROUP,
    Objective,
    goals,
    objective_origins,
    plugin_objectives,
    stored_of_plugins,
)

LOGITS = np.array([[2, 0], [2, 0], [0, 2], [2, 0]], dtype=np.float32)
LABELS = np.array([0, 0, 1, 1])
FAILING = {
    "three": ("Three = 3", "three:Three", "3 is not a subclass of fusion_nas.objectives."),
    "silent": (BALANCED.replace("words =", "said ="), "silent:Balanced", "words is not a text"),
    "vague": (BALANCED.replace("= True", "= 1"), "vague:Balanced", "higher is neither True nor"),
    "broken": ("import no_such_module", "broken:Balanced", "broken:Balanced cannot be loaded"),
}


def write_objective(folder: Path) -> None:
    entry = "balanced = balanced_accuracy:Balanced"
    write_package(folder, "balanced-accuracy", BALANCED, entry, group=GROUP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("objective")
    write_objective(folder)
    with on_path(folder):
        yield folder


def test_an_objective_of_a_plugin_is_one_of_those_that_can_be_asked_for(folder: Path) -> None:
    found = goals(("balanced", "bytes"), ("balanced=60",))
    expected = Objective(
        "balanced", "objective_balanced", "balanced accuracy, %", True, found_by="scores"
    )
    assert found.more[0] == expected and found.limits[0].objective == expected
    assert objective_origins(found) == {"balanced": "balanced-accuracy 1.0"}
    assert [each.name for each in fn.plugins()] == ["balanced"]


def test_its_figure_is_computed_from_probabilities_and_labels(folder: Path) -> None:
    (found,) = measures_of(plugin_objectives(goals(("balanced",), ())), LOGITS, LABELS)
    assert (found.name, found.value, found.better) == ("objective_balanced", 75.0, "higher")


@pytest.mark.parametrize("figure", ["float('nan')", "'much'", "None", "True > 2 or [1]"])
def test_a_figure_that_is_no_number_is_refused(tmp_path: Path, figure: str) -> None:
    code = BALANCED.replace("return 100", f"return {figure}\n        return 100")
    write_package(
        tmp_path, f"odd-{len(figure)}", code, f"odd = odd_{len(figure)}:Balanced", group=GROUP
    )
    with on_path(tmp_path):
        objectives = plugin_objectives(goals(("odd",), ()))
        with pytest.raises(ObjectiveError, match=r"objective 'odd' gives .*, not a finite number"):
            measures_of(objectives, LOGITS, LABELS)


@pytest.mark.parametrize("name", FAILING)
def test_an_objective_that_fails_is_named_when_it_is_asked_for(
    folder: Path, tmp_path: Path, name: str
) -> None:
    code, value, words = FAILING[name]
    write_package(tmp_path, name, code, f"{name}-one = {value}", group=GROUP)
    with on_path(tmp_path):
        with pytest.raises(UsageError) as caught:
            load_settings("pareto", {"objectives": (f"{name}-one",)})
        assert goals(("balanced",), ()).more
    said = str(caught.value)
    assert f"--objective '{name}-one' of the plugin {name} 1.0 cannot be used: " in said
    assert words in said


def test_an_objective_of_no_plugin_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'speed': choose one of .* or install the plugin"):
        load_settings("pareto", {"objectives": ("speed",)})


def test_it_may_be_asked_for_of_one_modality_and_is_not_cross_validated(folder: Path) -> None:
    load_settings("pareto", {"objectives": ("balanced",), "text_only": True})
    with pytest.raises(UsageError, match="--cv with balanced"):
        load_settings("pareto", {"objectives": ("balanced",), "cv": True})


def test_what_a_study_keeps_of_it_is_enough_to_read_the_study(folder: Path) -> None:
    asked = goals(("balanced",), ("balanced=60",))
    kept = json.loads(json.dumps(stored_of_plugins(asked)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [each for each in sys.path if each != str(folder)])
        with on_path():
            with pytest.raises(ValueError, match="'balanced': choose one of"):
                goals(("balanced",), ())
            assert goals(("balanced",), ("balanced=60",), kept) == asked


@pytest.mark.slow
def test_a_study_searches_for_it_and_is_shown_without_its_plugin(tmp_path: Path) -> None:
    write_objective(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    place = new_place(tmp_path / "place", PYTHONPATH=path)
    done = place.finish(place.run("--objective", "balanced", "--trials", "2", "--json"))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    complete = [each for each in shown["trials"] if each["state"] == "complete"]
    assert complete and all(0 <= each["further"]["balanced"]["value"] <= 100 for each in complete)
    assert shown["conditions"]["plugins"] == "balanced of balanced-accuracy 1.0"
    alone = Place(place.folder, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    done = alone.finish(alone.command("report", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == shown["trials"]
    done = alone.finish(alone.run("--objective", "balanced", "--trials", "3"))
    assert done.returncode == 2 and "or install the plugin that has it" in done.stderr
