"""Whatever damage the cached files of a study take, no figure changes and nothing breaks."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import DAMAGE
from tiny import Place, finished_place

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


def copied(finished: Place, folder: Path) -> Place:
    shutil.copytree(finished.folder, folder, symlinks=True)
    return Place(folder)


def cached(place: Place) -> Iterator[Path]:
    """The largest file of every kind that a study leaves in its home, and its checksum."""
    kinds = ("weights/*.safetensors", "features/*/*.safetensors", "features/*/manifest.json",
             "parts/*.part", "data/index/*.json", "evaluations.jsonl")  # fmt: skip
    for kind in kinds:
        yield max(place.home.glob(kind), key=lambda file: file.stat().st_size)


@pytest.fixture(scope="module")
def undamaged(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same study without damage, its first trial exported."""
    place = copied(finished, tmp_path_factory.mktemp("undamaged") / "place")
    done = place.finish(place.command("export", "0", "--out", "out"))
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_home_gives_the_same_network_and_says_what_was_made_again(
    tmp_path: Path, finished: Place, undamaged: Place, harm: str
) -> None:
    place = copied(finished, tmp_path / "place")
    for file in cached(place):
        DAMAGE[harm](file)
    for weights in place.home.glob("weights/*.safetensors"):
        if weights.is_file():
            DAMAGE[harm](weights)
    said = []
    for arguments in (
        place.run("--trials", "6"),
        place.command("report", "--json"),
        place.command("export", "0", "--out", "out"),
    ):
        done = place.finish(arguments)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    assert "Traceback" not in "".join(said)
    if harm != "removed":
        assert "safetensors" in said[2] and "made again" in said[2]
        assert "evaluations.jsonl" in said[0] or harm in ("emptied", "truncated")
    ours, theirs = (
        json.loads((one.folder / "out" / "card.json").read_text()) for one in (place, undamaged)
    )
    assert ours["sha256"] == theirs["sha256"]
    assert ours["exported_valid_accuracy"] == ours["valid"]["accuracy"][0]
