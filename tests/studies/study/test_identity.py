"""What a study keeps of how it began, and what a command that goes on with it may change."""

from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import optuna
import pytest
from plugin_packages import on_path, write_package

from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training.config import TrainingProtocol
from search_space.encoders.plugins import GROUP, spec_of_plugin
from studies.config.options import DeviceOptions
from studies.config.settings import Settings, load_settings
from studies.infra.storage import open_storage
from studies.results.study_outcome import CONDITIONS, IDENTITY, PROTOCOL, SETTINGS
from studies.study.context import StudyContext
from studies.study.identity import EVERY_STAGE, SEARCHES, from_anywhere, note_search
from studies.study.lookup import remove_stored_passwords, stored_protocol


def settings(sampler: str, **changes: Any) -> Settings:
    return load_settings("pareto", {"sampler": sampler, **changes})


def begun_with(sampler: str) -> optuna.Study:
    """A study as version 0.1.0 stored it: its searches are not listed."""
    study = optuna.create_study()
    study.set_user_attr(SETTINGS, {"sampler": sampler})
    study.set_user_attr(CONDITIONS, {"sampler": f"{sampler}, seed 0"})
    return study


def test_each_further_sampler_is_told_once() -> None:
    study = begun_with("tpe")
    for sampler in ("tpe", "nsga2", "tpe", "nsga2", "random"):
        note_search(study, settings(sampler))
    assert study.user_attrs[CONDITIONS] == {"sampler": "tpe, seed 0, then nsga2, then random"}
    assert [each["sampler"] for each in study.user_attrs[SEARCHES]] == ["tpe", "nsga2", "random"]


def test_other_stages_are_told_after_those_of_the_beginning() -> None:
    study = begun_with("tpe")
    for probe in (False, True, True, False):
        note_search(study, settings("tpe", probe=probe))
    said = study.user_attrs[CONDITIONS]
    assert said["sampler"] == "tpe, seed 0"
    began, then = said["stages"].split("; then ")
    assert began == EVERY_STAGE and then.startswith("trained: after a closed-form probe")


def test_an_encoder_is_stored_as_it_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    """A plugin by its name; a folder of that name comes first, and is stored by its path."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    code = (
        "from fusion_nas.encoders import PluginEncoder\n"
        "class E(PluginEncoder):\n"
        "    modality, widths, image_size = 'vision', (4,), 32\n"
        "    def build(self, depth, folder): ..."
    )
    entries = "stored-first = stored_first:E\nstored-also = stored_first:E"
    write_package(folder, "stored-first", code, entries, group=GROUP)
    monkeypatch.chdir(tmp_path)
    for each in ("stored-first", "weights"):
        (tmp_path / each).mkdir()
        (tmp_path / each / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "stored-also").touch()
    given = ("stored-first", "stored-also", "stored-also:weights")
    with on_path(folder):
        found = from_anywhere(settings("tpe", vision_encoders=given)).space.vision_encoders
        read = [spec_of_plugin("vision", each) for each in given]
    assert found == (
        str(tmp_path / "stored-first"),
        "stored-also",
        f"stored-also:{tmp_path / 'weights'}",
    )
    assert [spec and spec.source for spec in read] == [
        None,
        "stored-also",
        str(tmp_path / "weights"),
    ]


def test_a_study_that_goes_on_as_it_was_stays_as_it_was_stored() -> None:
    study = begun_with("tpe")
    before = dict(study.user_attrs)
    note_search(study, settings("tpe"))
    assert study.user_attrs == before


def test_a_study_holds_no_password_and_one_of_an_earlier_version_loses_it(tmp_path: Path) -> None:
    url = "postgresql://tester:S3cr3t@host/name"
    stored = settings("tpe", storage=url).to_stored()
    assert stored["storage"] == "postgresql://tester:***@host/name"
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    for name in ("first", "second"):
        study = optuna.create_study(storage=storage, study_name=name)
        study.set_user_attr(SETTINGS, {**stored, "storage": url})
    remove_stored_passwords(storage)
    for study in optuna.get_all_study_summaries(storage):
        assert study.user_attrs[SETTINGS]["storage"] == stored["storage"]


def test_the_protocol_of_a_study_is_known_once_the_study_is_made(tmp_path: Path) -> None:
    url, kept = f"sqlite:///{tmp_path / 'studies.db'}", asdict(TrainingProtocol("text-tuned"))
    assert stored_protocol(url, "mine") is None and not list(tmp_path.iterdir())
    study = optuna.create_study(storage=url, study_name="mine")
    study.set_user_attr(PROTOCOL, kept)
    assert stored_protocol(url, "mine") is None, "it was cut off before it was made whole"
    study.set_user_attr(IDENTITY, {})
    assert stored_protocol(url, "mine") == kept
    assert stored_protocol(url, "another") is None


def test_neither_a_context_nor_the_protocol_of_its_evaluator_can_be_changed() -> None:
    context = StudyContext(*(None for _ in fields(StudyContext)))  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        context.quality = None  # type: ignore[misc, assignment]
    evaluator = QualityEvaluator.__new__(QualityEvaluator)
    with pytest.raises(AttributeError):
        evaluator.protocol = TrainingProtocol()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        (DeviceOptions(), 1),
        (DeviceOptions(threads=0), 0),
        (DeviceOptions(threads=4), 4),
        (DeviceOptions(("orin",)), 0),
    ],
)
def test_this_machine_times_with_one_thread_unless_another_number_is_given(
    options: DeviceOptions, threads: int
) -> None:
    assert options.runtime_threads == threads
