"""Optuna's journal as a storage: shared by workers of several hosts, damaged files are named."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from tiny import Bench

from studies.infra.journal.storage import Journal
from studies.infra.locations import StorageError, absolute_url, journal_path, sqlite_url
from studies.infra.optuna_private import (
    heartbeat_ages_s,
    record_heartbeat,
    replace_attribute,
    turn_of_all_homes,
)
from studies.infra.storage import open_storage, quiet_optuna
from studies.results.trial_record import WORKER, TrialRecord
from studies.study.lookup import is_missing

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    quiet_optuna()
    return tmp_path / "share" / "studies.log"


def study_in(file: Path) -> optuna.Study:
    return optuna.create_study(
        storage=open_storage(f"journal:{file}"),
        study_name="bench",
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )


def test_a_url_of_a_journal_is_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert journal_path("journal:a.log") == journal_path("journal:///a.log") == Path("a.log")
    assert journal_path("journal:/b/a.log") == journal_path("journal:////b/a.log")
    assert journal_path("sqlite:///a.db") is None
    assert absolute_url("journal:a.log") == f"journal:{tmp_path / 'a.log'}"
    assert sqlite_url("journal:a.log") == "journal:a.log"
    assert is_missing("journal:a.log")


def test_a_search_goes_on_where_another_process_left_it(tmp_path: Path) -> None:
    url = f"journal:{tmp_path / 'studies.log'}"
    first = Bench(tmp_path / "here", url)
    first.search.seed(first.seeded)
    first.search.run(5)
    second = Bench(tmp_path / "there", url)
    second.search.run(8)
    assert [trial.number for trial in second.trials] == list(range(8))
    assert all(trial.state.is_finished() for trial in second.trials)
    homes = {TrialRecord.of(trial).worker.partition(":")[0] for trial in second.trials}
    assert len(homes) == 2
    assert optuna.load_study(study_name="bench", storage=open_storage(url)).best_trials


# -- workers of several hosts


def test_of_several_workers_one_gets_a_trial(file: Path) -> None:
    studies = [study_in(file) for _ in range(4)]
    trial = studies[0].ask()
    got: list[str] = []

    def take(study: optuna.Study, name: str) -> None:
        if replace_attribute(study, trial, WORKER, None, name):
            got.append(name)

    threads = [
        threading.Thread(target=take, args=(study, f"w{k}")) for k, study in enumerate(studies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert studies[3].get_trials()[0].user_attrs[WORKER] == got[0]
    assert replace_attribute(studies[1], trial, WORKER, got[0], "another")
    assert not replace_attribute(studies[2], trial, WORKER, got[0], "late")


def test_a_finished_trial_is_not_taken_over(file: Path) -> None:
    study = study_in(file)
    trial = study.ask()
    study.tell(trial, [1.0, 2.0])
    assert not replace_attribute(study, trial, WORKER, None, "late")


def test_a_sign_of_life_is_seen_by_others_by_the_time_of_the_file_system(file: Path) -> None:
    study, other = study_in(file), study_in(file)
    first, second = study.ask(), study.ask()
    record_heartbeat(study, first)
    ages = heartbeat_ages_s(other)
    assert set(ages) == {first.number} and second.number not in ages
    lease = next(file.with_name(f"{file.name}.leases").iterdir())
    before = lease.stat().st_mtime - 500
    os.utime(lease, (before, before))
    assert heartbeat_ages_s(other)[first.number] >= 500
    record_heartbeat(study, first)
    assert heartbeat_ages_s(other)[first.number] < 100


def test_one_worker_at_a_time_has_the_turn(file: Path) -> None:
    here, there = study_in(file), study_in(file)
    inside, most = 0, 0

    def work(study: optuna.Study, name: str) -> None:
        nonlocal inside, most
        for _ in range(3):
            with turn_of_all_homes(study, "turn", name, lambda other: False, 60.0, 0.01):
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1

    threads = [threading.Thread(target=work, args=(s, n)) for s, n in ((here, "a"), (there, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_the_turn_of_a_dead_worker_is_taken(file: Path) -> None:
    study = study_in(file)
    study.set_user_attr("turn", "dead")
    with turn_of_all_homes(study, "turn", "alive", lambda other: other == "dead", 60.0, 0.01):
        assert study.user_attrs["turn"] == "alive"
    assert study.user_attrs["turn"] is None


def test_a_worker_that_is_killed_as_it_writes_leaves_a_journal_that_others_read(
    file: Path,
) -> None:
    study = study_in(file)
    script = (
        "import sys\n"
        "from studies.infra.storage import open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    storage.set_study_user_attr(0, 'key', 'x' * 5000)\n"
    )
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-u", "-c", script, f"journal:{file}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(0.2)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)  # instead of 30 s
        study.set_user_attr("after", 1)
    assert study_in(file).user_attrs["after"] == 1


# -- files that are not as they were written


def lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def test_a_line_that_was_cut_off_is_passed_over_and_removed_by_the_next_writer(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = study_in(file)
    study.set_user_attr("whole", 1)
    whole = file.read_bytes()
    study.set_user_attr("cut", 2)
    file.write_bytes(file.read_bytes()[:-7])
    again = study_in(file)
    assert again.user_attrs.get("whole") == 1 and "cut" not in again.user_attrs
    again.set_user_attr("next", 3)
    assert "its last line was cut off after" in capfd.readouterr().err
    assert file.read_bytes().startswith(whole)
    assert [json.loads(line)["op_code"] for line in lines(file)]
    assert study_in(file).user_attrs["next"] == 3


def test_optuna_itself_reads_a_journal_that_was_cut_and_written_again(file: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study_in(file).set_user_attr("whole", 1)
    with open(file, "ab") as journal:
        journal.write(b'{"op_code":2,"wor')
    study_in(file).set_user_attr("next", 3)
    plain = JournalStorage(JournalFileBackend(str(file)))
    found = optuna.load_study(study_name="bench", storage=plain)
    assert found.user_attrs["whole"] == 1 and found.user_attrs["next"] == 3


@pytest.mark.parametrize(
    "damage",
    [lambda line: line[:10] + b"\n", lambda line: b"\0" * 20 + b"\n", lambda line: b"{}\n"],
)
def test_a_line_in_the_middle_that_is_not_as_written_is_named(file: Path, damage: object) -> None:
    study = study_in(file)
    for k in range(3):
        study.set_user_attr(f"key{k}", k)
    found = lines(file)
    found[2] = damage(found[2])  # type: ignore[operator]
    file.write_bytes(b"".join(found))
    with pytest.raises(
        StorageError, match=r"studies\.log: line 3 is not as it was written"
    ) as raised:
        open_storage(f"journal:{file}")
    assert f"head -n 2 {file}" in raised.value.hint
    file.write_bytes(b"".join(found[:2]))
    assert study_in(file).user_attrs["key0"] == 0


def test_a_journal_whose_folder_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(f"journal:{tmp_path / 'file' / 'studies.log'}")


def test_a_journal_is_one_of_the_storages_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"journal:FILE\.log"):
        open_storage("studies.db")
    assert isinstance(open_storage(f"journal:{tmp_path / 'a.log'}"), Journal)
