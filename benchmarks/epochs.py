"""Seconds of one training epoch of each of the paper's nine designs, and the share spent waiting.

    python benchmarks/epochs.py                 at full size, where there is a CUDA card
    python benchmarks/epochs.py --compiled      the same with compiled transformer layers
    python benchmarks/epochs.py --small         the built-in small encoders, also on a CPU

Prints one JSON object; `--out FILE` keeps it. Weights are random, data the faces set (CMU-MOSI's
layout and sizes): neither changes what an epoch costs but for the texts' lengths, which are told.
Networks are trained whole, in batches of 32. An epoch holds training and validation; decoding of
the pictures, once a study, is timed apart. A card may be busy while the host waits for data: the
share is an upper bound of the card's idle time. Without a card, full size is not measured.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from main_job import machine, show

from evaluators.data import DataSet, faces_data
from evaluators.features.examples import RawInputs
from evaluators.features.preprocessing import Preprocessing
from evaluators.training.config import native_arithmetic
from evaluators.training.execution import CARD_BYTES, execution_on, place
from evaluators.training.loop import TrainingConfig, fit
from search_space.design.genotype import Genotype
from search_space.network.network import build
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace

NOT_MEASURED = "not measured: no GPU"
EPOCHS = 3
REGIME = TrainingConfig(EPOCHS, EPOCHS, 32, 2e-4, 5e-5)


def inputs_of(
    genotype: Genotype, data: DataSet, space: SearchSpace, device: str
) -> tuple[list[RawInputs], float]:
    """Training and validation inputs, every picture decoded, and the seconds that took."""
    preprocessing, made = Preprocessing(data, space.shapes), []
    started = time.perf_counter()
    for split in ("train", "valid"):
        samples = data.split(split)  # type: ignore[arg-type]
        text = pixels = None
        if genotype.text_encoder:
            spec = space.encoder(genotype.text_encoder)
            text = preprocessing.text(spec, samples, genotype.text_tokens)
        if genotype.vision_encoder:
            pixels = preprocessing.values(space.encoder(genotype.vision_encoder), samples)
            pixels.kept(torch.arange(1))
        labels = torch.tensor([sample.label for sample in samples])
        made.append(RawInputs(text, [pixels] if pixels else [], labels, device))
    return made, time.perf_counter() - started


def measured(
    genotype: Genotype, data: DataSet, space: SearchSpace, device: str, compiled: bool
) -> dict[str, Any]:
    """One design, trained for a few epochs; the first is left out of the seconds."""
    (train, valid), decoding_s = inputs_of(genotype, data, space, device)
    encoders = {spec.name: replace(spec, weights="random") for spec in space.encoders}
    network = build(genotype, encoders, space.shapes, len(data.classes))
    place(network, device)
    execution = execution_on(device, compiled)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if compiled:
        execution = replace(execution, compile_from_steps=0)
    ends = []
    done = fit(
        network,
        train,
        valid,
        REGIME,
        0,
        lambda *_: ends.append(time.perf_counter()),
        native_arithmetic(device),
        execution,
    )
    epochs = [after - before for before, after in pairwise(ends)]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    lengths = train.lengths
    return {
        "epoch_s": round(sum(epochs) / len(epochs), 3),
        "waiting_share": round(done.waited_s / done.seconds, 4),
        "decoding_s": round(decoding_s, 1),
        "batch_part": done.part,
        "compiled_layers": done.compiled,
        "peak_bytes": peak,
        "fits_8_gb": None if peak is None else peak <= CARD_BYTES,
        "mean_tokens": None if lengths is None else round(float(lengths.float().mean()), 1),
    }


def all_designs(
    space: SearchSpace, device: str, compiled: bool, only: Sequence[str]
) -> dict[str, Any]:
    """Every one of the paper's designs that the space holds, one after the other."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = faces_data(Path(folder))
        designs = seeded_designs(space)
        unknown = set(only) - {seeded.name for seeded in designs}
        if unknown:
            known = ", ".join(seeded.name for seeded in designs)
            raise SystemExit(f"--design {', '.join(sorted(unknown))}: choose some of {known}")
        for seeded in designs:
            if only and seeded.name not in only:
                continue
            found[seeded.name] = measured(seeded.genotype, data, space, device, compiled)
            print(seeded.name, found[seeded.name], flush=True)
            if device == "cuda":
                torch.cuda.empty_cache()
    return found


def main() -> None:
    """Measure what this machine can, and say what it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the built-in small encoders")
    parser.add_argument("--compiled", action="store_true", help="compile transformer layers")
    parser.add_argument("--design", action="append", default=[], help="only these; repeatable")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about["gpu"] = torch.cuda.get_device_name() if device == "cuda" else None
    if device == "cuda" or args.small:
        space = load_space("demo") if args.small else load_space("paper", weights="random")
        designs: Any = all_designs(space, device, args.compiled, args.design)
    else:
        designs = NOT_MEASURED
    result = {
        "encoders": "small" if args.small else "full size",
        "device": device,
        "arithmetic": native_arithmetic(device),
        "designs": designs,
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
