"""What was measured once is kept for good, whatever happens to the process or the disk."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.evaluation import Evaluation, Measure, NotFiniteError, content_key
from evaluators.store import EvaluationStore, StoreError, known_or_new
from search_space.design.genotype import FusionPoint, Genotype

ROOT = Path(__file__).parents[2]
DESIGN = Genotype("text", "vision", 16, (FusionPoint(1, 1),))


def found(key: str, value: float = 1.0) -> Evaluation:
    return Evaluation(key, "latency", (Measure("latency_ms", value, "ms", "lower"),))


def records(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that has the store at hand and prints what the script prints, line by line."""
    opening = (
        "import sys\n"
        "from pathlib import Path\n"
        "from evaluators.evaluation import Evaluation, Measure\n"
        "from evaluators.store import EvaluationStore, StoreError\n"
        "def found(key):\n"
        "    return Evaluation(key, 'latency', (Measure('latency_ms', 1.0, 'ms', 'lower'),))\n"
        "store = EvaluationStore(Path(sys.argv[1]))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-u", "-c", opening + script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "evaluations.jsonl"


# -- what a store promises


def test_the_first_evaluation_of_a_key_stays(path: Path) -> None:
    store = EvaluationStore(path)
    store.put(found("a", 1.0))
    before = path.read_bytes()
    store.put(found("a", 2.0))
    assert store.get("a") == EvaluationStore(path).get("a") == found("a", 1.0)
    assert path.read_bytes() == before


def test_nothing_that_is_kept_is_ever_rewritten(path: Path) -> None:
    store, contents = EvaluationStore(path), [b""]
    for number in range(5):
        store.put(found(str(number)))
        contents.append(path.read_bytes())
    assert all(new.startswith(old) and len(new) > len(old) for old, new in pairwise(contents))


def test_a_store_sees_what_another_one_has_just_kept(path: Path) -> None:
    here, there = EvaluationStore(path), EvaluationStore(path)
    assert here.get("a") is None
    there.put(found("a"))
    assert here.get("a") == found("a")
    here.put(found("a", 2.0))
    assert len(records(path)) == 1


def test_the_files_of_a_store_are_its_records_and_one_lock(path: Path) -> None:
    store = EvaluationStore(path)
    for number in range(3):
        store.put(found(str(number)))
    names = {file.name for file in path.parent.iterdir()}
    assert names <= {path.name, f"{path.name}.lock"}


def test_a_design_that_is_known_is_not_measured_again(path: Path) -> None:
    class Once:
        asked = 0

        def key(self, genotype: Genotype) -> str:
            return genotype.key

        def evaluate(self, genotype: Genotype) -> Evaluation:
            self.asked += 1
            return found(genotype.key)

    once = Once()
    first = known_or_new(EvaluationStore(path), once, DESIGN)
    again = known_or_new(EvaluationStore(path), once, DESIGN)
    assert first == (found(DESIGN.key), False) and again == (found(DESIGN.key), True)
    assert once.asked == 1


# -- damage


def test_a_last_record_torn_at_any_byte_costs_no_other_and_stops_no_later_one(path: Path) -> None:
    store = EvaluationStore(path)
    for key in "abc":
        store.put(found(key))
    whole, length = path.read_bytes(), len(records(path)[-1])
    for cut in range(len(whole) - length, len(whole)):
        path.write_bytes(whole[:cut])
        torn = EvaluationStore(path)
        assert torn.get("a") == found("a") and torn.get("b") == found("b"), cut
        assert torn.get("c") is None, cut
        torn.put(found("c", 3.0))
        torn.put(found("d"))
        later = EvaluationStore(path)
        kept = {key: later.get(key) for key in "abcd"}
        # Only a record that lacks nothing but its line end may come back as it was.
        third = found("c", 1.0 if cut == len(whole) - 1 else 3.0)
        assert kept == {"a": found("a"), "b": found("b"), "c": third, "d": found("d")}, cut


def test_a_flipped_bit_never_changes_a_value_and_costs_only_its_own_record(path: Path) -> None:
    store = EvaluationStore(path)
    for key in "abc":
        store.put(found(key))
    whole = path.read_bytes()
    first, second, _ = records(path)
    for place in range(len(first), len(first) + len(second) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(bytes(damaged))
        store = EvaluationStore(path)
        assert store.get("a") == found("a") and store.get("c") == found("c"), place
        assert store.get("b") is None and store.damaged_lines >= 1, place


def test_records_of_another_writer_are_read_after_a_failed_one_was_cut_off(path: Path) -> None:
    store = EvaluationStore(path)
    store.put(found("a"))
    good = path.read_bytes()
    store.put(found("written whole, but not to the disk"))
    path.write_bytes(good)  # so it was taken back
    other = EvaluationStore(path)
    for key in ("b", "c"):
        other.put(Evaluation(key, "latency", details={"long": "x" * 200}))
    assert store.get("b") and store.get("c") and store.get("a")


def test_a_record_that_took_the_place_of_one_that_was_taken_back_is_not_taken_for_it(
    path: Path,
) -> None:
    store = EvaluationStore(path)
    store.put(found("a"))
    good = path.read_bytes()
    store.put(found("b"))
    path.write_bytes(good)
    EvaluationStore(path).put(found("c"))  # as long as that of "b"
    assert store.get("b") is None
    assert store.get("c") == found("c") and store.get("a") == found("a")


@pytest.mark.parametrize(
    "line", [b"[]", b"null", b'{"sha256": 1, "evaluation": 2}', b"\xff\xfe", b"{", b'"text"', b"7"]
)
def test_a_line_that_is_no_record_is_counted_and_passed_over(path: Path, line: bytes) -> None:
    EvaluationStore(path).put(found("a"))
    path.write_bytes(line + b"\n" + path.read_bytes())
    store = EvaluationStore(path)
    assert store.get("a") == found("a") and store.damaged_lines == 1


# -- several processes


def test_two_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    script = (
        "for n in range(40):\n"
        "    store.put(found(f'{sys.argv[2]}-{n}'))\n"
        "    store.put(found(f'both-{n}'))\n"
    )
    writers = [child(script, str(path), name) for name in ("left", "right")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    store = EvaluationStore(path)
    for name in ("left", "right", "both"):
        assert all(store.get(f"{name}-{n}") == found(f"{name}-{n}") for n in range(40))
    assert store.damaged_lines == 0 and len(records(path)) == 120


def test_a_killed_process_loses_nothing_that_it_was_told_is_kept(path: Path) -> None:
    writer = child(
        "n = 0\nwhile True:\n    store.put(found(str(n)))\n    print(n)\n    n += 1\n", str(path)
    )
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(25)]
    os.kill(writer.pid, signal.SIGKILL)
    told += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait(10)
    store = EvaluationStore(path)
    assert told == list(range(len(told))) and all(store.get(str(n)) for n in told)
    store.put(found("after"))  # and its lock has gone with it
    assert EvaluationStore(path).get("after") == found("after")


# -- disks


@pytest.mark.parametrize("room", [0, 1, 40, 150])
def test_a_full_disk_is_one_line_of_words_and_harms_no_record(path: Path, room: int) -> None:
    EvaluationStore(path).put(found("a"))
    script = (
        "import resource\n"
        "limit = store.path.stat().st_size + int(sys.argv[2])\n"
        "before, hard = store.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
        "try:\n"
        "    store.put(found('b'))\n"
        "except StoreError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "print(store.path.read_bytes() == before, store.get('b'))\n"
        "store.put(found('b'))\n"
    )
    writer = child(script, str(path), str(room))
    said, state = writer.communicate(timeout=30)[0].splitlines()
    assert str(path) in said and "make room" in said
    assert state == "True None" and writer.returncode == 0
    store = EvaluationStore(path)
    assert store.get("a") and store.get("b") and store.damaged_lines == 0


def test_a_home_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="repair the folder"):
        EvaluationStore(tmp_path / "file" / "evaluations.jsonl")


# -- values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["value", "low", "high"])
def test_a_number_that_is_not_finite_is_no_measure(value: float, place: str) -> None:
    with pytest.raises(NotFiniteError, match="accuracy"):
        Measure(**{"name": "accuracy", "value": 1.0, "unit": "%", place: value})  # type: ignore[arg-type]


def test_details_that_are_not_finite_are_refused_and_leave_no_trace(path: Path) -> None:
    store = EvaluationStore(path)
    with pytest.raises(NotFiniteError, match="latency"):
        store.put(Evaluation("a", "latency", details={"loss": [float("nan")]}))
    assert not path.exists() and store.get("a") is None


def test_a_record_with_nan_from_elsewhere_is_not_read(path: Path) -> None:
    body = json.dumps({**found("a").as_json()}).replace("1.0", "NaN")
    path.parent.mkdir()
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "evaluation": body}) + "\n")
    store = EvaluationStore(path)
    assert store.get("a") is None and store.damaged_lines == 1


def test_asking_for_a_measure_that_is_not_there_names_those_that_are() -> None:
    assert found("a")["latency_ms"].value == 1.0
    with pytest.raises(KeyError, match=r"accuracy.*latency_ms"):
        found("a")["accuracy"]


numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
measures = st.builds(
    Measure,
    st.text(),
    numbers,
    st.text(),
    st.sampled_from(["higher", "lower", "neither"]),
    st.none() | numbers,
    st.none() | numbers,
)
evaluations = st.builds(
    Evaluation,
    st.text(),
    st.text(),
    st.lists(measures, max_size=3).map(tuple),
    st.dictionaries(st.text(), plain, max_size=3),
    st.text(),
)


@given(evaluations)
def test_every_evaluation_comes_back_from_json_as_it_was(evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.as_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == evaluation


@given(st.lists(evaluations, max_size=4))
def test_every_evaluation_comes_back_from_the_store_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, kept: list[Evaluation]
) -> None:
    path = tmp_path_factory.mktemp("store") / "evaluations.jsonl"
    store = EvaluationStore(path)
    first: dict[str, Evaluation] = {}
    for evaluation in kept:
        store.put(evaluation)
        first.setdefault(evaluation.key, evaluation)
    read = EvaluationStore(path)
    assert {key: read.get(key) for key in first} == first and read.damaged_lines == 0


def test_a_content_key_changes_with_kind_and_conditions_but_not_with_their_order() -> None:
    key = content_key("quality", {"a": 1, "b": 2})
    assert key == content_key("quality", {"b": 2, "a": 1}) and len(key) == 64
    assert key not in (content_key("test", {"a": 1, "b": 2}), content_key("quality", {"a": 1}))
    with pytest.raises(ValueError):
        content_key("quality", {"a": float("nan")})
