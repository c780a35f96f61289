"""What preparing inputs in the graph changes, and what it saves: an exported folder on test data.

    fusion-nas export 17 --with-preprocessing
    python benchmarks/preprocessing.py export-17 ../shared/data/tweets

For each sample of the test split `predict.py` runs `network.onnx` on inputs that Pillow and numpy
prepared, and `with-preprocessing.onnx`. Prints one JSON object: differences of pixels in levels of
255, of sounds, logits and probabilities, accuracies, and milliseconds of each stage for the first
samples, in turns. `--out FILE` keeps it.
"""

import argparse
import csv
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from main_job import machine, show  # noqa: E402

from evaluators.data.media.clip_sound import sound_wav  # noqa: E402
from evaluators.onnx.preprocessing.parity import compare  # noqa: E402
from studies.trained.export_files import predictor_of  # noqa: E402

TIMED, REPEATS = 20, 5


def given(folder: Path, row: dict[str, str], reads: set[str], sounds: Path) -> dict[str, Any]:
    """The inputs of one row, as predict.py takes them."""
    found: dict[str, Any] = {}
    if "text" in reads:
        found["text"] = row["text"]
    if "vision" in reads:
        files = [folder / "images" / f"{row['id']}{end}" for end in (".png", ".jpg")]
        found["image"] = next(file for file in files if file.is_file())
    if "audio" in reads:
        found["sound"] = as_read(folder / "sounds" / f"{row['id']}.wav", sounds)
    return found


def as_read(file: Path, sounds: Path) -> Path:
    """A sound as a file of one channel, 16 kHz and 16 bits, which predict.py asks for."""
    made = sounds / file.name
    if not made.is_file():
        made.write_bytes(sound_wav(file))
    return made


def main() -> None:
    """Compare one exported folder's two ways on one data folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sounds", type=Path, default=Path("sounds-16k"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--samples", type=int, help="the first of the test split; all if left out")
    asked = parser.parse_args()
    predict = predictor_of(asked.export)
    ways = {way: predict.Network(asked.export, prepare=way) for way in ("host", "graph")}
    graph, card = ways["graph"], ways["graph"].card
    asked.sounds.mkdir(exist_ok=True)
    with open(asked.data / "label.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "test"]
    rows = rows[: asked.samples]
    inputs = [given(asked.data, row, set(graph.reads), asked.sounds) for row in rows]
    rules = {m: card["preprocessing"][m] for m in ("vision", "audio")}
    found = compare(
        asked.export / predict.NETWORK,
        asked.export / card["with_preprocessing"]["file"],
        rules,
        ((ways["host"].inputs(**each), graph.inputs(**each)) for each in inputs),
    )
    right = dict.fromkeys(ways, 0)
    times: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for number, (row, each) in enumerate(zip(rows, inputs, strict=True)):
        for way, network in ways.items():
            odds = network.predict(**each)
            right[way] += max(odds, key=odds.__getitem__) == row["label"]
            if number < TIMED:
                for stage, taken in network.times_ms(**each, repeats=REPEATS).items():
                    times[way].setdefault(stage, []).extend(map(float, taken))
    show(
        {
            "benchmark": "preprocessing in the graph against Pillow and numpy",
            "data": asked.data.name,
            "design": card["design"],
            "differences": asdict(found),
            "test_accuracy": {way: 100 * count / len(rows) for way, count in right.items()},
            "median_ms": {
                way: {stage: float(np.median(taken)) for stage, taken in stages.items()}
                for way, stages in times.items()
            },
            "machine": machine(),
        },
        asked.out,
    )


if __name__ == "__main__":
    main()
