"""Tensors over the samples of a data set, kept on disk in shards and mapped into memory.

A folder holds `00000.safetensors` and so on, each over a run of consecutive rows, and
`manifest.json`: what the tensors are of, and of each shard its rows, bytes, SHA-256, types and
shapes. The manifest is replaced, whole, after each shard, and what it does not list is not there.
So a pass that was cut off goes on with the shards that are whole.
"""

import errno
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from evaluators.cached_files import report, set_folder_aside, sha256_once, write_whole
from evaluators.features.trunk_weights import write_tensors
from evaluators.shared_store import SharedStore
from search_space.locks import NamedLock

SHARD_BYTES = 64 * 2**20
"""Of a shard at most, in single precision; a row that is larger has a shard of its own."""
HARMLESS = 4e-4
"""Rounding to half precision takes 2.1e-4 of the spread of features about zero."""
MANIFEST = "manifest.json"
KIND = "features"
"""Of the records of a shared store, which are manifests."""


class Rows:
    """A tensor (N, ...) in parts along its first extent, which may be mapped from disk.

    In memory is what `take` was asked for, as long as it is used; of mapped parts the system keeps
    what it has room for.
    """

    def __init__(self, parts: Sequence[Tensor], at: Tensor | None = None) -> None:
        """All rows of the parts in order, or those at `at` (N,)."""
        self.parts = tuple(parts)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self._at = at

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._at is None else len(self._at)

    @property
    def dtype(self) -> torch.dtype:
        """The widest of the parts'."""
        return max((part.dtype for part in self.parts), key=lambda dtype: dtype.itemsize)

    @property
    def bytes(self) -> int:
        """What all rows would take in memory."""
        return len(self) * self.parts[0][0].numel() * self.dtype.itemsize

    def select(self, at: Tensor) -> "Rows":
        """The rows at `at` (M,) as rows of their own; nothing is read."""
        return Rows(self.parts, at if self._at is None else self._at[at])

    def take(self, at: Tensor, longest: int | None = None) -> Tensor:
        """A copy (B, ...) of the rows at `at` (B,), the second extent cut to `longest`."""
        at = at if self._at is None else self._at[at]
        cut = () if longest is None else (slice(longest),)
        if len(self.parts) == 1:
            return self.parts[0][(at, *cut)]
        shape = self.parts[0][(slice(0), *cut)].shape[1:]
        found = torch.empty((len(at), *shape), dtype=self.dtype)
        part_of = torch.searchsorted(self._ends, at, right=True)
        for k in set(part_of.tolist()):
            here = (part_of == k).nonzero().flatten()
            first = int(self._ends[k]) - len(self.parts[k])
            found[here] = self.parts[k][(at[here] - first, *cut)].to(self.dtype)
        return found

    def whole(self) -> Tensor:
        """All rows (N, ...): a single part as it is mapped, else a copy in memory."""
        if len(self.parts) == 1 and self._at is None:
            return self.parts[0]
        return self.take(torch.arange(len(self)))


@dataclass(frozen=True)
class Shard:
    """A file of the manifest. tensors: type and shape by name."""

    rows: int
    bytes: int
    sha256: str
    tensors: Mapping[str, tuple[str, Sequence[int]]]


class FeatureStore:
    """The tensors of one folder, each over the same `rows` samples.

    `of` says what they are of, in JSON values. A folder whose manifest says anything else holds
    nothing.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any], rows: int) -> None:
        self.folder = folder
        self.of = of
        self.rows = rows

    def lock(self) -> NamedLock:
        """For the one worker that writes; the others wait for it and find the rows written."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return NamedLock(f"{self.folder}.lock")

    def missing(self) -> list[range]:
        """Runs of rows that no whole shard holds, in order."""
        shard_rows, whole = self.whole()
        return [run for name, run in self.runs(shard_rows).items() if name not in whole]

    def whole(self) -> tuple[int, dict[str, Shard]]:
        """How many rows a shard has, all where there is no manifest, and the shards that are whole.

        A shard's bytes are counted every time, its SHA-256 is taken once a process.
        """
        try:
            said = json.loads((self.folder / MANIFEST).read_bytes())
            if (said["of"], said["rows"]) != (self.of, self.rows) or said["shard_rows"] < 1:
                return self.rows, {}
            runs = self.runs(said["shard_rows"])
            listed = {
                name: Shard(**said["shards"][name]) for name in runs if name in said["shards"]
            }
        except (OSError, ValueError, TypeError, KeyError):
            return self.rows, {}
        return said["shard_rows"], {
            name: shard
            for name, shard in listed.items()
            if shard.rows == len(runs[name]) and _is_whole(self.folder / name, shard)
        }

    def fetch(self, shared: SharedStore) -> None:
        """Download what another host has made of these rows. Its user holds the lock.

        What is missing there, or is not as it was written, is missing here afterwards.
        """
        body = shared.get(KIND, self.folder.name)
        if body is None:
            return
        try:
            said = json.loads(body)
            fits = (said["of"], said["rows"]) == (self.of, self.rows) and said["shard_rows"] > 0
            names = self.runs(said["shard_rows"]) if fits else {}
            shards = {name: Shard(**said["shards"][name]) for name in names}
        except (ValueError, TypeError, KeyError):
            return
        for name, shard in shards.items():
            file = self.folder / name
            if not _is_whole(file, shard) and not shared.fetch_blob(shard.sha256, file):
                shared.forget(KIND, self.folder.name)
                return
        if shards:
            write_whole(self.folder / MANIFEST, body)

    def send(self, shared: SharedStore) -> None:
        """Upload all shards and the manifest, where all rows are whole."""
        if not self.missing():
            _, whole = self.whole()
            files = {shard.sha256: self.folder / name for name, shard in whole.items()}
            body = (self.folder / MANIFEST).read_bytes()
            shared.put(KIND, self.folder.name, body, files)

    def runs(self, shard_rows: int) -> dict[str, range]:
        """The rows of each shard, by the name of its file."""
        return {
            f"{k:05}.safetensors": range(first, min(first + shard_rows, self.rows))
            for k, first in enumerate(range(0, self.rows, shard_rows))
        }

    def read(self, names: Collection[str]) -> dict[str, Rows]:
        """Tensors by name, mapped from disk. Raises OSError where rows are missing."""
        shard_rows, whole = self.whole()
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for shard in self.runs(shard_rows):
            if shard not in whole:
                raise OSError(errno.EIO, "not as it was written", str(self.folder / shard))
            with safe_open(str(self.folder / shard), "pt") as kept:
                for name in names:
                    parts[name].append(kept.get_tensor(name))
        return {name: Rows(each) for name, each in parts.items()}


class FeatureWriter:
    """Writes what a store lacks, shard by shard as the rows come. Its user holds the lock.

    In memory are the shards that some, but not all rows have come of.
    """

    def __init__(
        self,
        store: FeatureStore,
        may_halve: Collection[str] = (),
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Tensors of `may_halve` are kept in half precision where `halved` allows it."""
        self._store, self._may_halve, self._shard_bytes = store, may_halve, shard_bytes
        self._shard_rows, self._whole = store.whole()
        self._runs: list[tuple[str, range]] = []
        self._open: dict[str, dict[str, Tensor]] = {}
        self._came: Counter[str] = Counter()
        left = store.folder.iterdir() if store.folder.is_dir() else ()
        for file in left:  # damaged, of something else, or of a worker that was killed
            if file.name not in (MANIFEST, *self._whole):
                _clear(file)

    def put(self, at: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Takes the rows `at` (B,) of every tensor, (B, ...) float32 each, in any order.

        Rows that are kept are passed over. Raises OSError where a shard cannot be written; nothing
        of it is left then, and the shards before it stay.
        """
        if not self._runs:
            if not self._whole:
                row = sum(4 * tensor[0].numel() for tensor in tensors.values())
                fit = max(1, self._shard_bytes // row)
                self._shard_rows = 2 ** (fit.bit_length() - 1)  # batches then end where shards do
            self._runs = list(self._store.runs(self._shard_rows).items())
        shard_of = at // self._shard_rows
        for k in sorted(set(shard_of.tolist())):
            name, run = self._runs[k]
            if name in self._whole:
                continue
            here = (shard_of == k).nonzero().flatten()
            filled = self._open.setdefault(name, {})
            for key, tensor in tensors.items():
                if key not in filled:
                    filled[key] = torch.zeros((len(run), *tensor.shape[1:]))
                filled[key][at[here] - run.start] = tensor[here]
            self._came[name] += len(here)
            if self._came[name] == len(run):
                self._write(name, self._open.pop(name))

    def _write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """One shard and the manifest that lists it."""
        kept = {
            key: halved(tensor) if key in self._may_halve else tensor
            for key, tensor in tensors.items()
        }
        folder = self._store.folder
        write_tensors(kept, folder / name)
        self._whole[name] = Shard(
            rows=len(next(iter(kept.values()))),
            bytes=(folder / name).stat().st_size,
            sha256=sha256_once(folder / name),
            tensors={
                key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
                for key, tensor in kept.items()
            },
        )
        said = {
            "of": self._store.of,
            "rows": self._store.rows,
            "shard_rows": self._shard_rows,
            "shards": {name: asdict(shard) for name, shard in sorted(self._whole.items())},
        }
        set_folder_aside(folder / MANIFEST)
        try:
            write_whole(folder / MANIFEST, json.dumps(said, indent=1).encode())
        except OSError as error:
            why = f"cannot be written ({error.strerror}): make room"
            raise OSError(error.errno, why, str(folder / MANIFEST)) from error


def _is_whole(file: Path, shard: Shard) -> bool:
    try:
        return file.stat().st_size == shard.bytes and sha256_once(file) == shard.sha256
    except OSError:
        return False


def _clear(file: Path) -> None:
    """Removes what is no whole shard of the manifest."""
    if file.suffix == ".safetensors" and not file.is_dir():
        report(file, "is not as its manifest says")
    set_folder_aside(file)
    file.unlink(missing_ok=True)


def halved(tensor: Tensor) -> Tensor:
    """A tensor (R, ..., C) in half precision, where that is harmless.

    As it is where the root mean square of what rounding changes is over `HARMLESS` of that of the
    values' distances from their channels' means: values far from zero that differ little, and those
    beyond 65,504. That holds of all tokens, and of the first of each sequence alone, which a fusion
    may read: in the lower layers of MiniLM it hardly differs between texts.
    """
    harmless = all(_survives_rounding(each) for each in (tensor.flatten(0, -2), tensor[:, 0]))
    return tensor.half() if harmless else tensor


def _survives_rounding(values: Tensor) -> bool:
    """Whether vectors (R, C) may be rounded to half precision; rows of zeros are padding."""
    values = values[values.any(1)]
    if len(values) == 0:
        return True
    changed = (values.half().float() - values).square().mean()
    spread = values.var(0, correction=0).mean()
    return bool(changed <= HARMLESS**2 * spread)
