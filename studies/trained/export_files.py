"""The files of an export beside its networks: predict.py, README, licences, checksums."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from types import ModuleType
from typing import Any

import numpy as np

from evaluators.cached_files import sha256_of
from evaluators.data import DataSet, Sample
from evaluators.data.media.waves import wav_bytes
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.preprocessing.graph import write_with_preprocessing
from evaluators.onnx.preprocessing.parity import compare
from evaluators.quality.exporter import NetworkExporter
from search_space.design.encoder import SOUND_HZ, EncoderSpec
from search_space.design.genotype import Genotype
from studies.results.outcome import SETS
from studies.results.text import SET_SCORES, ms
from studies.trained.predict import FILTERS, GRAPH, HOST, NETWORK
from studies.trained.split import readme_lines
from studies.trained.timing import TimingDevice, time_in_turns

PREDICT, README, REQUIREMENTS, SUMS = (
    "predict.py",
    "README.md",
    "requirements.txt",
    "SHA256SUMS",
)
NEEDED = {
    "onnxruntime>=1.23": None,
    "numpy>=2.0": None,
    "tokenizers>=0.22": "text",
    "pillow>=11": "vision",
}
"""Packages that predict.py needs, and the modality that needs each."""
EXAMPLE_TEXT = "an example of a text"
COMPARED_SAMPLES = 24
TIMED = 20
"""Predictions of the example that are timed."""
CLOSE = 1e-3
"""Greatest difference of prepared sounds, whose logarithms magnify rounding; pixels are equal."""
NOT_STATED = "not stated in its folder"
PREPARED = "with-preprocessing.onnx"
_FLAGS = {"text": "text", "vision": "image", "audio": "sound"}


def write_predictor(folder: Path, genotype: Genotype) -> None:
    """Write predict.py and requirements.txt."""
    copyfile(Path(__file__).with_name(PREDICT), folder / PREDICT)
    needed = [name for name, modality in NEEDED.items() if modality in (None, *genotype.encoders)]
    (folder / REQUIREMENTS).write_text("\n".join(needed) + "\n", encoding="utf-8")


def write_example(folder: Path, genotype: Genotype) -> dict[str, str]:
    """Write synthetic inputs of a design, and return them by modality: a text or a file name.

    They show the form of an input. Nothing of the data is given away.
    """
    found: dict[str, str] = {}
    if genotype.text_encoder:
        found["text"] = EXAMPLE_TEXT
    if genotype.vision_encoder:
        from PIL import Image

        y, x = np.mgrid[0:96, 0:128].astype(np.uint8)
        Image.fromarray(np.stack([2 * x, 2 * y, 255 - x - y], 2)).save(folder / "example.png")
        found["vision"] = "example.png"
    if genotype.audio_encoder:
        tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(2 * SOUND_HZ) / SOUND_HZ)
        (folder / "example.wav").write_bytes(wav_bytes(tone.astype(np.int16)))
        found["audio"] = "example.wav"
    return found


def example_inputs(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """The example of a card, as the arguments of predict.py."""
    given = card["example"]["inputs"]
    return {_FLAGS[m]: value if m == "text" else folder / value for m, value in given.items()}


def predictor_of(folder: Path) -> Any:
    """The module predict.py of a folder, as its users run it."""
    module, path = ModuleType("exported_predict"), folder / PREDICT
    module.__file__ = str(path)
    # Not by import, which would write __pycache__ into the folder.
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    return module


def pipeline_ms(predict: Any, folder: Path, example: Mapping[str, Any]) -> dict[str, Any]:
    """Time what predict.py, as `predictor_of` gives it, does with the example on this machine.

    Returns median and 95th percentile of each stage in milliseconds, and the machine: with inputs
    prepared before the graph, and if the folder has a graph with preprocessing, with that.
    """
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    found: dict[str, Any] = {"machine": machine}
    for key, where in (("ms", HOST), ("with_preprocessing_ms", None)):
        network = predict.Network(folder, prepare=where)
        if where is not None or network.prepare == GRAPH:
            found[key] = predict.quantiles(network.times_ms(**example, repeats=TIMED))
    return found


def write_prepared(
    folder: Path, network: Any, genotype: Genotype, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Write the graph with preprocessing, and return what the card says of it.

    Args:
        folder: of the export, with its network.
        network: of predict.py, whose inputs are prepared on the host.
        genotype: the design.
        samples: some of them are compared.

    Raises:
        ParityError: The graph prepares an input otherwise than training did.
    """
    rules = {m: network.card["preprocessing"][m] for m in ("vision", "audio")}
    filters = np.load(folder / FILTERS) if (folder / FILTERS).is_file() else None
    whole, file = folder / NETWORK, folder / PREPARED
    digest = write_with_preprocessing(whole, rules, filters, file)
    given = [_given(sample, genotype) for sample in _compared(samples, genotype)]
    rows = ((network.inputs(**each), network.inputs(**each, prepare=GRAPH)) for each in given)
    differences = compare(whole, file, rules, rows, "multi_label" in network.card)
    told = asdict(differences)
    if "multi_label" in network.card:
        told["multi_label"] = True
    return {"file": PREPARED, "sha256": digest, "differences": told}


def time_prepared(
    folder: Path, network: Any, genotype: Genotype, samples: Sequence[Sample], device: TimingDevice
) -> dict[str, Any]:
    """Time the graph with preprocessing and the network in turns on a device.

    The inputs have the extents of the sample whose picture, or without pictures whose sound, has
    the median size of the samples that `write_prepared` compares.

    Returns:
        The device, the extents by input, and median and 95 % interval of both graphs in ms.

    Raises:
        MeasureError: The device cannot run a graph, or no reading was stable.
    """
    main = "image" if "vision" in genotype.encoders else "sound"
    given = (_given(sample, genotype) for sample in _compared(samples, genotype))
    rows = [network.inputs(**each, prepare=GRAPH) for each in given]
    row = sorted(rows, key=lambda each: each[main].size)[len(rows) // 2]
    shapes = {name: list(row[name].shape) for name in ("image", "sound") if name in row}
    files = {"network": folder / NETWORK, "with_preprocessing": folder / PREPARED}
    readings = time_in_turns(device, files, {"with_preprocessing": shapes})
    return {
        "device": device.name,
        "device_fingerprint": device.fingerprint,
        "extents": shapes,
        **{
            f"{name}_ms": [found["median_ms"], *found["interval_ms"]]
            for name, found in readings.items()
        },
    }


def on_device(found: Mapping[str, Any]) -> str:
    """`9.1 ms (9.0 to 9.3) on orin for a picture of 480 x 640, the network alone 7.5 ms (...)`."""
    inside, alone = (
        "{} ms ({} to {})".format(*map(ms, found[f"{name}_ms"]))
        for name in ("with_preprocessing", "network")
    )
    of = []
    if image := found["extents"].get("image"):
        of.append(f"a picture of {image[1]} x {image[0]} pixels")
    if sound := found["extents"].get("sound"):
        of.append(f"a sound of {sound[0]} samples")
    return f"{inside} on {found['device']} for {' and '.join(of)}; the network alone {alone}"


def differences(card: Mapping[str, Any]) -> str:
    """In words, how far the graph with preprocessing is from the network."""
    found, said = card["differences"], []
    if found["pixel_levels"] is not None:
        said.append(
            f"pixels differ from Pillow's by at most {found['pixel_levels']:.0f} of 255 levels, "
            f"{100 * found['pixel_share']:.2g} % of them at all"
        )
    if found["sound"] is not None:
        said.append(f"prepared sounds by at most {found['sound']:.1e}")
    said.append(
        f"probabilities by at most {found['probability']:.1e}, logits by {found['logit']:.1e}"
    )
    answer = "set of classes" if "multi_label" in found else "class"
    said.append(f"another {answer} for {found['classes']} of {found['samples']} validation samples")
    return "; ".join(said)


def check_predictor(
    network: Any, exporter: NetworkExporter, genotype: Genotype, samples: Sequence[Sample]
) -> int:
    """Compare what predict.py feeds the graph with what training reads, for some samples.

    Returns how many were compared. Raises ParityError for the first that differs.
    """
    chosen = _compared(samples, genotype)
    for sample, row in zip(chosen, exporter.inputs(genotype, chosen), strict=True):
        own = network.inputs(**_given(sample, genotype))
        for (name, made), read in zip(own.items(), row, strict=True):
            expected = read.numpy()
            if name == "input_ids":  # padding has no meaning
                expected, made = (each * own["attention_mask"] for each in (expected, made))
            allowed = CLOSE if name == "input_values" else 0
            if made.shape != expected.shape or np.abs(made - expected).max() > allowed:
                raise ParityError(
                    f"predict.py prepares {name} of sample {sample.id} otherwise than training "
                    "did; nothing was written"
                )
    return len(chosen)


def _compared(samples: Sequence[Sample], genotype: Genotype) -> list[Sample]:
    """Up to COMPARED_SAMPLES samples that predict.py takes, spread over all."""
    chosen = [s for s in samples if not genotype.text_encoder or s.text.strip()]
    return chosen[:: max(1, -(-len(chosen) // COMPARED_SAMPLES))]


def _given(sample: Sample, genotype: Genotype) -> dict[str, Any]:
    found = {"text": sample.text, "vision": sample.image, "audio": sample.sound}
    return {_FLAGS[m]: value for m, value in found.items() if m in genotype.encoders}


def licences(data: DataSet, folder: Path | None, encoders: Sequence[EncoderSpec]) -> dict[str, str]:
    """Licences of what the network was made from, as far as their folders state them.

    `folder` is that of the data; None for a built-in set.
    """
    found = {"predict.py": "Apache-2.0", f"data {data.name}": _licence(folder)}
    if folder is None:
        found[f"data {data.name}"] = "Apache-2.0 (drawn by fusion-nas)"
    for spec in encoders:
        if spec.weights == "random":
            found[f"encoder {spec.name}"] = "no pretrained weights"
        else:
            found[f"encoder {spec.name}"] = _licence(Path(spec.source).expanduser())
    return found


def _licence(folder: Path | None) -> str:
    """The licence that a folder states: in its model card, in timm's settings, or as a file."""
    if folder is None or not folder.is_dir():
        return NOT_STATED
    card, settings = folder / "README.md", folder / "config.json"
    if card.is_file():
        head = re.match(
            r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S
        )
        stated = head and re.search(r"^license:\s*(\S+)", head[1], re.M)
        if stated:
            return stated[1]
    if settings.is_file():
        try:
            read = json.loads(settings.read_text(encoding="utf-8"))
            stated_here = read.get("pretrained_cfg", read).get("license")
        except (ValueError, AttributeError):
            stated_here = None
        if isinstance(stated_here, str) and stated_here:
            return stated_here
    for file in sorted((*folder.glob("LICEN[SC]E*"), *folder.glob("COPYING*"))):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        first = next((line.strip() for line in lines if line.strip()), "")
        return f"{first} ({file.name})"
    return NOT_STATED


def readme(card: Mapping[str, Any]) -> str:
    """The README of an export: three lines that run it, and its card for people."""
    valid, latency = card["valid"], card["latency"]
    lines = [f"# {card['name'] or 'Trial ' + str(card['trial'])} of study {card['study']}", ""]
    lines += [card["design"], ""]
    if card["predictor"]:
        lines += ["## Run it", "", *_run_lines(card), "", _about_inputs(card), ""]
        lines += [
            "`env/bin/python predict.py --check` verifies the checksums of all files and runs the "
            "example above. `from predict import Network` does the same as the command in Python.",
            "",
        ]
        if "multi_label" in card:
            lines += [
                f"The classes of an input are those of probability above "
                f"{card['multi_label']['threshold']:g}, which may be none: `*` marks them, and "
                "`Network.chosen` returns them for what `Network.predict` gives.",
                "",
            ]
    else:
        lines += ["## Inputs", "", f"No predict.py: {card['no_predictor']}.", ""]
    if card["split"]:
        lines += readme_lines(card["split"])
    if card["with_preprocessing"]:
        lines += _prepared_lines(card)
    lines += ["## Card", "", "| | |", "|---|---|"]
    rows = {
        "classes": classes_in_words(card),
        "data": f"{card['conditions'].get('data', '')}. {card['data']}",
        **set_scores(card),
        "accuracy on validation": _percent(valid.get("accuracy")),
        "accuracy of this file on validation": f"{card['exported_valid_accuracy']:.1f} %",
        "accuracy on test": _percent((card["test"] or {}).get("accuracy")) or card["test_note"],
        "latency": latency["words"],
        "whole pipeline": _pipeline(card["whole_pipeline"], "ms"),
        "whole pipeline with preprocessing in the graph": _pipeline(
            card["whole_pipeline"], "with_preprocessing_ms"
        ),
        "latency with preprocessing in the graph": _prepared_latency(card),
        "device": card["conditions"].get("device", ""),
        "runtime": card["conditions"].get("runtime", ""),
        "timing": card["conditions"].get("timing", ""),
        "training": card["conditions"].get("training", ""),
        "seeds": ", ".join(map(str, card["seeds"])),
        "difference from torch": f"{card['greatest_difference_from_torch']:.1e} of logits",
        **{f"licence: {what}": licence for what, licence in card["licences"].items()},
    }
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value]
    lines += ["", "`card.json` holds the same as values, `environment.txt` all versions.", ""]
    return "\n".join(lines)


def classes_in_words(card: Mapping[str, Any]) -> str:
    """The classes, and of multi-label data how a sample gets any number of them."""
    named = ", ".join(card["classes"])
    if "multi_label" not in card:
        return named
    return f"any number of {named}: those of probability above {card['multi_label']['threshold']:g}"


def set_scores(card: Mapping[str, Any]) -> dict[str, str]:
    """Rows about multi-label data: what accuracy is, and scores of sets of classes on test."""
    if "multi_label" not in card:
        return {}
    scores = (card["test"] or {}).get(SETS, {})
    return {
        "accuracy is": "subset accuracy: the share of samples of which every class is right",
        **{
            f"{words} on test": _percent(scores[name])
            for name, words in SET_SCORES.items()
            if name in scores
        },
    }


def _prepared_lines(card: Mapping[str, Any]) -> list[str]:
    """The section of a README about the graph with preprocessing."""
    rules, reads, stays = card["preprocessing"], [], []
    if rules["text"]:
        reads.append("`input_ids` and `attention_mask` as `network.onnx`")
        stays.append("tokenising texts")
    if rules["vision"]:
        reads.append("`image`, uint8 (height, width, 3), RGB, of any size")
        stays.append("decoding pictures (upright, transparency on white)")
    if rules["audio"]:
        hertz = rules["audio"]["hertz"]
        reads.append(f"`sound`, int16 (samples,), one channel at {hertz} Hz, of any length")
        stays.append("reading sounds")
    compared = differences(card["with_preprocessing"])
    return [
        "## Preprocessing in the graph",
        "",
        f"`{PREPARED}` is the network with the preparation of its inputs before it, for ONNX "
        f"Runtime. It reads {'; '.join(reads)}. Outside it stay {', '.join(stays)}. predict.py "
        f"uses it; `--prepare {HOST}` uses `{NETWORK}` with Pillow and numpy.",
        "",
        f"Compared with that: {compared}.",
        "",
    ]


def run_lines(text: str) -> list[str]:
    """The commands of a README, for whoever runs them."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def _run_lines(card: Mapping[str, Any]) -> list[str]:
    given = {m: f'"{v}"' if m == "text" else v for m, v in card["example"]["inputs"].items()}
    flags = " ".join(f"--{_FLAGS[m]} {value}" for m, value in given.items())
    return [
        "    python3 -m venv env",
        f"    env/bin/pip install -r {REQUIREMENTS}",
        f"    env/bin/python {PREDICT} {flags}",
    ]


def _about_inputs(card: Mapping[str, Any]) -> str:
    rule, said = card["preprocessing"], []
    if text := rule.get("text"):
        said.append(f"Texts are cut to {text['tokens']} tokens.")
    if vision := rule.get("vision"):
        said.append(f"Images are resized to {vision['size']} x {vision['size']} pixels.")
    if audio := rule.get("audio"):
        said.append(
            f"Sounds are WAV files of one channel, 16 bits, {audio['hertz']} Hz; the first "
            f"{audio['seconds']} s are read."
        )
    for absent, graph in card["without_a_modality"].items():
        said.append(f"`--without {absent}` runs {graph['file']}.")
    return " ".join(said)


def _pipeline(found: Mapping[str, Any] | None, key: str) -> str:
    """Medians of the stages of a prediction, and where they were measured."""
    if not found or key not in found:
        return ""
    said = ", ".join(f"{name} {ms['median']:.3g} ms" for name, ms in found[key].items())
    return f"{said}; predict.py with the example where it was exported ({found['machine']})"


def _prepared_latency(card: Mapping[str, Any]) -> str:
    found = (card["with_preprocessing"] or {}).get("on_device")
    return on_device(found) if found else ""


def _percent(value: Sequence[float | None] | None) -> str:
    if not value:
        return ""
    middle, low, high = (*value, None, None)[:3]
    return f"{middle:.1f} %" + ("" if low is None else f" (95 % interval {low:.1f} to {high:.1f})")


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def write_sums(folder: Path) -> None:
    """Write the checksums of all files of a folder, as `sha256sum --check` reads them."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
