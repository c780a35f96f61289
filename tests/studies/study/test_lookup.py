"""A study is found by the name that it has, also if an earlier version gave it."""

from pathlib import Path

import optuna

from search_space.space.named import load_space
from studies.config.settings import Settings, load_settings
from studies.study.lookup import default_name
from tests.support.stored_study import stored_study

RENDERED = "pareto-rendered-demo"
DEMO = load_space("demo")


def in_storage(url: str, data: str | None = None) -> Settings:
    return load_settings("pareto", {"storage": url, "data": data})


def test_a_study_is_named_after_preset_data_and_space(tmp_path: Path) -> None:
    nothing_there = in_storage(f"sqlite:///{tmp_path / 'new.db'}")
    assert default_name(nothing_there, "faces", DEMO) == "pareto-faces-demo"
    assert not list(tmp_path.iterdir())


def test_the_study_that_version_0_1_0_named_is_found_without_a_name(tmp_path: Path) -> None:
    url = stored_study(tmp_path)
    assert default_name(in_storage(url), "faces", DEMO) == "pareto-faces-demo"
    optuna.copy_study(
        from_study_name="before", from_storage=url, to_storage=url, to_study_name=RENDERED
    )
    assert default_name(in_storage(url), "faces", DEMO) == RENDERED
    assert default_name(in_storage(url, str(tmp_path)), "faces", DEMO) == "pareto-faces-demo"
