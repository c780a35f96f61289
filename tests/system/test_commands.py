"""Commands that the tests start: what they said can be asked for more than once."""

import subprocess
from pathlib import Path

import pytest
from tiny import Place


def test_what_a_command_said_is_told_again_whenever_it_is_asked_for(tmp_path: Path) -> None:
    started = Place(tmp_path).start(Place(tmp_path).command("--version"))
    first = started.communicate(timeout=60)
    assert started.returncode == 0 and first[0].strip()
    assert started.communicate() == first


def test_a_patience_that_ends_leaves_the_output_to_the_next_who_asks(tmp_path: Path) -> None:
    place = Place(tmp_path)
    started = place.start(place.command("--version"))
    started.send_signal(19)
    with pytest.raises(subprocess.TimeoutExpired):
        started.communicate(timeout=0.01)
    started.send_signal(18)
    assert started.communicate(timeout=60)[0].strip()


def test_output_that_was_closed_unread_is_an_error_of_the_caller(tmp_path: Path) -> None:
    place = Place(tmp_path)
    started = place.start(place.command("--version"))
    started.stdout.close()
    with pytest.raises(ValueError, match="closed before it was read"):
        started.communicate()
    started.kill()
    started.stderr.close()
