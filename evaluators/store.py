"""Every evaluation, kept once and for good: an append-only file of checked lines.

Each line is a JSON object with the SHA-256 of its evaluation. A line torn by a crash is never
read, and the next line starts afresh; so nothing that was kept before it is lost.
"""

import hashlib
import json
import os
from pathlib import Path

from evaluators.cached_files import report, set_folder_aside
from evaluators.evaluation import Evaluation, Evaluator, NotFiniteError
from evaluators.shared_store import SharedStore
from search_space.design.genotype import Genotype
from search_space.errors import STORAGE, FusionNasError
from search_space.locks import NamedLock

KIND = "evaluations"
"""Of the records of a shared store."""


class StoreError(FusionNasError):
    """The store cannot be written; the text says why and what to do."""

    exit_code = STORAGE


class EvaluationStore:
    """Evaluations by content key, shared by every study and worker of one home folder.

    With a shared store also by those of other homes: what is not here is looked up there.
    """

    def __init__(self, path: Path, shared: SharedStore | None = None) -> None:
        """Open the file, which is made with its first evaluation. Raises StoreError."""
        self.path, self._shared = path, shared
        self.damaged_lines, self._reported = 0, False
        self._places: dict[str, int] = {}  # where in the file: what is known may outgrow memory
        self._read_to = 0
        self._lock = NamedLock(f"{path}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            set_folder_aside(path)
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, key: str) -> Evaluation | None:
        """The evaluation of this key, also one that another worker has just kept; else None."""
        found = self._get(key)
        if found is not None or self._shared is None:
            return found
        body = self._shared.get(KIND, key)
        there = None if body is None else _evaluation(body.decode())
        if there is None or there.key != key or there.unstable:
            return None
        self._keep(there)
        return there

    def _get(self, key: str) -> Evaluation | None:
        if key not in self._places:
            self._read_new_lines()
        if key not in self._places:
            return None
        evaluation = self._at(self._places[key])
        if evaluation is None or evaluation.key != key:  # the file was cut by a failed write
            self._forget()
            self._read_new_lines()
            return self._at(self._places[key]) if key in self._places else None
        return evaluation

    def _at(self, place: int) -> Evaluation | None:
        try:
            with open(self.path, "rb") as file:
                file.seek(place)
                return _parse(file.readline())
        except FileNotFoundError:
            return None

    def _forget(self) -> None:
        self._places, self._read_to, self.damaged_lines = {}, 0, 0

    def put(self, evaluation: Evaluation) -> None:
        """Keeps an evaluation; on return it survives a crash. The first of a key stays.

        One that is not stable is kept for whoever reads the file, but is no answer to `get`.

        Raises StoreError where it cannot be written, NotFiniteError for NaN among its details.
        """
        body = self._keep(evaluation)
        if self._shared is not None and not evaluation.unstable:
            try:
                self._shared.put(KIND, evaluation.key, body.encode())
            except OSError as error:
                raise self._unwritable(error) from error

    def _keep(self, evaluation: Evaluation) -> str:
        """Append an evaluation that is new to the file; return it as text."""
        try:
            body = json.dumps(evaluation.as_json(), sort_keys=True, allow_nan=False)
        except ValueError as error:
            raise NotFiniteError(f"details of a {evaluation.kind} evaluation: {error}") from error
        line = json.dumps({"sha256": _sha256(body), "evaluation": body}) + "\n"
        try:
            with self._lock:
                if self._get(evaluation.key) is None:
                    self._append(line.encode())
        except OSError as error:
            raise self._unwritable(error) from error
        self._read_new_lines()
        return body

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self.path}: cannot be written ({error.strerror or error}); what is stored "
            "there stays valid: make room or repair the folder, and run the command again"
        )

    def _append(self, line: bytes) -> None:
        # Unbuffered: closing a buffered file would try again what has just failed.
        with open(self.path, "ab", buffering=0) as file:
            whole = file.tell()
            if whole and not self._ends_with_newline():
                line = b"\n" + line  # a torn line is left behind, not continued
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, whole)
                raise

    def _ends_with_newline(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_new_lines(self) -> None:
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, self._read_to - 1))
                if self._read_to and file.read(1) != b"\n":  # cut by a failed write
                    self._forget()
                    file.seek(0)
                for line in file:
                    if not line.endswith(b"\n"):  # torn, or still being written
                        break
                    self._take_in(line)
        except FileNotFoundError:
            return

    def _take_in(self, line: bytes) -> None:
        evaluation = _parse(line)
        if evaluation is not None:
            if not evaluation.unstable:
                self._places.setdefault(evaluation.key, self._read_to)
        elif line.strip():
            self.damaged_lines += 1
            if not self._reported:
                self._reported = True
                place = f"has a damaged line at byte {self._read_to:,}"
                report(self.path, place, "what it held is evaluated again where it is needed")
        self._read_to += len(line)


def _parse(line: bytes) -> Evaluation | None:
    try:
        record = json.loads(line)
        if _sha256(record["evaluation"]) != record["sha256"]:
            return None
        return _evaluation(record["evaluation"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _evaluation(body: str) -> Evaluation | None:
    """The evaluation that a text holds; None for another text."""
    try:
        return Evaluation.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, NotFiniteError):
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def known_or_new(
    store: EvaluationStore, evaluator: Evaluator, genotype: Genotype
) -> tuple[Evaluation, bool]:
    """The evaluation of a design, and whether it was known already and cost nothing."""
    known = store.get(evaluator.key(genotype))
    if known is not None:
        return known, True
    evaluation = evaluator.evaluate(genotype)
    store.put(evaluation)
    return evaluation, False
