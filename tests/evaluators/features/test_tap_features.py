"""Features are made once, kept in shards, and made again where they are damaged."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import run_host
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quick_evaluators import QUICK, SPLITS, demo, image_folder, quality
from tap_features import of_pictures, taps
from torch import Tensor

from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.store import MANIFEST, FeatureStore, FeatureWriter, Rows
from evaluators.features.taps import TapFeatures
from evaluators.training.loop import TrainingConfig, predict
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature
from search_space.space.named import load_space

OF = {"trunk": "some weights", "tokens": 5}
ROWS = 23
SHARD_BYTES = 600
"""Shards of four rows of `tensors()`."""
PICTURES = SPLITS["train"]
LONGER = TrainingConfig(8, 8, 16, 1e-3, 0.0)
in_any_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def tensors(rows: int = ROWS) -> dict[str, Tensor]:
    """112 bytes a row."""
    drawn = torch.Generator().manual_seed(rows)
    return {
        "pooled": torch.randn(rows, 4, generator=drawn),
        "tokens": torch.randn(rows, 8, 3, generator=drawn),
    }


def store(folder: Path, rows: int = ROWS) -> FeatureStore:
    return FeatureStore(folder / "features" / "key", OF, rows)


def fill(
    kept: FeatureStore,
    whole: Mapping[str, Tensor],
    batch: int = 5,
    shard_bytes: int = SHARD_BYTES,
    **more: Any,
) -> None:
    writer = FeatureWriter(kept, shard_bytes=shard_bytes, **more)
    for at in torch.randperm(kept.rows).split(batch):
        writer.put(at, {name: tensor[at] for name, tensor in whole.items()})


def same(kept: FeatureStore, whole: Mapping[str, Tensor]) -> bool:
    read = kept.read(whole)
    return all(torch.equal(read[name].whole(), tensor) for name, tensor in whole.items())


def shards(kept: FeatureStore) -> list[Path]:
    return sorted(kept.folder.glob("*.safetensors"))


def overwrite(file: Path, content: bytes) -> None:
    """Changes a file's content, and its time however coarse the clock is."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


# -- shards


@in_any_folder
@given(
    rows=st.integers(1, 40),
    shard_bytes=st.integers(1, 6000),
    batch=st.integers(1, 50),
    data=st.data(),
)
def test_any_size_of_shards_and_batches_gives_the_same_tensors(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    shard_bytes: int,
    batch: int,
    data: st.DataObject,
) -> None:
    kept, whole = store(tmp_path_factory.mktemp("any"), rows), tensors(rows)
    fill(kept, whole, batch, shard_bytes)
    assert not kept.missing() and same(kept, whole)
    assert all(
        file.stat().st_size <= shard_bytes + 300 or shard_bytes < 112 for file in shards(kept)
    )
    read, numbers = kept.read(["tokens"])["tokens"], st.integers(0, rows - 1)
    at = torch.tensor(data.draw(st.lists(numbers, min_size=1)))
    assert torch.equal(read.take(at), whole["tokens"][at])
    assert torch.equal(read.take(at, 2), whole["tokens"][at, :2])
    assert torch.equal(read.select(at).whole(), whole["tokens"][at])
    again = torch.tensor(data.draw(st.lists(st.integers(0, len(at) - 1), min_size=1)))
    assert torch.equal(read.select(at).take(again), whole["tokens"][at][again])
    assert len(read) == rows and read.bytes == rows * 96


def test_a_row_that_is_larger_than_a_shard_has_one_of_its_own(tmp_path: Path) -> None:
    kept = store(tmp_path)
    fill(kept, tensors(), shard_bytes=1)
    assert len(shards(kept)) == ROWS and same(kept, tensors())


def test_parts_in_different_precision_read_as_one_tensor() -> None:
    read = Rows((torch.full((2, 3), 1.5).half(), torch.full((1, 3), 1e6)))
    assert read.take(torch.tensor([2, 0])).tolist() == [[1e6] * 3, [1.5] * 3]
    assert read.dtype == torch.float32 and read.bytes == 36


def test_the_manifest_says_what_the_features_are_of_and_every_shard_s_forms(tmp_path: Path) -> None:
    kept = store(tmp_path)
    fill(kept, tensors(), may_halve=["tokens"])
    said = json.loads((kept.folder / MANIFEST).read_bytes())
    assert said["of"] == OF and said["rows"] == ROWS and said["shard_rows"] == 4
    assert [each["rows"] for each in said["shards"].values()] == [4, 4, 4, 4, 4, 3]
    for name, each in said["shards"].items():
        assert each["bytes"] == (kept.folder / name).stat().st_size and len(each["sha256"]) == 64
        assert each["tensors"]["pooled"] == ["float32", [each["rows"], 4]]
        assert each["tensors"]["tokens"] == ["float16", [each["rows"], 8, 3]]


def test_a_single_shard_is_mapped_and_not_copied(tmp_path: Path) -> None:
    kept = store(tmp_path)
    fill(kept, tensors(), shard_bytes=2**20)
    (file,) = shards(kept)
    tensor = kept.read(["tokens"])["tokens"].whole()
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if line.endswith(str(file))]
    assert any(int(a, 16) <= tensor.data_ptr() < int(b, 16) for a, b in spans)


# -- damage


def test_a_flipped_bit_is_noticed_and_only_its_shard_is_made_again(tmp_path: Path) -> None:
    kept, whole = store(tmp_path), tensors()
    fill(kept, whole)
    content = bytearray(shards(kept)[2].read_bytes())
    content[-7] ^= 1
    overwrite(shards(kept)[2], bytes(content))
    assert kept.missing() == [range(8, 12)]
    with pytest.raises(OSError, match="00002"):
        kept.read(["tokens"])
    before = [file.stat().st_mtime_ns for file in shards(kept)]
    fill(kept, whole)
    after = [file.stat().st_mtime_ns for file in shards(kept)]
    assert same(kept, whole) and [a == b for a, b in zip(before, after, strict=True)] == [
        True, True, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("left", [0, 1, 100, -1, None])
def test_a_torn_or_missing_shard_is_made_again(tmp_path: Path, left: int | None) -> None:
    kept, whole = store(tmp_path), tensors()
    fill(kept, whole)
    torn = shards(kept)[5]
    if left is None:
        torn.unlink()
    else:
        overwrite(torn, torn.read_bytes()[:left])
    assert kept.missing() == [range(20, 23)]
    fill(kept, whole)
    assert same(kept, whole)


@in_any_folder
@given(place=st.integers(0, 10**6), flipped=st.integers(1, 255))
def test_no_damage_to_the_manifest_gives_other_tensors(
    tmp_path_factory: pytest.TempPathFactory, place: int, flipped: int
) -> None:
    kept, whole = store(tmp_path_factory.mktemp("any")), tensors()
    fill(kept, whole)
    content = bytearray((kept.folder / MANIFEST).read_bytes())
    content[place % len(content)] ^= flipped
    (kept.folder / MANIFEST).write_bytes(content)
    if kept.missing():
        fill(kept, whole)
    assert same(kept, whole)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'{"of": 1}', b"\xff\xfe", None])
def test_without_a_manifest_all_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    kept, whole = store(tmp_path), tensors()
    fill(kept, whole)
    (kept.folder / MANIFEST).unlink()
    if content is not None:
        (kept.folder / MANIFEST).write_bytes(content)
    assert kept.missing() == [range(ROWS)]
    fill(kept, whole, shard_bytes=2 * SHARD_BYTES)
    assert same(kept, whole) and len(shards(kept)) == 3, "nothing of the former shards is left"


def test_features_of_other_weights_are_not_read_whatever_folder_they_lie_in(tmp_path: Path) -> None:
    theirs, whole = store(tmp_path / "theirs"), tensors()
    fill(theirs, {name: -tensor for name, tensor in whole.items()})
    ours = FeatureStore(tmp_path / "ours" / "key", {**OF, "trunk": "other weights"}, ROWS)
    shutil.copytree(theirs.folder, ours.folder)
    assert ours.missing() == [range(ROWS)]
    fill(ours, whole)
    assert same(ours, whole)


# -- cut off, and without room


def test_a_pass_that_was_cut_off_goes_on_behind_the_shards_that_are_whole(tmp_path: Path) -> None:
    kept, whole = store(tmp_path), tensors()
    writer = FeatureWriter(kept, shard_bytes=SHARD_BYTES)
    for at in torch.arange(ROWS)[:10].split(5):
        writer.put(at, {name: tensor[at] for name, tensor in whole.items()})
    (kept.folder / "00002.4711.partial").write_bytes(b"of a worker that was killed")
    before = [file.stat().st_mtime_ns for file in shards(kept)]
    assert store(tmp_path).missing() == [range(k, min(k + 4, ROWS)) for k in range(8, ROWS, 4)]
    fill(kept, whole)
    assert same(kept, whole) and [file.stat().st_mtime_ns for file in shards(kept)][:2] == before
    assert not list(kept.folder.glob("*.partial"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_whole_shards_stay_and_room_lets_it_go_on(small_disk: Path) -> None:
    kept, whole = store(small_disk, 400), tensors(400)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(60_000))
    writer = FeatureWriter(kept, shard_bytes=8000)
    with pytest.raises(OSError, match="make room") as told:
        for at in torch.arange(400).split(8):
            writer.put(at, {name: tensor[at] for name, tensor in whole.items()})
    assert told.value.errno == errno.ENOSPC
    assert Path(told.value.filename).parent == kept.folder
    (lacking, *_) = kept.missing()
    before = {file.name: file.stat().st_mtime_ns for file in shards(kept)[: lacking.start // 64]}
    assert before and not [f for f in kept.folder.iterdir() if f.name not in (MANIFEST, *before)]
    filler.unlink()
    fill(kept, whole)
    assert same(kept, whole)
    assert all((kept.folder / name).stat().st_mtime_ns == time for name, time in before.items())


# -- half precision


def tokens(scale: float, offset: float) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    made = offset + scale * torch.randn(9, 5, 8, generator=drawn)
    made[:, 3:] = 0  # padding
    return made


@pytest.mark.parametrize(
    ("scale", "offset", "kept_as"),
    [
        (1.0, 0.0, torch.float16),
        (1e3, 0.0, torch.float16),
        (1.0, 1.0, torch.float16),
        (1e5, 0.0, torch.float32),
        (1.0, 10.0, torch.float32),
        (0.0, 0.1, torch.float32),
        (1e-7, 0.0, torch.float32),
        (float("nan"), 0.0, torch.float32),
    ],
)
def test_half_precision_is_for_features_whose_differences_it_keeps(
    tmp_path: Path, scale: float, offset: float, kept_as: torch.dtype
) -> None:
    kept, whole = store(tmp_path, 9), tokens(scale, offset)
    fill(kept, {"tokens": whole}, shard_bytes=2**20, may_halve=["tokens"])
    read = kept.read(["tokens"])["tokens"]
    assert read.dtype == kept_as
    if kept_as == torch.float32:
        assert torch.equal(read.whole().nan_to_num(7), whole.nan_to_num(7))
    else:
        assert (read.whole() - whole).abs().max() <= 5e-4 * whole.abs().max()


def test_first_tokens_that_hardly_differ_are_kept_as_they_are(tmp_path: Path) -> None:
    kept, whole = store(tmp_path, 9), tokens(1.0, 0.0)
    whole[:, 0] = 2 + 1e-3 * whole[:, 0]
    fill(kept, {"tokens": whole}, shard_bytes=2**20, may_halve=["tokens"])
    assert torch.equal(kept.read(["tokens"])["tokens"].whole(), whole)


def test_one_shard_s_outlier_leaves_the_others_in_half_precision(tmp_path: Path) -> None:
    kept, whole = store(tmp_path), tensors()
    whole["tokens"][6, 0, 0] = 1e5
    fill(kept, whole, may_halve=["tokens"])
    read = kept.read(["tokens"])["tokens"]
    assert [part.dtype == torch.float32 for part in read.parts] == [k == 1 for k in range(6)]
    assert read.take(torch.tensor([6, 0]))[0, 0, 0] == 1e5


# -- trunks' features


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


def of_texts(
    features: TapFeatures, data: DataSet, *forms: Any, length: int = 16
) -> dict[str, Tensor]:
    """Features of the texts' second tap, over the training split."""
    asked = [Feature("text", 2, form) for form in forms]
    spec, shape = demo().encoder("small-bert"), demo().shapes["small-bert"]
    found = features.get(spec, shape, asked, data.split("train"), length)
    return {feature.form: rows.whole() for feature, rows in found.items()}


def test_the_size_of_shards_changes_no_feature(data: DataSet, tmp_path: Path) -> None:
    small, large = (
        taps(data, tmp_path / "small", shard_bytes=17_000),
        taps(data, tmp_path / "large"),
    )
    forms = ("cls", "mean", "tokens")
    ours, theirs = of_texts(small, data, *forms), of_texts(large, data, *forms)
    assert len(list(tmp_path.glob("small/**/*.safetensors"))) == 2 * 5
    assert len(list(tmp_path.glob("large/**/*.safetensors"))) == 2
    for form in forms:
        bound = 4e-3 if form == "tokens" else 1e-5
        assert (ours[form].float() - theirs[form].float()).abs().max() < bound
    pictures = of_pictures(small, data).whole() - of_pictures(large, data).whole()
    assert pictures.abs().max() < 1e-5


def test_tokens_are_a_text_s_own_and_zero_beyond_it(data: DataSet, tmp_path: Path) -> None:
    found = of_texts(taps(data, tmp_path), data, "tokens", "cls", "mean")
    spec = demo().encoder("small-bert")
    _, mask = Preprocessing(data, demo().shapes).text(spec, data.split("train"), 16)
    tokens, longest = found["tokens"].float(), mask.shape[1]
    assert tokens.shape == (PICTURES, 16, 64)
    assert torch.equal(tokens.abs().sum(2)[:, :longest] > 0, mask > 0)
    assert not tokens[:, longest:].any()
    assert (tokens[:, 0] - found["cls"]).abs().max() < 4e-3
    assert (tokens.sum(1) / mask.sum(1, keepdim=True) - found["mean"]).abs().max() < 4e-3


@pytest.mark.parametrize("form", ["cls", "tokens"])
@pytest.mark.parametrize(("first", "second"), [(9, 16), (16, 9)])
def test_only_texts_that_a_length_cuts_pass_the_trunk_again(
    data: DataSet, tmp_path: Path, form: str, first: int, second: int
) -> None:
    passed: list[int] = []

    def features(folder: Path) -> TapFeatures:
        found = taps(data, folder)
        found._progress = lambda what, done, total: passed.append(total)
        return found

    def read(found: TapFeatures, length: int) -> Tensor:
        return of_texts(found, data, form, length=length)[form].float()

    shared = features(tmp_path / "shared")
    read(shared, first)
    passed.clear()
    copied = read(shared, second)
    longest = demo().shapes["small-bert"].max_tokens
    spec = demo().encoder("small-bert")
    _, mask = Preprocessing(data, demo().shapes).text(spec, data.split("train"), longest)
    cut = int((mask.sum(1) > 9).sum())
    assert 0 < cut < PICTURES
    assert set(passed) == {cut}
    alone = read(features(tmp_path / "alone"), second)
    assert (copied - alone).abs().max() < (4e-3 if form == "tokens" else 1e-5)


def test_only_the_pictures_of_a_damaged_shard_pass_the_trunk_again(
    data: DataSet, tmp_path: Path
) -> None:
    before = of_pictures(taps(data, tmp_path), data).whole()
    file = next(tmp_path.glob("features/*/00001.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    overwrite(file, bytes(content))
    told: list[int] = []
    again = taps(data, tmp_path, progress=lambda _what, _done, most: told.append(most))
    assert torch.equal(of_pictures(again, data).whole(), before)
    assert told == [8], "one batch of the second shard"
    of_pictures(again, data)
    assert told == [8]


def test_features_of_other_trunks_under_this_name_are_made_again(
    data: DataSet, tmp_path: Path
) -> None:
    theirs = of_pictures(taps(data, tmp_path / "theirs", seed=1), data).whole()
    ours = of_pictures(taps(data, tmp_path / "ours"), data).whole()
    (kept,) = (tmp_path / "ours" / "features").glob("*/")
    (other,) = (tmp_path / "theirs" / "features").glob("*/")
    assert kept.name != other.name and (ours - theirs).abs().max() > 0.01
    shutil.rmtree(kept)
    shutil.copytree(other, kept)
    assert torch.equal(of_pictures(taps(data, tmp_path / "ours"), data).whole(), ours)


# -- workers


WORKER = "import sys; from tap_features import make_as_a_worker as w; w(*sys.argv[1:])"


def test_two_workers_make_the_same_features_once(tmp_path: Path) -> None:
    image_folder(tmp_path / "set")
    arguments = (tmp_path / "set", tmp_path / "home")
    with run_host(WORKER, *arguments) as one, run_host(WORKER, *arguments) as two:
        for worker in (one, two):
            assert worker.stdout and worker.stdout.readline() == "ready\n"
        said = [worker.communicate("\n" * 9)[0].splitlines() for worker in (one, two)]
    made = [line for lines in said for line in lines if line.startswith("made")]
    assert made == [f"made {done} {PICTURES}" for done in (8, 16, 17)]
    assert said[0][-1] == said[1][-1] != "" and said[0][-1].startswith("sum")


def test_a_worker_that_was_killed_leaves_its_whole_shards_to_the_next(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    with run_host(WORKER, tmp_path / "set", tmp_path / "home") as worker:
        assert worker.stdin and worker.stdout
        for line in ("ready", "made 8 17", "made 16 17"):
            assert worker.stdout.readline() == line + "\n"
            if line != "made 16 17":
                worker.stdin.write("\n")
                worker.stdin.flush()
        worker.kill()
    told: list[int] = []
    next_one = taps(data, tmp_path / "home", progress=lambda _what, _done, most: told.append(most))
    found = of_pictures(next_one, data).whole()
    assert told == [1], "sixteen were kept"
    assert torch.equal(found, of_pictures(taps(data, tmp_path / "anew"), data).whole())


# -- logits


def test_half_precision_changes_no_logit_of_a_trained_fusion_by_a_thousandth(
    shared: Path, tmp_path: Path
) -> None:
    weights = shared / "weights"
    space = load_space(
        "demo",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],
    )
    text, vision = space.text_encoders[0], space.vision_encoders[0]
    tweets = load(shared / "data" / "tweets", cache=tmp_path / "data")
    some = [*tweets.split("train")[:240], *tweets.split("valid")[:60]]
    tweets = replace(tweets, samples=tuple(some))
    evaluator = quality(tweets, tmp_path, replace(QUICK, fusion_pretrained=LONGER), space)
    points = (FusionPoint(4, 13, "cross-attention", 128),)
    genotype = Genotype(text, vision, 64, points)
    network = evaluator.trainer.trained(genotype)
    kept, whole = (
        predict(part, evaluator.trainer.inputs.examples(genotype, "valid", kept))
        for part, kept in ((network.fusion, True), (network, False))
    )
    assert (kept - whole).abs().max() < 1e-3
    assert kept.std(0).max() > 0.1, "or they would agree whatever was kept"
    forms = evaluator.trainer.inputs.kept(genotype, "valid")._features
    dtypes = {feature.modality: read.dtype for feature, read in forms.items()}
    # The first token of MiniLM's fourth layer varies by less than rounding may change.
    assert dtypes == {"text": torch.float32, "vision": torch.float16}
