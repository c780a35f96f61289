"""What kept features cost, and what half precision does to the logits of trained fusions.

    python benchmarks/features.py --shared ../shared

On real tweets with MiniLM and MobileNetV2 weights. First the seconds and processor seconds of
making the text's pooled forms with one tap's tokens, of reading them in a process that has not
read them yet (their SHA-256 is taken) and of reading them again. Then, for designs over tokens,
which are kept in half precision, how far the logits of the fusion that was trained on kept features
lie from those of the whole network, which rounds nothing, over all validation tweets.

Prints one JSON object; `--out FILE` keeps it. `--tweets N` takes the first N of each split.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from main_job import machine, show

from evaluators import cached_files
from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.store import Rows
from evaluators.features.taps import TapFeatures
from evaluators.features.trunk_weights import TrunkWeights
from evaluators.quality.trainer import DesignTrainer, new_trainer
from evaluators.training.loop import predict
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.config.settings import load_settings
from studies.study.training_protocol import chosen_protocol

TOKENS = 512


def designs(space: SearchSpace) -> list[Genotype]:
    """Designs that read tokens of early, middle and last taps."""
    text, vision = space.text_encoders[0], space.vision_encoders[0]
    both = Genotype(text, vision, TOKENS, (), text_pooling="mean", vision_pooling="mean")
    made: list[Genotype] = []
    for taps in ((2, 6), (4, 13), (6, 16)):
        made.append(replace(both, points=(FusionPoint(*taps, "cross-attention", 128),)))
        made += [
            replace(
                both,
                points=(FusionPoint(*taps, operator, 128),),  # type: ignore[arg-type]
                attention_blocks=2,
                attention_over="tokens",
                text_pooling=pooling,  # type: ignore[arg-type]
            )
            for operator, pooling in (("concatenation", "mean"), ("gated", "cls"))
        ]
    return made


def timed(job: Callable[[], object]) -> dict[str, float]:
    """Seconds that a job takes, and those of the processor."""
    wall, own = time.perf_counter(), time.process_time()
    job()
    return {
        "wall_s": round(time.perf_counter() - wall, 4),
        "processor_s": round(time.process_time() - own, 4),
    }


def cost(data: DataSet, space: SearchSpace, home: Path) -> dict[str, Any]:
    """Making and reading text features of the training split."""
    name = space.text_encoders[0]
    spec, shape, samples = space.encoder(name), space.shapes[name], data.split("train")
    preprocessing = Preprocessing(data, space.shapes)
    trunks = TrunkWeights(space.shapes, home / "trunks", 0)
    features = TapFeatures(preprocessing, trunks, home / "features")
    length = preprocessing.text(spec, samples, TOKENS)[0].shape[1]
    trunks.identity(spec)
    wanted = [Feature("text", shape.depth, "mean"), Feature("text", 4, "tokens")]

    def get() -> dict[Feature, Rows]:
        return features.get(spec, shape, wanted, samples, length)

    made = timed(get)
    cached_files._sha256_once.cache_clear()
    first, again = timed(get), timed(get)
    files = list((home / "features").glob("*/*.safetensors"))
    return {
        "texts": len(samples),
        "longest_tokens": length,
        "shards": len(files),
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "made": made,
        "read_with_sha256": first,
        "read_again": again,
        "kept_as": {feature.name: str(rows.dtype) for feature, rows in get().items()},
    }


def apart(trainer: DesignTrainer, genotype: Genotype) -> dict[str, Any]:
    """Logits on kept features against those of the whole network, over validation."""
    network = trainer.trained(genotype)
    kept, whole = (
        predict(part, trainer.inputs.examples(genotype, "valid", on_cached))
        for part, on_cached in ((network.fusion, True), (network, False))
    )
    reads = trainer.inputs.kept(genotype, "valid")._features
    return {
        "design": genotype.describe(),
        "largest": float((kept - whole).abs().max()),
        "mean": float((kept - whole).abs().mean()),
        "spread_of_logits": round(float(whole.std(0).mean()), 3),
        "answers_changed": int((kept.argmax(1) != whole.argmax(1)).sum()),
        "kept_as": {feature.name: str(rows.dtype) for feature, rows in reads.items()},
    }


def main() -> None:
    """Measure both and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--tweets", type=int, help="of each split; all where left out")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    about, weights = machine(), args.shared / "weights"
    space = load_space(
        "demo",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = load(args.shared / "data" / "tweets", cache=home / "data")
        some = [data.split(split)[: args.tweets] for split in ("train", "valid")]  # type: ignore[arg-type]
        data = replace(data, samples=tuple(sample for part in some for sample in part))
        features = cost(data, space, home)
        encoders = {spec.name: spec for spec in space.encoders}
        settings = load_settings("pareto", {"trunks": "frozen"})
        protocol = chosen_protocol(settings, Preprocessing(data, space.shapes), space, "cpu")
        trainer = new_trainer(Preprocessing(data, space.shapes), encoders, protocol, home)
        found = []
        for genotype in designs(space):
            found.append(apart(trainer, genotype))
            print(found[-1], flush=True)
    result = {
        "data": data.note,
        "train_valid": [len(part) for part in some],
        "encoders": [*space.text_encoders, *space.vision_encoders],
        "features": features,
        "largest_difference_of_logits": max(each["largest"] for each in found),
        "designs": found,
        "threads": torch.get_num_threads(),
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
