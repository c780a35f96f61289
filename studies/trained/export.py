"""A trial's trained network as a folder that can be carried to a device."""

import errno
import json
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import optuna

from evaluators.cached_files import ALTERED, naming, sha256_of
from evaluators.data.answers import THRESHOLD, right_share
from evaluators.onnx.artifacts import Artifact, ParityError
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.exporter import NetworkExporter
from search_space.design.encoder import SOUND_HZ
from search_space.design.genotype import Genotype
from search_space.encoders.pixels import normalisation
from search_space.encoders.sounds import sound_input, sound_recipe
from studies.config.options import DeviceOptions
from studies.config.paths import check_folder
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.report import terminal
from studies.report.progress import Reporter
from studies.results import text as result_text
from studies.results.fine_tuned import ATTRIBUTE, RIGHTS, TEST
from studies.results.study_outcome import (
    CONDITIONS,
    PROTOCOL,
    SETTINGS,
    SUBJECT,
    TESTS,
    rows_of,
)
from studies.results.trial_record import TimingRecord, TrialRecord, TrialResult, genotype_of
from studies.study.context import StudyContext
from studies.trained import export_files
from studies.trained.export_files import PREPARED
from studies.trained.export_folder import CARD, filled
from studies.trained.split import check_splits, write_split
from studies.trained.split import in_words as parts_in_words
from studies.trained.timing import TimingDevice, timing_device
from studies.trained.trial import context_of, trained_trial

PACKAGES = ("fusion-nas", "torch", "transformers", "timm", "onnx", "onnxruntime", "optuna", "numpy")
NETWORK = "network.onnx"
ACCURACY_POINTS, ACCURACY_SAMPLES = 2.0, 1.5
"""How far an exported network's accuracy on validation may be from its trial's: the larger of so
many percent points and so many samples. Rounding turns the answers that were nearly undecided, and
a network that is trained again on another machine may differ in a few."""
NO_PREPROCESSING = {
    "tensorrt": "TensorRT takes neither pictures in 8 bits nor an antialiased Resize",
    "openvino": "OpenVINO resizes without antialiasing, whatever the graph says",
}
"""Runtimes that cannot run a graph with preprocessing, and why: ONNX Runtime can."""
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
        no_predictor: in words, why there is no predict.py; empty where there is one.
        split: in words, what the parts take; empty where there are none.
        with_preprocessing: in words, how the graph with preprocessing differs from the network;
            empty where there is none.
    """

    folder: Path
    max_difference: float
    without: tuple[str, ...]
    has_test_figures: bool
    no_predictor: str = ""
    split: str = ""
    with_preprocessing: str = ""


def export_trial(
    study: optuna.Study,
    number: int,
    out: Path | None,
    fine_tuned: bool = False,
    split: bool = False,
    with_preprocessing: bool = False,
    timed_on: DeviceOptions | None = None,
) -> None:
    """Write an export and print what it is. Raises what `write_export` raises."""
    console = terminal.open_console()
    folder = out or Path(f"export-{number}")
    with terminal.progress(console) as reporter:
        done = write_export(
            study, number, folder, fine_tuned, reporter, split, with_preprocessing, timed_on
        )
    graphs = "".join(f"{file}, " for file in done.without)
    megabytes = (done.folder / NETWORK).stat().st_size / 1e6
    console.print(
        f"{done.folder}: network.onnx ({megabytes:.1f} MB, differs from torch by "
        f"{done.max_difference:.1e}), {graphs}card.json, environment.txt",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if done.no_predictor:
        console.print(f"no predict.py: {done.no_predictor}", highlight=False, soft_wrap=True)
    else:
        console.print(
            f"{done.folder}/README.md says how to run it; predict.py prepares inputs as training "
            "did",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if not done.has_test_figures:
        console.print(NOT_LOOKED_AT, highlight=False, soft_wrap=True)
    if done.split:
        console.print(f"parts: {done.split}", highlight=False, soft_wrap=True)
    if done.with_preprocessing:
        console.print(
            f"{PREPARED}: {done.with_preprocessing}", highlight=False, markup=False, soft_wrap=True
        )


def write_export(
    study: optuna.Study,
    number: int,
    folder: Path,
    fine_tuned: bool,
    reporter: Reporter,
    split: bool = False,
    with_preprocessing: bool = False,
    timed_on: DeviceOptions | None = None,
) -> Exported:
    """Writes `network.onnx`, `predict.py`, `README.md`, `card.json` and the tokenizer.

    predict.py needs neither torch nor this library. What it feeds the graph is compared with what
    training reads before anything is written. Also written: requirements.txt, environment.txt,
    synthetic example inputs and the checksums of all files.
    Of a fused design also `without-text.onnx` and `without-vision.onnx`, which take the inputs of
    the other modality alone and do none of the absent one's work.

    The ONNX is built anew from the trained weights, compared with torch, and judged on validation
    before it is written: it has to be as accurate as its trial. Everything is written aside and
    moved to `folder` at the end.
    The card holds the test figures that the study has, and none are made for it: whoever chooses
    among trials by test figures has no test left. `fine_tuned` takes the weights and figures that
    fine-tuning the whole network left. With `split` the encoders and the fusion are written too,
    compared with the whole network and timed in turns with it on the device `timed_on`. With
    `with_preprocessing` a graph that prepares pictures and sounds itself is written too, compared
    with the network on inputs that Pillow and numpy prepare, and if `timed_on` is given, timed in
    turns with it there.
    Raises UsageError for a trial that cannot be exported as asked, ParityError where ONNX differs,
    in its numbers or in what it is right about.
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
    if with_preprocessing:
        _check_preprocessing(study, number, genotype)
    with ExitStack() as stack:
        device = None
        if split:
            check_splits(number, genotype)
        if timed_on is not None:
            device = stack.enter_context(timing_device(timed_on))
        context = stack.enter_context(context_of(study, reporter))
        quality = context.quality.other(whole=True) if fine_tuned else context.quality
        quality.prepare()
        artifact = quality.exporter.artifact(genotype)
        tokenizer = None
        if genotype.text_encoder:
            spec = context.space.encoder(genotype.text_encoder)
            tokenizer = context.quality.trainer.preprocessing.tokenizer(spec)
        with filled(folder) as made:
            _write_graph(artifact, made / NETWORK)
            judged = _judged(quality, genotype, made / NETWORK, reporter)
            stated = None if context.settings.training.cv else figures.get("accuracy")
            _check_accuracy(number, judged, stated, len(context.data.split("valid")))
            without = _without_each(quality.exporter, genotype, made)
            if tokenizer is not None:
                tokenizer.save(made)
            if genotype.audio_encoder and (filters := _sound(context, genotype)[1]) is not None:
                np.save(made / "sound-filters.npy", filters)
            parts = None
            if split and device is not None:
                parts = _split(quality, genotype, made / NETWORK, artifact, device)
            no_predictor = _no_predictor(context, genotype, made)
            if with_preprocessing and no_predictor:
                raise UsageError(
                    f"--with-preprocessing: {no_predictor}; leave --with-preprocessing out"
                )
            encoders = [context.space.encoder(name) for name in genotype.encoders.values()]
            source = context.settings.data.source
            of_data = None if context.settings.data.built_in or not source else Path(source)
            card: dict[str, Any] = {
                "design": genotype.describe(),
                "genotype": genotype.as_json(),
                "encoders": [spec.as_json() for spec in context.space.encoders],
                "study": study.study_name,
                "trial": number,
                "name": record.name,
                "classes": list(context.data.classes),
                **({"multi_label": {"threshold": THRESHOLD}} if context.data.multi_label else {}),
                "data": context.data.note,
                "conditions": study.user_attrs[CONDITIONS],
                "training_protocol": study.user_attrs[PROTOCOL],
                "seeds": _seeds(context, tests),
                "fine_tuned_whole": fine_tuned,
                "valid": _without_timing(figures),
                "exported_valid_accuracy": judged,
                "test": tests and _figures(tests),
                "test_note": LOOKED_AT if tests else NOT_LOOKED_AT,
                "latency": _latency(study, number, record.result),
                "licences": export_files.licences(context.data, of_data, encoders),
                "sha256": artifact.sha256,
                "greatest_difference_from_torch": artifact.max_difference,
                "rewritten": list(artifact.rewritten),
                "without_a_modality": without,
                "split": parts,
                "with_preprocessing": None,
                "inputs": [input_.as_json() for input_ in artifact.inputs],
                "pixels": _pixel_rule(context, genotype),
                "sound": _sound_rule(context, genotype),
                "preprocessing": _preprocessing(context, genotype),
                "predictor": not no_predictor,
                "no_predictor": no_predictor,
                "whole_pipeline": None,
            }
            if not no_predictor:
                export_files.write_predictor(made, genotype)
                card["example"] = {"inputs": export_files.write_example(made, genotype)}
                _write_card(made, card)
                predict = export_files.predictor_of(made)
                network = predict.Network(made)
                samples = context.data.split("valid")
                export_files.check_predictor(network, quality.exporter, genotype, samples)
                example = export_files.example_inputs(made, card)
                card["example"]["probabilities"] = network.predict(**example)
                if with_preprocessing:
                    card["with_preprocessing"] = export_files.write_prepared(
                        made, network, genotype, samples
                    )
                    if device is not None:
                        card["with_preprocessing"]["on_device"] = export_files.time_prepared(
                            made, network, genotype, samples, device
                        )
                    _write_card(made, card)
                    inside = predict.Network(made)
                    card["with_preprocessing"]["probabilities"] = inside.predict(**example)
                card["whole_pipeline"] = export_files.pipeline_ms(predict, made, example)
            _write_card(made, card)
            (made / export_files.README).write_text(export_files.readme(card), encoding="utf-8")
            (made / "environment.txt").write_text(_environment(), encoding="utf-8")
            export_files.write_sums(made)
    files = tuple(str(each["file"]) for each in without.values())
    return Exported(
        folder,
        artifact.max_difference,
        files,
        bool(tests),
        no_predictor,
        parts_in_words(parts) if parts else "",
        _about_preprocessing(card["with_preprocessing"]) if with_preprocessing else "",
    )


def _split(
    quality: QualityEvaluator,
    genotype: Genotype,
    file: Path,
    artifact: Artifact,
    device: TimingDevice,
) -> dict[str, Any]:
    """Writes the parts of a written graph, compared with it on some validation samples."""
    samples = quality.data.split("valid")
    chosen = samples[:: max(1, -(-len(samples) // export_files.COMPARED_SAMPLES))]
    rows = quality.exporter.inputs(genotype, chosen)
    expected = quality.exporter.logits_of(file, genotype, chosen)
    return write_split(file, genotype, artifact.inputs, rows, expected, device)


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    text = json.dumps(card, indent=2, sort_keys=True, allow_nan=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def _without_timing(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures of a trial but for its reading: the card's `latency` is what the study reports."""
    timing = {field.name for field in fields(TimingRecord)} | {"compile_s"}
    return {
        name: value
        for name, value in figures.items()
        if name not in timing and (name == "latency_key" or not name.startswith("latency_"))
    }


def _seeds(context: StudyContext, tests: dict[str, Any] | None) -> list[int]:
    """Seeds of the trainings that the card's figures are from; the network's own comes first."""
    count = len((tests or {}).get("seeds", ())) or 1
    return [context.settings.training.seed + k for k in range(count)]


def _latency(study: optuna.Study, number: int, result: TrialResult) -> dict[str, Any]:
    """The latency that the study reports of a trial, as values and in words."""
    row = next((row for row in rows_of(study) if row.number == number), None)
    value, timing = None if row is None else row.latency, result.timing
    words = f"{result_text.milliseconds(value, ' to ')} ms" if value else "not timed"
    is_expected = study.user_attrs[SUBJECT].get("latency_is")
    if value and is_expected:
        words += f", {is_expected}"
    found: dict[str, Any] = {"words": words, "ms": None, "timing": timing and asdict(timing)}
    if row is not None:
        found |= {"state": row.state, "reason": row.reason, "disturbed": row.crowded}
    if value is not None:
        found["ms"] = [value.value, value.low, value.high]
    return found


def _about_preprocessing(card: Mapping[str, Any]) -> str:
    said = export_files.differences(card)
    return f"{said}; {export_files.on_device(card['on_device'])}" if "on_device" in card else said


def _check_preprocessing(study: optuna.Study, number: int, genotype: Genotype) -> None:
    """Raises UsageError where no graph can prepare the inputs of a design."""
    runtime = Settings.from_stored(study.user_attrs[SETTINGS]).device.runtime
    if runtime in NO_PREPROCESSING:
        raise UsageError(
            f"--with-preprocessing: the study's networks run on {runtime}, and "
            f"{NO_PREPROCESSING[runtime]}; leave --with-preprocessing out"
        )
    if set(genotype.encoders) == {"text"}:
        raise UsageError(
            f"--with-preprocessing: trial {number} reads text alone, and texts are tokenised "
            "outside the graph; leave --with-preprocessing out"
        )


def _no_predictor(context: StudyContext, genotype: Genotype, folder: Path) -> str:
    """In words, why predict.py cannot prepare the inputs of a design; empty where it can."""
    if genotype.text_encoder and not (folder / "tokenizer.json").is_file():
        return (
            f"the tokenizer of {genotype.text_encoder} has no tokenizer.json, so transformers "
            "alone can run it"
        )
    if genotype.audio_encoder and _sound(context, genotype)[0] is None:
        return f"transformers alone can prepare the sounds of {genotype.audio_encoder}"
    return ""


def _sound(context: StudyContext, genotype: Genotype) -> tuple[dict[str, Any] | None, Any]:
    """What predict.py needs of sounds: values and filters."""
    assert genotype.audio_encoder is not None
    return sound_recipe(context.space.encoder(genotype.audio_encoder)) or (None, None)


def _preprocessing(context: StudyContext, genotype: Genotype) -> dict[str, Any]:
    """How predict.py prepares each input; None for a modality that the design does not read."""
    text = None
    if genotype.text_encoder:
        rewriting = context.builder.rewriting
        is_open = bool(rewriting.open_axes(genotype))
        spec = context.space.encoder(genotype.text_encoder)
        text = {
            "tokens": genotype.text_tokens if is_open else rewriting.longest(genotype),
            "padded": not is_open,
            "pad_id": context.quality.trainer.preprocessing.tokenizer(spec).pad_id,
        }
    audio = _sound(context, genotype)[0] if genotype.audio_encoder else None
    return {"text": text, "vision": _pixel_rule(context, genotype), "audio": audio}


def _write_graph(artifact: Artifact, file: Path) -> None:
    """Copies a graph and discards its artifact. Raises OSError where the copy is another file."""
    try:
        with naming(file):
            copyfile(artifact.path, file)
    finally:
        artifact.discard()
    if sha256_of(file) != artifact.sha256:
        raise OSError(errno.EIO, ALTERED, str(file))


def _judged(quality: QualityEvaluator, genotype: Genotype, file: Path, reporter: Reporter) -> float:
    """Percent of the validation split that a written graph is right about, run on this CPU."""
    samples = quality.data.split("valid")
    logits = quality.exporter.logits_of(
        file,
        genotype,
        samples,
        lambda done: reporter.step("judging the exported network", done, len(samples)),
    )
    return 100 * right_share(logits, samples)


def _check_accuracy(number: int, judged: float, stated: list[float] | None, samples: int) -> None:
    """Raises ParityError where an exported network is not as accurate as its trial."""
    if stated is None:
        return
    allowed = max(ACCURACY_POINTS, 100 * ACCURACY_SAMPLES / samples)
    if abs(judged - stated[0]) > allowed:
        raise ParityError(
            f"trial {number}: its exported network is right about {judged:.1f} % of validation, "
            f"where the trial has {stated[0]:.1f} %; nothing was written. data, encoders and "
            "weights are as the study had them, so the training came out otherwise on this "
            "machine: export on the one that ran the study"
        )


def _without_each(
    exporter: NetworkExporter, genotype: Genotype, folder: Path
) -> dict[str, dict[str, Any]]:
    """Writes the graphs that run without one modality, and tells their inputs and parity."""
    found: dict[str, dict[str, Any]] = {}
    for absent in genotype.encoders if genotype.is_fused else ():
        artifact = exporter.artifact_without(genotype, absent)
        file = f"without-{absent}.onnx"
        _write_graph(artifact, folder / file)
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
    """How a picture becomes `pixel_values`: resized to a square, 0..1, normalised a channel."""
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
