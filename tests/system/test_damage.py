"""Whatever damage the files in a study's home take, no figure changes and nothing breaks."""

from collections.abc import Iterator

import pytest
from damage import DAMAGE
from damage_matrix import SUBJECTS, Matrix, never_found

from evaluators.cached_files import SUFFIX

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """A finished study of clips, its text encoder tuned alone."""
    yield Matrix(tmp_path_factory.mktemp("matrix"), SUBJECTS["clips"])


def test_the_matrix_holds_every_kind_of_file_that_clean_lists(clips: Matrix) -> None:
    assert not never_found(clips.forms)
    assert not [form for form in clips.forms if form.startswith("other:")]


@pytest.mark.parametrize("shift", range(len(DAMAGE)))
def test_a_study_all_of_whose_files_are_damaged_comes_to_the_same_figures(
    clips: Matrix, shift: int
) -> None:
    """Every form of file is damaged in its own way; over the shifts each form in every way."""
    done = clips.case(clips.in_turn(shift))
    assert not done.tracebacks
    assert not done.failed
    assert not done.wrong
    assert any(fate.noticed for fate in done.fates.values())
    for form, fate in done.fates.items():
        if form.startswith("exported networks:") and not form.endswith(SUFFIX):
            assert fate.as_before + fate.rewritten == fate.files, "what the dashboard offers"
