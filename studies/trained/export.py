"""A trial's trained network as a folder that can be carried to a device."""

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any

import optuna
from rich.console import Console

from evaluators.quality.exporter import NetworkExporter
from search_space.design.encoder import SOUND_HZ
from search_space.design.genotype import Genotype
from search_space.encoders.pixels import normalisation
from search_space.encoders.sounds import sound_input
from studies.config.paths import check_folder
from studies.config.usage import UsageError
from studies.report import terminal
from studies.report.progress import Reporter
from studies.results.fine_tuned import ATTRIBUTE, RIGHTS, TEST
from studies.results.study_outcome import CONDITIONS, TESTS
from studies.results.trial_record import TrialRecord, genotype_of
from studies.study.context import StudyContext
from studies.trained.trial import context_of, trained_trial

PACKAGES = ("fusion-nas", "torch", "transformers", "timm", "onnx", "onnxruntime", "optuna", "numpy")
LOOKED_AT = "test data were looked at once, at the study's end"
NOT_LOOKED_AT = (
    "no figures of test: the study looks at it once, at its end, for the front and the named "
    "designs alone"
)


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, the graph of the design, and whether test figures exist.

    Attributes:
        folder: that holds it all.
        max_difference: greatest absolute difference of the graph's logits from torch.
        without: names of the graphs that run without one modality.
        has_test_figures: whether the study has looked at test for this trial.
    """

    folder: Path
    max_difference: float
    without: tuple[str, ...]
    has_test_figures: bool


def export_trial(
    study: optuna.Study, number: int, out: Path | None, fine_tuned: bool = False
) -> None:
    """Write an export and print what it is. Raises what `write_export` raises."""
    console = Console()
    with terminal.progress(console) as reporter:
        done = write_export(study, number, out or Path(f"export-{number}"), fine_tuned, reporter)
    graphs = "".join(f"{file}, " for file in done.without)
    megabytes = (done.folder / "network.onnx").stat().st_size / 1e6
    console.print(
        f"{done.folder}: network.onnx ({megabytes:.1f} MB, differs from torch by "
        f"{done.max_difference:.1e}), {graphs}card.json, environment.txt",
        highlight=False,
        soft_wrap=True,
    )
    if not done.has_test_figures:
        console.print(NOT_LOOKED_AT, highlight=False, soft_wrap=True)


def write_export(
    study: optuna.Study, number: int, folder: Path, fine_tuned: bool, reporter: Reporter
) -> Exported:
    """Writes `network.onnx`, `card.json`, `environment.txt` and the tokenizer.

    Of a fused design also `without-text.onnx` and `without-vision.onnx`, which take the inputs of
    the other modality alone and do none of the absent one's work.

    The ONNX is built anew from the trained weights and compared with torch before it is written.
    The card holds the test figures that the study has, and none are made for it: whoever chooses
    among trials by test figures has no test left. `fine_tuned` takes the weights and figures that
    fine-tuning the whole network left.
    Raises UsageError for a trial that cannot be exported, ParityError where ONNX differs.
    """
    trial = trained_trial(study, number)
    record, tests = TrialRecord.of(trial), study.user_attrs.get(TESTS, {}).get(str(number))
    figures = record.result.figures()
    if fine_tuned:
        kept = study.user_attrs.get(f"{ATTRIBUTE}{number}", {})
        if "accuracy" not in kept:
            raise UsageError(f"trial {number} was not fine-tuned: leave --fine-tuned out")
        figures, tests = _figures(kept), kept.get(TEST)
    check_folder(folder)
    genotype = genotype_of(trial)
    with context_of(study, reporter) as context:
        quality = context.quality.other(whole=True) if fine_tuned else context.quality
        quality.prepare()
        artifact = quality.exporter.artifact(genotype)
        tokenizer = None
        if genotype.text_encoder:
            spec = context.space.encoder(genotype.text_encoder)
            tokenizer = context.quality.trainer.preprocessing.tokenizer(spec)
        folder.mkdir(parents=True, exist_ok=True)
        copyfile(artifact.path, folder / "network.onnx")
        artifact.discard()
        without = _without_each(quality.exporter, genotype, folder)
        if tokenizer is not None:
            tokenizer.save(folder)
        card = {
            "design": genotype.describe(),
            "genotype": genotype.as_json(),
            "encoders": [spec.as_json() for spec in context.space.encoders],
            "study": study.study_name,
            "trial": number,
            "name": record.name,
            "classes": list(context.data.classes),
            "data": context.data.note,
            "conditions": study.user_attrs[CONDITIONS],
            "fine_tuned_whole": fine_tuned,
            "valid": figures,
            "test": tests and _figures(tests),
            "test_note": LOOKED_AT if tests else NOT_LOOKED_AT,
            "sha256": artifact.sha256,
            "greatest_difference_from_torch": artifact.max_difference,
            "rewritten": list(artifact.rewritten),
            "without_a_modality": without,
            "inputs": [input_.as_json() for input_ in artifact.inputs],
            "pixels": _pixel_rule(context, genotype),
            "sound": _sound_rule(context, genotype),
        }
        text = json.dumps(card, indent=2, sort_keys=True, allow_nan=False)
        (folder / "card.json").write_text(text + "\n", encoding="utf-8")
        (folder / "environment.txt").write_text(_environment(), encoding="utf-8")
    files = tuple(str(each["file"]) for each in without.values())
    return Exported(folder, artifact.max_difference, files, bool(tests))


def _without_each(
    exporter: NetworkExporter, genotype: Genotype, folder: Path
) -> dict[str, dict[str, Any]]:
    """Writes the graphs that run without one modality, and tells their inputs and parity."""
    found: dict[str, dict[str, Any]] = {}
    for absent in genotype.encoders if genotype.is_fused else ():
        artifact = exporter.artifact_without(genotype, absent)
        file = f"without-{absent}.onnx"
        copyfile(artifact.path, folder / file)
        artifact.discard()
        found[absent] = {
            "file": file,
            "sha256": artifact.sha256,
            "greatest_difference_from_torch": artifact.max_difference,
            "inputs": [input_.as_json() for input_ in artifact.inputs],
        }
    return found


def _figures(kept: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a trial but for which samples were right: long, and of use in pairs alone."""
    return {name: value for name, value in kept.items() if name not in (*RIGHTS, TEST)}


def _pixel_rule(context: StudyContext, genotype: Genotype) -> dict[str, Any] | None:
    """How a picture becomes `pixel_values`: squashed to a square, 0..1, normalised a channel."""
    if genotype.vision_encoder is None:
        return None
    spec = context.space.encoder(genotype.vision_encoder)
    mean, std = normalisation(spec)
    size = context.space.shapes[spec.name].image_size
    return {
        "channels": "RGB",
        "size": size,
        "resize": "bilinear, antialiased",
        "scale": 1 / 255,
        "mean": mean,
        "std": std,
    }


def _sound_rule(context: StudyContext, genotype: Genotype) -> dict[str, Any] | None:
    """How a sound becomes `input_values`: mono, in -1..1, cut or ended in silence, then this."""
    if genotype.audio_encoder is None:
        return None
    spec = context.space.encoder(genotype.audio_encoder)
    settings = json.loads(sound_input(spec).settings)
    return {"hertz": SOUND_HZ, "seconds": spec.seconds, "settings": settings}


def _environment() -> str:
    lines = [f"python=={platform.python_version()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package}=={metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"
