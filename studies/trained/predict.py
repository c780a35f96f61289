#!/usr/bin/env python3
"""Run an exported network on a text, an image and a sound.

It lies beside the network that it runs, and needs onnxruntime, tokenizers (for text), pillow (for
images) and numpy alone. Inputs are prepared as they were for training; `card.json` says how.

    python predict.py --text "a sentence" --image picture.png

    from predict import Network
    Network().predict(text="a sentence", image="picture.png")

Of an export with `--split`, a picture that is asked about several times is encoded once:

    network = Network(keep=100)  # the last 100 encoded inputs, by content
    network.predict(text="a sentence", image="picture.png")
    network.predict(text="another sentence", image="picture.png")

    picture = network.encode(image="picture.png")  # or kept by the caller
    network.predict(text="a sentence", image=picture)

Of an export with `--with-preprocessing`, a graph resizes and normalises pictures and makes the
bands of sounds; without it, or with `--prepare host`, Pillow and numpy do. Pictures and sounds are
read from their files, and texts are tokenised, outside the graph.

What an inference takes from the sentence and the file to the answer, on the machine that runs this:

    python predict.py --text "a sentence" --image picture.png --time
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import time
import warnings
import wave
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FOLDER = Path(__file__).resolve().parent
CARD, SUMS, NETWORK = "card.json", "SHA256SUMS", "network.onnx"
FILTERS = "sound-filters.npy"
FLAGS = {"text": "text", "vision": "image", "audio": "sound"}
"""What each modality is called on the command line."""
STAGES = {"text": "tokenise", "vision": "decode and resize", "audio": "read the sound"}
"""What preparing each modality is called."""
DECODE = "decode"
"""What reading a picture is called where the graph resizes it."""
GRAPH, HOST = "graph", "host"
"""Where pictures and sounds are prepared: by the graph, or before it by Pillow and numpy."""
WARM_UP, REPEATS, MOST_REPEATS = 5, 50, 100_000
TOLERANCE = 1e-4
"""Greatest difference of the example's probabilities from those that were exported."""
MOST_PIXELS, MOST_JPEG_PIXELS = 64_000_000, 250_000_000
FULL_SCALE = 32_768


class InputError(ValueError):
    """An input or a file that cannot be used; the text says which and what to do."""


@dataclass(frozen=True)
class Encoded:
    """An input as its encoder gave it, for `Network.predict` instead of the input itself.

    Attributes:
        modality: text, vision or audio.
        encoder: SHA-256 of the encoder's file.
        tensors: what the fusion reads, by name.
    """

    modality: str
    encoder: str
    tensors: dict[str, npt.NDArray[Any]]


class Network:
    """One exported network.

    Attributes:
        card: the content of `card.json`.
        classes: names of the classes, in the order of the probabilities.
        multi_label: whether an input has any number of classes, not exactly one.
        threshold: of multi-label networks, the probability above which a class is given.
        reads: modalities that it reads, of text, vision and audio.
        prepare: where pictures and sounds are prepared: "graph" or "host".
        kept: encoded inputs by modality and content, the latest last.
    """

    def __init__(
        self,
        folder: str | Path = FOLDER,
        without: str | None = None,
        keep: int = 0,
        prepare: str | None = None,
    ) -> None:
        """Load the network of a folder.

        Args:
            folder: what `fusion-nas export` wrote.
            without: text, vision or audio: the graph that runs without it.
            keep: so many encoded inputs are kept, and an input of the same content is not encoded
                again; the network is then run by its parts, which `export --split` writes.
            prepare: "graph" or "host", where pictures and sounds are prepared. Default: by the
                graph if the export has one with preprocessing, and the whole network is run.

        Raises:
            InputError: A file is missing or altered, or there is no such graph.
        """
        self.folder = Path(folder)
        self.card: dict[str, Any] = json.loads(self.file(CARD).read_text(encoding="utf-8"))
        self.classes: tuple[str, ...] = tuple(self.card["classes"])
        self.multi_label = "multi_label" in self.card
        self.threshold = float(self.card.get("multi_label", {}).get("threshold", 0.5))
        modalities = [m for m in FLAGS if self.card["preprocessing"].get(m)]
        graph, digest = NETWORK, self.card["sha256"]
        if without is not None:
            graphs = self.card["without_a_modality"]
            if without not in graphs:
                there = ", ".join(graphs) or "none"
                raise InputError(f"no graph runs without {without}; there is one for: {there}")
            graph, digest = graphs[without]["file"], graphs[without]["sha256"]
            modalities.remove(without)
        self.prepare = self._where(prepare, without, keep)
        if self.prepare == GRAPH:
            graph, digest = (self.card["with_preprocessing"][key] for key in ("file", "sha256"))
        self.reads = tuple(modalities)
        self.absent = without
        path = self.file(graph)
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise InputError(f"{path}: not the file that was exported (checksum); export it again")
        self._sessions: dict[Path, Any] = {}
        self._path = path
        self._tokenizer: Any = None
        if keep < 0:
            raise InputError(f"keep {keep}: give 0 or more encoded inputs")
        self._keep = keep
        self.kept: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._parts: dict[str, dict[str, Any]] = {}
        if keep:
            self._load_parts()

    def predict(
        self,
        text: str | Encoded | None = None,
        image: str | Path | Encoded | None = None,
        sound: str | Path | Encoded | None = None,
    ) -> dict[str, float]:
        """Return the probability of each class; of a multi-label network each by itself.

        Args:
            text: a text that is not empty.
            image: an image file.
            sound: a WAV file of one channel, 16 bits, 16 kHz.

        Each may be what `encode` gave for it. Raises:
            InputError: An input is missing, empty, cannot be read, or is not read by the network.
        """
        given = {"text": text, "vision": image, "audio": sound}
        if self._keep or any(isinstance(value, Encoded) for value in given.values()):
            fed, path = self._encoded(given), self._part("fusion")
        else:
            self._check_read(given)
            fed, path = self._prepared(given, self.prepare), self._path
        logits = self._run(path, fed)["logits"][0].astype(np.float64)
        if self.multi_label:
            each = 0.5 * (1 + np.tanh(logits / 2))
            return dict(zip(self.classes, map(float, each), strict=True))
        weights = np.exp(logits - logits.max())
        return dict(zip(self.classes, map(float, weights / weights.sum()), strict=True))

    def chosen(self, probabilities: dict[str, float]) -> tuple[str, ...]:
        """Return the classes that an input has, by what `predict` returned for it.

        That is the most probable class; of a multi-label network those above the threshold, which
        may be none.
        """
        if self.multi_label:
            return tuple(name for name, p in probabilities.items() if p > self.threshold)
        return (max(probabilities, key=lambda name: probabilities[name]),)

    def times_ms(
        self,
        text: str | None = None,
        image: str | Path | None = None,
        sound: str | Path | None = None,
        repeats: int = REPEATS,
    ) -> dict[str, Floats]:
        """Time whole predictions, from the inputs as `predict` takes them to the logits.

        Args:
            text: a text that is not empty.
            image: an image file.
            sound: a WAV file, as in `predict`.
            repeats: predictions that are timed, after a few that are not.

        Returns:
            Milliseconds (repeats,) of each stage: preparing each input, "network" and "total".
            "network" includes the preprocessing that the graph does.

        Raises:
            InputError: As `predict` does, and for repeats outside 1 to 100,000.
        """
        if not 1 <= repeats <= MOST_REPEATS:
            raise InputError(f"--time {repeats}: give 1 to {MOST_REPEATS} repeats")
        given = {"text": text, "vision": image, "audio": sound}
        self.inputs(text, image, sound)  # errors and warnings, once
        found: dict[str, list[float]] = {}
        with contextlib.redirect_stderr(io.StringIO()):
            for number in range(WARM_UP + repeats):
                fed: dict[str, npt.NDArray[Any]] = {}
                ends = [time.perf_counter()]
                for modality in self.reads:
                    fed |= self._prepared({modality: given[modality]}, self.prepare)
                    ends.append(time.perf_counter())
                self._run(self._path, fed)
                ends.append(time.perf_counter())
                if number >= WARM_UP:
                    names = (*map(self._stage, self.reads), "network")
                    for name, taken in zip(names, np.diff(ends), strict=True):
                        found.setdefault(name, []).append(1000 * taken)
                    found.setdefault("total", []).append(1000 * (ends[-1] - ends[0]))
        return {name: np.array(times, np.float32) for name, times in found.items()}

    def encode(
        self,
        text: str | None = None,
        image: str | Path | None = None,
        sound: str | Path | None = None,
    ) -> Encoded:
        """Run the encoder of one input, and return what `predict` takes instead of the input.

        Raises InputError where not exactly one input is given, or it cannot be read.
        """
        every = {"text": text, "vision": image, "audio": sound}
        given = {modality: value for modality, value in every.items() if value is not None}
        if len(given) != 1:
            raise InputError("encode takes one input: a text, an image or a sound")
        (modality,) = given
        self._check_read(given, complete=False)
        path = self._part(FLAGS[modality])
        tensors = self._run(path, self._prepared(given, HOST))
        return Encoded(modality, self._parts[FLAGS[modality]]["sha256"], tensors)

    def _encoded(self, given: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """What the fusion reads of inputs, some of which may be encoded or kept."""
        self._check_read(given)
        fed: dict[str, npt.NDArray[Any]] = {}
        for modality, value in given.items():
            if value is None:
                continue
            self._part(FLAGS[modality])
            if isinstance(value, Encoded):
                expected = self._parts[FLAGS[modality]]["sha256"]
                if (value.modality, value.encoder) != (modality, expected):
                    raise InputError(
                        f"the encoded {FLAGS[value.modality]} is not from the {FLAGS[modality]} "
                        "encoder of this export: encode it again"
                    )
                fed |= value.tensors
            else:
                fed |= self._once(modality, value).tensors
        return fed

    def _once(self, modality: str, value: Any) -> Encoded:
        """The input encoded now, or kept from an earlier input of the same content."""
        if modality == "text":
            content = str(value).encode()
        else:
            path = Path(value).expanduser()
            if not path.is_file():
                raise InputError(f"{path}: there is no such {FLAGS[modality]}")
            content = path.read_bytes()
        key = modality, hashlib.sha256(content).hexdigest()
        if key not in self.kept:
            self.kept[key] = self.encode(**{FLAGS[modality]: value})
        self.kept.move_to_end(key)
        found = self.kept[key]
        while len(self.kept) > self._keep:
            self.kept.popitem(last=False)
        return found

    def _load_parts(self) -> None:
        if self.absent is not None:
            raise InputError(f"the graph without {self.absent} has no parts: leave one of them out")
        if not self.card.get("split"):
            raise InputError("the export has no parts: export it again with --split")
        self._parts = {part["name"]: part for part in self.card["split"]["parts"]}

    def _part(self, name: str) -> Path:
        """The file of a part, checked when it is first asked for."""
        if not self._parts:
            self._load_parts()
        part = self._parts[name]
        path = self.file(part["file"])
        if path in self._sessions:
            return path
        if hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
            raise InputError(f"{path}: not the file that was exported (checksum); export it again")
        return path

    def _run(self, path: Path, fed: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        session = self._opened(path)
        names = [entry.name for entry in session.get_outputs()]
        read = {entry.name: fed[entry.name] for entry in session.get_inputs()}
        return dict(zip(names, session.run(names, read), strict=True))

    def inputs(
        self,
        text: str | None = None,
        image: str | Path | None = None,
        sound: str | Path | None = None,
        prepare: str | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Return what the graph reads, by input name, of batch 1.

        Args:
            text: a text that is not empty.
            image: an image file.
            sound: a WAV file, as in `predict`.
            prepare: "graph" or "host", as for `Network`. Default: as this network does.

        Raises InputError.
        """
        given = {"text": text, "vision": image, "audio": sound}
        self._check_read(given)
        return self._prepared(given, prepare or self.prepare)

    def _where(self, prepare: str | None, without: str | None, keep: int) -> str:
        """Where pictures and sounds are prepared. Raises InputError."""
        has_graph = bool(self.card.get("with_preprocessing"))
        if prepare is None:
            return GRAPH if has_graph and without is None and not keep else HOST
        if prepare not in (GRAPH, HOST):
            raise InputError(f"prepare {prepare}: give {GRAPH} or {HOST}")
        if prepare == HOST:
            return HOST
        if without is not None or keep:
            other = f"without {without}" if without is not None else "in parts"
            raise InputError(f"no graph {other} prepares its inputs: prepare them on the {HOST}")
        if not has_graph:
            raise InputError(
                "the export has no graph with preprocessing: export it again with "
                "--with-preprocessing"
            )
        return GRAPH

    def _stage(self, modality: str) -> str:
        is_decoded = modality == "vision" and self.prepare == GRAPH
        return DECODE if is_decoded else STAGES[modality]

    def _check_read(self, given: dict[str, Any], complete: bool = True) -> None:
        """Raises InputError for an input that is not read, or of a complete set one that lacks."""
        for modality in FLAGS:
            flag, value = FLAGS[modality], given.get(modality)
            if value is None and modality in self.reads and complete:
                raise InputError(
                    f"the network reads {flag}: give --{flag}{self._instead(modality)}"
                )
            if value is not None and modality not in self.reads:
                raise InputError(f"the network reads no {flag} here: leave --{flag} out")

    def _prepared(self, given: dict[str, Any], where: str) -> dict[str, npt.NDArray[Any]]:
        """What a graph reads of inputs that are prepared by the graph or on the host."""
        fed: dict[str, npt.NDArray[Any]] = {}
        if given.get("text") is not None:
            fed["input_ids"], fed["attention_mask"] = self._ids(given["text"])
        if given.get("vision") is not None:
            path = Path(given["vision"]).expanduser()
            if where == GRAPH:
                fed["image"] = _decoded(path)
            else:
                fed["pixel_values"] = self._pixels(path)
        if given.get("audio") is not None:
            path = Path(given["audio"]).expanduser()
            if where == GRAPH:
                fed["sound"] = _samples(path, self.card["preprocessing"]["audio"]["hertz"])
            else:
                fed["input_values"] = self._sound(path)
        return fed

    def _instead(self, modality: str) -> str:
        graphs = self.card["without_a_modality"]
        if self.absent is not None or modality not in graphs:
            return ""
        return f", or --without {modality} to run {graphs[modality]['file']}"

    def file(self, name: str) -> Path:
        """The path of a file of the folder. Raises InputError where it is missing."""
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing; it belongs to the export, export it again")
        return path

    def _opened(self, path: Path) -> Any:
        if path not in self._sessions:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            providers = ["CPUExecutionProvider"]
            self._sessions[path] = onnxruntime.InferenceSession(str(path), options, providers)
        return self._sessions[path]

    def _ids(self, text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids and mask, (1, L) each, cut and padded to the length of the graph."""
        if not text.strip():
            raise InputError(f"--text is empty: give a text{self._instead('text')}")
        rule = self.card["preprocessing"]["text"]
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.file("tokenizer.json")))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(rule["tokens"])
        found = self._tokenizer.encode(text)
        if found.overflowing:
            print(f"predict.py: the text is cut to {rule['tokens']} tokens", file=sys.stderr)
        ids, length = found.ids, rule["tokens"] if rule["padded"] else len(found.ids)
        row = np.full((1, length), rule["pad_id"], np.int64)
        mask = np.zeros((1, length), np.int64)
        row[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        return row, mask

    def _pixels(self, path: Path) -> Floats:
        """(1, 3, S, S): upright, on white, resized to a square, 0..1, normalised by channel."""
        rule = self.card["preprocessing"]["vision"]
        pixels = _decoded(path, rule["size"]).transpose(2, 0, 1)[None]
        mean, std = (np.array(rule[k], np.float32).reshape(1, 3, 1, 1) for k in ("mean", "std"))
        values: Floats = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values)

    def _sound(self, path: Path) -> Floats:
        """The sound as its encoder reads it, cut or ended in silence."""
        rule = self.card["preprocessing"]["audio"]
        samples = _samples(path, rule["hertz"])[: rule["seconds"] * rule["hertz"]]
        waveform = samples.astype(np.float32) / np.float32(FULL_SCALE)
        if rule["kind"] == "log-mel":
            values = _log_mel(waveform, rule, np.load(self.file(FILTERS)))
        else:
            values = waveform
            if rule["normalised"]:
                values = (values - values.mean()) / np.sqrt(values.var() + 1e-7)
        lacking = [(0, all_ - have) for all_, have in zip(rule["size"], values.shape, strict=True)]
        return np.pad(values, lacking).astype(np.float32)[None]


def check(folder: Path = FOLDER) -> str:
    """Verify every checksum, and run the example that was exported.

    Returns what was found, in words. Raises InputError for the first file that differs, and for
    other probabilities than those of `card.json`.
    """
    network = Network(folder)
    lines = network.file(SUMS).read_text(encoding="utf-8").splitlines()
    for line in lines:
        digest, name = line.split("  ", 1)
        if hashlib.sha256(network.file(name).read_bytes()).hexdigest() != digest:
            raise InputError(f"{folder / name}: not the file that was exported; export it again")
    example = network.card["example"]
    given = {
        FLAGS[modality]: value if modality == "text" else folder / value
        for modality, value in example["inputs"].items()
    }
    expected = example["probabilities"]
    runs = [(Network(folder, prepare=HOST).predict(**given), expected)]
    if network.card.get("split"):
        runs.append((Network(folder, keep=len(given)).predict(**given), expected))
    if inside := network.card.get("with_preprocessing"):
        runs.append((network.predict(**given), inside["probabilities"]))
    apart = max(abs(found[name] - was[name]) for found, was in runs for name in expected)
    if apart > TOLERANCE:
        raise InputError(
            f"the example gives probabilities that differ by {apart:.1e} from those that were "
            f"exported ({TOLERANCE:g} is allowed): use another version of onnxruntime"
        )
    return f"{len(lines)} files as exported; the example differs by {apart:.1e}"


def _decoded(path: Path, size: int | None = None) -> npt.NDArray[np.uint8]:
    """The picture upright as (H, W, 3) RGB, resized to (size, size, 3) if asked. InputError."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = MOST_JPEG_PIXELS // 2
    if not path.is_file():
        raise InputError(f"{path}: there is no such image")
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore")
            if (pixels := opened.width * opened.height) > MOST_PIXELS:
                fitting = [k for k in (2, 4, 8) if pixels <= MOST_PIXELS * k**2]
                whole = opened.format != "JPEG" or opened.info.get("progressive")
                if whole or not fitting or pixels > MOST_JPEG_PIXELS:
                    raise InputError(f"{path}: {pixels / 1e6:.0f} million pixels are too many")
                opened.draft("RGB", (opened.width // fitting[0], opened.height // fitting[0]))
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            picture = _rgb(opened)
            if size is not None:
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    except InputError:
        raise
    except Exception as error:  # decoders raise many types on damaged bytes
        raise InputError(f"{path}: not a readable image ({error})") from error
    return np.asarray(picture, dtype=np.uint8)


def _rgb(picture: Any) -> Any:
    from PIL import Image

    if picture.mode.startswith(("I;16", "I")):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")


def _samples(path: Path, hertz: int) -> npt.NDArray[np.int16]:
    """A WAV file (N,) of 16 bits. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such sound")
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise InputError(f"{path}: not a readable WAV file ({error})") from error
    if form != (1, 16, hertz):
        raise InputError(
            f"{path}: {form[0]} channels of {form[1]} bits at {form[2]} Hz, where one of 16 bits "
            f"at {hertz} Hz is read: ffmpeg -i {path.name} -ac 1 -ar {hertz} -c:a pcm_s16le new.wav"
        )
    if len(content) < 2:
        raise InputError(f"{path}: holds no sound")
    return np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.int16, copy=False)


def _log_mel(waveform: Floats, rule: dict[str, Any], filters: Floats) -> Floats:
    """Log-mel bands of a waveform in the manner of Whisper, of `rule["size"]`."""
    window, hop, fft = rule["window"], rule["hop"], rule["fft"]
    padded = np.zeros(rule["samples"], np.float32)
    padded[: len(waveform)] = waveform
    padded = np.pad(padded, fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
    frames = frames[: rule["size"][-1]]
    hann = np.zeros(fft)
    start = (fft - window) // 2
    hann[start : start + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = np.fft.rfft(frames * hann.astype(np.float32))
    power = (np.abs(spectrum) ** 2).astype(np.float32).T
    bands = np.log10(np.maximum(filters @ power, rule["floor"]))
    bands = np.maximum(bands, bands.max() - rule["range"])
    half = rule["range"] / 2
    shaped: Floats = ((bands + half) / half).reshape(rule["size"])
    return shaped


def quantiles(times: dict[str, Floats]) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of each stage, in milliseconds."""
    return {
        name: {"median": float(np.median(ms)), "p95": float(np.quantile(ms, 0.95))}
        for name, ms in times.items()
    }


def _show_times(stages: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ms": stages}))
        return
    widest = max(map(len, stages))
    for name, ms in stages.items():
        print(f"{name.ljust(widest)}  {ms['median']:9.3f} ms   p95 {ms['p95']:9.3f} ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the exported network of this folder.")
    parser.add_argument("--text", help="a text")
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--sound", help="a WAV file of one channel, 16 bits, 16 kHz")
    parser.add_argument("--without", choices=tuple(FLAGS), help="run the graph without a modality")
    parser.add_argument("--split", action="store_true", help="run the parts, not network.onnx")
    parser.add_argument(
        "--prepare",
        choices=(GRAPH, HOST),
        help="prepare images and sounds in the graph or on the host; default: in the graph, if "
        "the export has one that does",
    )
    parser.add_argument(
        "--time",
        type=int,
        nargs="?",
        const=REPEATS,
        metavar="REPEATS",
        help=f"time each stage of a prediction; {REPEATS} repeats if no number is given",
    )
    parser.add_argument("--check", action="store_true", help="verify checksums and the example")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        if given.check:
            print(check())
            return 0
        if given.time is not None and given.split:
            raise InputError("--time runs network.onnx whole: leave --split out")
        keep = len(FLAGS) if given.split else 0
        network = Network(without=given.without, keep=keep, prepare=given.prepare)
        if given.time is not None:
            times = network.times_ms(given.text, given.image, given.sound, given.time)
            _show_times(quantiles(times), given.json)
            return 0
        found = network.predict(given.text, given.image, given.sound)
    except InputError as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 2
    chosen = network.chosen(found) if network.multi_label else ()
    if given.json:
        told = {"classes": chosen, "probabilities": found} if network.multi_label else found
        print(json.dumps(told))
        return 0
    widest = max(map(len, found))
    for name, probability in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{name.ljust(widest)}  {probability:.4f}{' *' if name in chosen else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
