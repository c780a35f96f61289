"""The command line of a page runs its study again."""

import shlex
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from studies.cli.app import app
from studies.config.command import command_line
from studies.config.settings import Settings, load_settings


def settings_of(command: str) -> Settings:
    """What the command line makes of these words."""
    _, _, *words = shlex.split(command)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    params = dict(group.commands["run"].make_context("run", words).params)
    for own in ("page", "as_json", "dry_run", "config", "log_file"):
        del params[own]
    return load_settings(params.pop("study"), params)


@pytest.mark.parametrize(
    ("study", "options"),
    [
        ("pareto", {}),
        ("pareto", {"trials": 60, "seed_paper": True, "sampler": "tpe", "latency_limit_ms": 2.5}),
        ("pareto", {"precisions": ("fp32", "fp16"), "threads": 2, "timing": "alone"}),
        ("pareto", {"data": "built-in:shapes", "name": "a name 'with quotes'", "cv": True}),
        ("pareto", {"storage": "sqlite:///other.db", "fine_tune": 2, "seeds": 3, "compile": True}),
        ("pareto", {"from_study": "other", "hours": 1.5, "patience": 9, "final_readings": 0}),
        ("pareto", {"image_tokens": (0, 4, 16), "image_sizes": (96, 160)}),
        ("pareto", {"lora_ranks": (0, 8)}),
        ("pareto", {"image_merging": (0, 8)}),
        ("stages", {"seed": 4}),
    ],
)
def test_the_command_gives_the_settings_that_it_is_made_of(
    study: str, options: dict[str, Any]
) -> None:
    settings = load_settings(study, options)
    assert settings_of(command_line(settings)) == settings


def test_what_the_preset_says_itself_is_left_out() -> None:
    assert command_line(load_settings("pareto", {})) == "fusion-nas run --study pareto"


def test_a_password_is_not_in_the_command() -> None:
    settings = load_settings("pareto", {"storage": "postgresql://me:secret@host/db"})
    assert "secret" not in command_line(settings)
