"""The sound of a sample: of its own file or of its clip, taken once and kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from clip_data import film, sounding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluators.data import DataError, DataSet, Modality, check, load, read_sound
from evaluators.data.layouts.meld import CLIP_FOLDERS, FILES
from evaluators.data.media.clip_sound import clip_sound, sound_wav
from evaluators.data.media.waves import Wave, wav_bytes
from evaluators.data.samples import SPLITS
from search_space.design.encoder import SOUND_HZ

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[3] / ".." / "shared")
REAL = SHARED / "data" / "mosi" / "Raw" / "Oz06ZWiO20M" / "6.mp4"
THREE: tuple[Modality, ...] = ("text", "vision", "audio")
HEARD: tuple[Modality, ...] = ("text", "audio")
MODES = ("train", "train", "valid", "test")


def pitch(sound: Wave | np.ndarray) -> float:
    """The strongest frequency of a sound at 16 kHz, in Hz."""
    spectrum = np.abs(np.fft.rfft(np.asarray(sound, float) * np.hanning(len(sound))))
    return float(spectrum.argmax() * SOUND_HZ / len(sound))


def clip_folder(root: Path) -> Path:
    """Four clips in MOSI's layout; that of video n sounds at 300 + 100 n Hz."""
    rows = [f"v{n},1,text {n},{n % 2 * 2 - 1.5},,{mode}" for n, mode in enumerate(MODES)]
    root.mkdir(parents=True)
    header = "video_id,clip_id,text,label,annotation,mode"
    (root / "label.csv").write_text("\n".join([header, *rows]))
    for n in range(4):
        sounding(root / "Raw" / f"v{n}" / "1.mp4", 300 + 100 * n, frames=5)
    return root


def loaded(
    root: Path, modalities: tuple[Modality, ...] = THREE, accept_faults: bool = False
) -> DataSet:
    cache = root.parent / "cache"
    return load(root, cache=cache, modalities=modalities, accept_faults=accept_faults)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.mp4", "aac", 44_100, "stereo"),
        ("a.m4a", "aac", 48_000, "mono"),
        ("a.flac", "flac", 44_100, "stereo"),
        ("a.mp3", "libmp3lame", 44_100, "stereo"),
        ("a.ogg", "libopus", 48_000, "stereo"),
        ("a.wav", "pcm_s16le", 8_000, "mono"),
        ("a.wav", "pcm_f32le", 22_050, "stereo"),
    ],
)
def test_any_sound_comes_out_as_it_sounds_in_one_channel_at_16_khz(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    sound = clip_sound(sounding(tmp_path / name, 440, 2.0, rate, layout, codec))
    assert sound.dtype == np.int16 and sound.ndim == 1
    assert abs(len(sound) / SOUND_HZ - 2.0) < 0.07  # encoders pad with a frame or two
    assert abs(pitch(sound) - 440) < 1
    assert 12_000 < np.abs(sound[4000:-4000]).max() < 18_000


def test_channels_are_mixed_and_none_is_left_out(tmp_path: Path) -> None:
    mono = clip_sound(sounding(tmp_path / "a.flac", layout="mono", codec="flac"))
    stereo = clip_sound(sounding(tmp_path / "b.flac", layout="stereo", codec="flac"))
    assert np.abs(mono.astype(int) - stereo).max() <= 1


@pytest.mark.skipif(not REAL.is_file(), reason=f"no CMU-MOSI clip at {REAL}")
def test_the_sound_of_a_real_clip_is_as_long_as_the_clip() -> None:
    sound = clip_sound(REAL)
    # Its audio stream holds 328,149 samples at 44.1 kHz, 60 ms less than its 225 pictures last.
    assert abs(len(sound) / SOUND_HZ - 328_149 / 44_100) < 1024 / 44_100
    assert abs(len(sound) / SOUND_HZ - 7.5) < 0.1
    assert 0.01 < np.sqrt(np.mean((sound / 32768) ** 2)) < 0.5


def test_samples_have_their_sounds_and_pictures(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    data = loaded(root)
    assert data.modalities == THREE and not data.faults
    assert data.note.startswith("One middle frame and the sound of each clip;")
    for n, sample in enumerate(data.samples):
        assert sample.sound is not None and sample.image is not None
        assert sample.sound.parent == tmp_path / "cache" / "sounds" / "mono-16k-1"
        sound = read_sound(sample)
        assert sound.dtype == np.float32 and 0.4 < np.abs(sound).max() < 0.6
        assert abs(pitch(sound) - (300 + 100 * n)) < 2
        assert (read_sound(sample.sound) == sound).all()


@pytest.mark.parametrize("modalities", [("text", "audio"), ("vision", "audio"), ("audio",)])
def test_sound_is_read_with_or_without_pictures(
    tmp_path: Path, modalities: tuple[Modality, ...]
) -> None:
    data = loaded(clip_folder(tmp_path / "set"), modalities)
    assert data.modalities == modalities
    assert all((s.image is not None) == ("vision" in modalities) for s in data.samples)
    assert all(s.sound is not None and s.text for s in data.samples)
    assert (tmp_path / "cache" / "frames").is_dir() == ("vision" in modalities)


def test_where_no_sound_is_asked_for_none_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = clip_folder(tmp_path / "set")
    monkeypatch.setattr("evaluators.data.media.sounds.Sounds.find", None)
    data = load(root, cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "sounds").exists()
    with pytest.raises(DataError, match=r"v0/1: the data were read without sound; load them with"):
        read_sound(data.samples[0])


def test_the_fingerprint_follows_the_sound_where_it_is_read_and_only_there(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    both, three = loaded(root, ("text", "vision")), loaded(root)
    texts, heard = loaded(root, ("text",)), loaded(root, HEARD)
    assert len({data.fingerprint for data in (both, three, texts, heard)}) == 4
    sounding(root / "Sounds" / "v1" / "1.flac", 880, codec="flac")
    assert loaded(root, ("text", "vision")).fingerprint == both.fingerprint
    assert loaded(root, ("text",)).fingerprint == texts.fingerprint
    assert loaded(root).fingerprint != three.fingerprint
    assert loaded(root, HEARD).fingerprint != heard.fingerprint
    moved = shutil.copytree(root, tmp_path / "moved")
    assert loaded(moved).fingerprint == loaded(root).fingerprint


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [(".flac", "flac", 44_100), (".mp3", "libmp3lame", 44_100), (".M4A", "aac", 44_100)],
)
def test_a_file_of_its_own_is_preferred_to_the_clip_and_decoded_once(
    tmp_path: Path, suffix: str, codec: str, rate: int
) -> None:
    root = clip_folder(tmp_path / "set")
    made = sounding(tmp_path / f"made{suffix.lower()}", 880, rate=rate, codec=codec)
    (root / "Sounds" / "v1").mkdir(parents=True)
    made.rename(root / "Sounds" / "v1" / f"1{suffix}")
    sample = loaded(root).samples[1]
    assert abs(pitch(read_sound(sample)) - 880) < 2
    assert sample.recording.parent == tmp_path / "cache" / "sounds" / "mono-16k-1"


def test_a_wav_file_of_the_form_that_is_read_is_used_where_it_lies(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    own = root / "Sounds" / "v1" / "1.wav"
    sounding(own, 880, rate=SOUND_HZ, layout="mono", codec="pcm_s16le")
    assert loaded(root).samples[1].sound == own
    own.write_bytes(own.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"v1/1: label.csv row 3: .*1\.wav: holds .* replace"):
        loaded(root)


def test_a_clip_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = clip_folder(tmp_path / "set")
    decoded: list[str] = []

    def counting(path: Path) -> bytes:
        decoded.append(path.parent.name)
        if decoded == ["v0", "v1"]:
            raise KeyboardInterrupt
        return sound_wav(path)

    monkeypatch.setattr("evaluators.data.media.sounds.sound_wav", counting)
    with pytest.raises(KeyboardInterrupt):
        loaded(root)
    assert loaded(root) == loaded(root)
    assert loaded(shutil.copytree(root, tmp_path / "moved")).faults == ()
    assert decoded == ["v0", "v1", "v1", "v2", "v3"]
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


@pytest.mark.parametrize("kind", ["half", "short", "empty", "zeros"])
def test_a_damaged_kept_sound_is_named_and_made_again(tmp_path: Path, kind: str) -> None:
    root = clip_folder(tmp_path / "set")
    first = loaded(root)
    sound = first.samples[1].recording
    whole = sound.read_bytes()
    torn = {"half": whole[:9000], "short": whole[:-1], "empty": b"", "zeros": bytes(len(whole))}
    sound.write_bytes(torn[kind])
    again = loaded(root)
    (said,) = again.mended
    assert said == (
        f"label.csv row 3: v1/1: the stored sound {sound} was not whole and has been made again "
        "from its clip"
    )
    assert again == first and sound.read_bytes() == whole
    assert not loaded(root).mended


def test_clips_without_a_usable_sound_are_a_fault_each(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    with open(root / "label.csv", "a") as file:
        file.write("".join(f"\nv1,{n},more,0.5,,train" for n in range(2, 6)))
    raw = root / "Raw" / "v1"
    film(raw / "2.mp4")  # pictures alone
    whole = sounding(raw / "3.mp4", seconds=4, frames=20).read_bytes()
    (raw / "3.mp4").write_bytes(whole[:-9000])  # breaks off after its pictures
    sounding(raw / "4.mp4", seconds=0, frames=5)
    found = check(root, cache=tmp_path / "cache", modalities=THREE)
    assert [fault.kind for fault in found.faults if fault.kind != "picture"] == ["sound"] * 4
    said = {fault.text.split(":")[0]: fault.text for fault in found.faults if fault.kind == "sound"}
    assert said["v1/2"] == (
        f"v1/2: label.csv row 6: {raw / '2.mp4'}: no usable sound (it has no audio stream); "
        "replace the file, or add Sounds/v1/2.wav"
    )
    assert "v1/3: label.csv row 7" in said["v1/3"] and "no usable sound" in said["v1/3"]
    assert "no usable sound" in said["v1/4"]
    assert "no Sounds/v1/5 with any of .wav, .flac, .mp3" in said["v1/5"]
    assert said["v1/5"].endswith("and no Raw/v1/5.mp4")
    with pytest.raises(DataError, match=r"4 rows without a usable sound \(8 rows in all\)") as told:
        loaded(root, HEARD)
    advice = str(told.value).splitlines()[-1]
    assert "leave sounds out with --modality" in advice and "pictures" not in advice
    assert "--accept-faults (rows without a sound are then left out)" in advice
    data = loaded(root, HEARD, accept_faults=True)
    assert [sample.id for sample in data.samples] == ["v0/1", "v1/1", "v2/1", "v3/1"]
    assert "4 of 8 rows left out for want of a usable sound" in data.note


def test_a_row_that_lacks_picture_and_sound_is_two_faults_and_left_out_once(
    tmp_path: Path,
) -> None:
    root = clip_folder(tmp_path / "set")
    with open(root / "label.csv", "a") as file:
        file.write("\nv0,2,more,0.5,,train")
    data = loaded(root, accept_faults=True)
    assert [fault.kind for fault in data.faults] == ["picture", "sound"]
    assert [item.id for item in data.dropped] == ["v0/2"]
    assert "no Frames/v0/2" in data.dropped[0].why and "no Sounds/v0/2" in data.dropped[0].why
    assert "1 of 5 rows left out for want of a usable picture or sound" in data.note


def test_silence_is_no_fault(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    (root / "Sounds" / "v0").mkdir(parents=True)
    (root / "Sounds" / "v0" / "1.wav").write_bytes(wav_bytes(np.zeros(8000, np.int16)))
    sounding(root / "Raw" / "v1" / "1.mp4", 0, frames=5)
    data = loaded(root)
    assert not data.faults
    assert not read_sound(data.samples[0]).any() and not read_sound(data.samples[1]).any()


def test_in_melds_layout_sounds_come_from_clips_or_their_own_folder(tmp_path: Path) -> None:
    root = tmp_path / "meld"
    root.mkdir()
    for split, sentiments in zip(
        SPLITS, (("negative", "neutral", "positive"), ("neutral",) * 2, ("positive",)), strict=True
    ):
        lines = [f"Hey,{sentiment},0,{n}" for n, sentiment in enumerate(sentiments)]
        header = "Utterance,Sentiment,Dialogue_ID,Utterance_ID"
        (root / FILES[split]).write_text("\n".join([header, *lines]))
        for n in range(len(sentiments)):
            clip = root / CLIP_FOLDERS[split] / f"dia0_utt{n}.mp4"
            sounding(clip, 300 + 100 * n, frames=5)
    sounding(root / "Sounds" / "valid" / "dia0_utt1.wav", 880, codec="pcm_s16le")
    data = loaded(root, accept_faults=True)
    assert not [fault for fault in data.faults if fault.kind == "sound"]
    heard = [round(pitch(read_sound(sample)), -1) for sample in data.samples]
    assert heard == [300, 400, 500, 300, 880, 300]


def test_in_a_folder_of_images_sounds_go_by_the_id_of_the_row(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    rows = [f"{n},a{n // 2},text {n},{'no' if n % 2 else 'yes'},{m}" for n, m in enumerate(MODES)]
    rows[3] = rows[3].replace("a1", "a2")
    (root / "label.csv").write_text("\n".join(["id,image,text,label,mode", *rows]))
    for n in range(4):
        Image.new("RGB", (8, 6)).save(root / "images" / f"a{n}.png")
        sounding(root / "sounds" / f"{n}.ogg", 300 + 100 * n, rate=48_000, codec="libopus")
    data = loaded(root)
    assert data.note.startswith("One image, one sound and one text per sample, 2 classes")
    heard = [round(pitch(read_sound(sample)), -1) for sample in data.samples]
    assert heard == [300, 400, 500, 600]
    (root / "sounds" / "2.ogg").unlink()
    with pytest.raises(DataError, match=r"row 4: no sounds/2 with any of \.wav, \.flac"):
        loaded(root)


def test_where_no_sound_is_at_all_the_folders_for_it_are_named(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    shutil.rmtree(root / "Raw")
    with pytest.raises(DataError, match="there is no folder Raw or Sounds in it; put the files"):
        loaded(root, HEARD)


def test_a_full_disk_is_not_taken_for_clips_without_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("evaluators.data.layouts.finding.write_cached", full)
    with pytest.raises(DataError, match=r"cache.*cannot be written .*No space left"):
        loaded(clip_folder(tmp_path / "set"), HEARD, accept_faults=True)


def test_reading_names_a_file_that_is_missing_or_of_another_form(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav: there is no such sound"):
        read_sound(tmp_path / "gone.wav")
    stereo = sounding(tmp_path / "a.wav", codec="pcm_s16le")
    with pytest.raises(DataError, match=r"a\.wav: 2 channels of 16 bits at 44,100 Hz, where one"):
        read_sound(stereo)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav: not a readable sound"):
        read_sound(tmp_path / "b.wav")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([b"", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"ID3", b"OggS"]), st.binary())
def test_arbitrary_bytes_are_a_sound_or_a_data_error(
    tmp_path: Path, start: bytes, rest: bytes
) -> None:
    (tmp_path / "a").write_bytes(start + rest)
    for read in (clip_sound, read_sound):
        try:
            read(tmp_path / "a")
        except DataError as error:
            assert str(tmp_path / "a") in str(error)
