"""How a study trains its designs: what this machine can bear, and what a study began with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evaluators.costs import static_costs
from evaluators.data import DataSet
from evaluators.features.preprocessing import Preprocessing
from evaluators.training.config import (
    ADAPTERS,
    NOT_FOLLOWED,
    Arithmetic,
    TrainingProtocol,
    Trunks,
    named_protocol,
    native_arithmetic,
    protocol_from_json,
)
from evaluators.training.plan import TrainingPlan
from search_space.design.adapting import ONE_LAYER_OF
from search_space.design.genotype import MIN_TEXT_TOKENS
from search_space.modality import MODALITIES, Modality
from search_space.network.network import build
from search_space.space.space import SearchSpace
from studies.config.settings import Settings
from studies.config.usage import UsageError

WHOLE_TRAINING_MACS = 1e12
"""Multiply-accumulates of one epoch, forward and backward, up to which a CPU trains whole."""
TEXT_TUNING_MACS = 1e13
"""The same of the most expensive text encoder, up to which a CPU fine-tunes text encoders alone.
Each is fine-tuned once. A sentence costs it a fraction of what a picture does."""
BACKWARD = 3
"""A step costs about three forward passes."""


def chosen_protocol(
    settings: Settings, preprocessing: Preprocessing, space: SearchSpace, compute_device: str
) -> TrainingProtocol:
    """The settings' protocol with trunks and arithmetic for this machine.

    Trunks that the settings name win over that choice; the paper's protocol says itself what is
    trained, so no machine changes it. Trunks are multiplied in bf16 or fp16 where the processor
    does that in hardware and they are wide enough to gain from it.

    A fixed list compares late designs with others, which by-stage would train otherwise, and
    --fine-tune trains whole at the end: there all are trained on trunks that were tuned alone, but
    by the paper's protocol. In a space with adapters these train the trunks: all designs begin on
    trunks as they were loaded, or tuned alone where weights are random. Where no modality alone
    tells anything a trunk alone would learn nothing: there every design is trained whole.

    Raises UsageError where designs that may have adapters would be trained whole.
    """
    name: Any = settings.training.protocol
    named = named_protocol(name, settings.training.seed)
    given: Trunks | None = None if settings.training.trunks == "auto" else settings.training.trunks  # type: ignore[assignment]
    native = native_arithmetic(compute_device)
    published = named.by_stage is not None
    if any(space.lora_ranks):
        if published or given in ("by-stage", "whole"):
            flag = "--protocol paper" if published else f"--trunks {given}"
            raise UsageError(
                f"{flag} with adapters (lora_rank): that trains designs whole as it is; leave one "
                "out"
            )
        drawn = any(spec.weights == "random" for spec in space.encoders)
        given = given or ("tuned" if drawn else "frozen")
    on_features = settings.preset.grid is not None or settings.training.fine_tune
    whole: Trunks = "tuned" if on_features and not published else "by-stage"
    if not published and not _tells_alone(preprocessing.data) and not settings.training.fine_tune:
        whole = "whole"
    if compute_device == "cuda":
        return replace(named, trunks=given or whole, arithmetic=native)
    epoch = epoch_macs(named, preprocessing, space)
    small = sum(epoch.values()) <= WHOLE_TRAINING_MACS
    affordable: Trunks = "text-tuned" if 0 < epoch["text"] <= TEXT_TUNING_MACS else "frozen"
    trunks = given or (whole if small or published else affordable)
    arithmetic: Arithmetic = "fp32" if small or trunks == "frozen" else native
    return replace(named, trunks=trunks, arithmetic=arithmetic)


def _tells_alone(data: DataSet) -> bool:
    """Whether text or picture alone tells more than a coin does, as far as that is known."""
    if data.ceilings is None:
        return True
    return max(data.ceilings["text"], data.ceilings["vision"]) > 1 / len(data.classes)


def resumed_protocol(
    own: TrainingProtocol, trunks: str, known: Mapping[str, Any]
) -> TrainingProtocol:
    """The protocol that a study began with, under the seed and trunks that are asked for now.

    Another machine, or a later one, would choose other trunks, arithmetic or bounds. A protocol
    of another name is not the study's, and stays as it was asked for.
    """
    began = protocol_from_json(known)
    if began.name != own.name:
        return own
    asked = began.trunks if trunks == "auto" else own.trunks
    return replace(began, seed=own.seed, trunks=asked)


def epoch_macs(
    protocol: TrainingProtocol, preprocessing: Preprocessing, space: SearchSpace
) -> dict[Modality, float]:
    """Multiply-accumulates of one epoch of the most expensive encoder of each modality.

    0 for a modality that is not read or in which all samples are alike.
    """
    costliest: dict[Modality, float] = dict.fromkeys(MODALITIES, 0.0)
    train = preprocessing.data.split("train")
    plan = TrainingPlan(protocol, {spec.name: spec for spec in space.encoders}, space.shapes)
    for spec in space.encoders:
        if spec.modality in preprocessing.data.uninformative:
            continue  # it is not fine-tuned
        genotype = plan.unimodal(spec)
        if spec.modality == "text":  # batches hold texts of like length: the mean is what counts
            mask = preprocessing.text(spec, train, genotype.text_tokens)[1]
            mean = round(float(mask.sum(1).float().mean()))
            genotype = replace(genotype, text_tokens=max(MIN_TEXT_TOKENS, mean))
        network = build(genotype, {spec.name: replace(spec, weights="random")}, space.shapes, 2)
        macs = {m.name: m.value for m in static_costs(network, genotype, space.shapes)}["macs"]
        costliest[spec.modality] = max(costliest[spec.modality], BACKWARD * macs * len(train))
    return costliest


TRAINED: dict[Trunks, str] = {
    "frozen": "fusion and head on features of trunks as they were loaded",
    "text-tuned": "text trunks fine-tuned alone first; fusion and head on features of frozen "
    "trunks",
    "tuned": "trunks fine-tuned alone first; fusion and head on features of frozen trunks",
    "by-stage": "trunks fine-tuned alone first; late designs on those frozen, others whole",
    "whole": "every design whole, trunks and fusion together",
}


def in_words(protocol: TrainingProtocol, adapters: bool = False) -> str:
    """How designs are trained, for people who would repeat it; `adapters` if some may have any."""
    said = f"{protocol.name} protocol: {TRAINED[protocol.trunks]}"
    if protocol.by_stage is None:
        said += ", all designs by the same settings"
    else:
        said += f", each stage by the settings of arXiv 2511.21889. Not followed: {NOT_FOLLOWED}"
    if adapters:
        said += (
            f"; designs with a LoRA rank then train adapters in the last 1/{ONE_LAYER_OF} of their "
            f"trunks' layers with the fusion, {ADAPTERS.epochs} epochs at a rate of "
            f"{ADAPTERS.trunk_learning_rate:g}, on features of the layers before, and merge them"
        )
    return f"{said}; trunks in {protocol.arithmetic}; seed {protocol.seed}"
