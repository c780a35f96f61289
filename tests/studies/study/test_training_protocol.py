"""How a study trains: chosen for the machine that begins it, kept by every machine that goes on."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from quick_evaluators import QUICK, demo, design, image_folder, quality

import studies.study.training_protocol as chosen
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training.config import named_protocol
from evaluators.training.loop import TrainingConfig, TrainingProtocol, Trunks
from evaluators.training.plan import ON_FROZEN
from studies.config.settings import Settings, load_settings
from studies.config.usage import UsageError
from studies.results.cautions import cautions_of
from studies.results.outcome import DesignResult, Value
from studies.study.training_protocol import chosen_protocol, epoch_macs, in_words, resumed_protocol


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    data = image_folder(tmp_path_factory.mktemp("data") / "set")
    return quality(data, tmp_path_factory.mktemp("home"), TrainingProtocol())


def settings(trunks: str = "auto", study: str = "pareto", protocol: str = "fair") -> Settings:
    return load_settings(study, {"trunks": trunks, "protocol": protocol})


def choice(
    evaluator: QualityEvaluator,
    monkeypatch: pytest.MonkeyPatch,
    text: float,
    vision: float,
    trunks: str = "auto",
    compute: str = "cpu",
    protocol: str = "fair",
) -> TrainingProtocol:
    """What is chosen where an epoch costs so much and the processor multiplies in bf16."""
    monkeypatch.setattr(chosen, "epoch_macs", lambda *_: {"text": text, "vision": vision})
    monkeypatch.setattr(chosen, "native_arithmetic", lambda _: "bf16")
    asked = settings(trunks, protocol=protocol)
    return chosen_protocol(asked, evaluator.trainer.preprocessing, demo(), compute)


@pytest.mark.parametrize(
    ("text", "vision", "trunks", "arithmetic"),
    [
        (4e11, 6e11, "by-stage", "fp32"),
        (4e11, 7e11, "text-tuned", "bf16"),
        (1e13, 0.0, "text-tuned", "bf16"),
        (1.1e13, 0.0, "frozen", "fp32"),
    ],
)
def test_a_cpu_trains_as_much_as_it_can_bear(
    evaluator: QualityEvaluator,
    monkeypatch: pytest.MonkeyPatch,
    text: float,
    vision: float,
    trunks: str,
    arithmetic: str,
) -> None:
    found = choice(evaluator, monkeypatch, text, vision)
    assert (found.trunks, found.arithmetic) == (trunks, arithmetic)


def test_a_gpu_trains_whole(evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice(evaluator, monkeypatch, 1e15, 1e15, compute="cuda")
    assert (found.trunks, found.arithmetic) == ("by-stage", "bf16")


@pytest.mark.parametrize("compute", ["cpu", "cuda"])
def test_designs_of_a_fixed_list_are_all_trained_alike(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, compute: str
) -> None:
    monkeypatch.setattr(chosen, "epoch_macs", lambda *_: {"text": 4e11, "vision": 5e11})
    asked, preprocessing = settings(study="depth-or-merge"), evaluator.trainer.preprocessing
    found = chosen_protocol(asked, preprocessing, demo(), compute)
    assert found.trunks == "tuned"


@pytest.mark.parametrize("trunks", get_args(Trunks))
def test_trunks_that_are_asked_for_win(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, trunks: str
) -> None:
    assert choice(evaluator, monkeypatch, 1e15, 1e15, trunks).trunks == trunks


def test_where_adapters_train_the_trunks_all_designs_begin_on_frozen_ones(
    evaluator: QualityEvaluator,
) -> None:
    drawn, read = replace(demo(), lora_ranks=(0, 4)), evaluator.trainer.preprocessing
    loaded = replace(
        drawn, encoders=tuple(replace(s, weights="pretrained") for s in drawn.encoders)
    )
    found = [
        chosen_protocol(settings(), read, space, "cuda").trunks
        for space in (loaded, drawn, replace(drawn, lora_ranks=(0,)))
    ]
    assert found == ["frozen", "tuned", "by-stage"]
    said = in_words(chosen_protocol(settings(), read, loaded, "cuda"), adapters=True)
    assert "designs with a LoRA rank then train adapters in the last 1/3" in said


@pytest.mark.parametrize("asked", [settings("whole"), settings(protocol="paper")])
def test_adapters_are_refused_where_designs_are_trained_whole(
    evaluator: QualityEvaluator, asked: Settings
) -> None:
    space = replace(demo(), lora_ranks=(0, 4))
    with pytest.raises(UsageError, match=r"with adapters \(lora_rank\): that trains designs whole"):
        chosen_protocol(asked, evaluator.trainer.preprocessing, space, "cuda")


def test_no_machine_shortens_the_papers_protocol(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = choice(evaluator, monkeypatch, 1e15, 1e15, protocol="paper")
    assert (found.name, found.trunks, found.arithmetic) == ("paper", "by-stage", "bf16")
    assert choice(evaluator, monkeypatch, 1e9, 1e9, protocol="paper").arithmetic == "fp32"


def test_a_study_says_by_which_protocol_it_trains() -> None:
    fair, paper = (in_words(named_protocol(name, 4)) for name in ("fair", "paper"))
    assert fair.startswith("fair protocol: ") and "all designs by the same settings" in fair
    assert paper.startswith("paper protocol: ") and "augmentation, which is not described" in paper
    assert fair.endswith("seed 4")


def test_a_study_does_not_go_on_by_another_protocol() -> None:
    began = json.loads(json.dumps(asdict(named_protocol("fair", 0))))
    asked = named_protocol("paper", 0)
    assert resumed_protocol(asked, "auto", began) == asked
    assert resumed_protocol(named_protocol("fair", 0), "auto", began).name == "fair"


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="--protocol 'best': choose one of fair, paper"):
        load_settings("pareto", {"protocol": "best"})


def test_an_epoch_of_the_built_in_encoders_is_small(evaluator: QualityEvaluator) -> None:
    found = epoch_macs(evaluator.protocol, evaluator.trainer.preprocessing, demo())
    assert 0 < found["text"] < found["vision"] < chosen.WHOLE_TRAINING_MACS


def test_another_machine_goes_on_as_the_study_began() -> None:
    began = replace(
        TrainingProtocol("text-tuned", arithmetic="bf16"),
        fusion=TrainingConfig(24, 4, 32, 5e-4, 0.0),
    )
    kept = json.loads(json.dumps(asdict(began)))
    kept["fusion"]["max_macs"] = 5e11  # as version 0.1.0 stored it
    here = TrainingProtocol("frozen", arithmetic="fp32")
    assert resumed_protocol(here, "auto", kept) == began
    assert resumed_protocol(here, "frozen", kept) == replace(began, trunks="frozen") != began
    assert resumed_protocol(replace(here, seed=3), "auto", kept) == replace(began, seed=3) != began


def test_every_design_is_trained_for_the_same_epochs_on_a_cpu(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frozen in (1e15, 1e9):
        found = choice(evaluator, monkeypatch, frozen, frozen)
        named = named_protocol("fair", found.seed)
        assert (found.fusion, found.fusion_pretrained) == (named.fusion, named.fusion_pretrained)


def test_a_design_that_a_study_of_0_1_0_cut_short_is_named() -> None:
    short = DesignResult(
        0,
        "complete",
        "",
        accuracy=Value(70.0),
        latency=Value(2.0),
        shortened="fusion trained for at most 1 of 3 epochs",
    )
    assert [
        said for said in cautions_of([short], {}) if "1 trial (trial 0) had a fusion so" in said
    ]
    assert not cautions_of([replace(short, shortened="")], {})


def test_whole_training_in_bf16_is_judged_in_fp32_and_kept_apart(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    found = {}
    for arithmetic in ("fp32", "bf16"):
        protocol = replace(QUICK, trunks="by-stage", arithmetic=arithmetic)  # type: ignore[arg-type]
        evaluator = quality(data, tmp_path / "home", protocol)
        found[arithmetic] = evaluator.evaluate(design())
        assert next(evaluator.trainer.trained(design()).parameters()).dtype == torch.float32
    assert found["fp32"].key != found["bf16"].key


def test_the_network_that_is_tested_stands_where_its_inputs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = quality(image_folder(tmp_path / "set"), tmp_path / "home")
    evaluator.evaluate(design())
    assert evaluator.trainer.plan.fidelity(design()) == ON_FROZEN
    monkeypatch.setattr(evaluator.trainer, "compute_device", "meta")
    monkeypatch.setattr(evaluator.trainer.inputs, "_device", "meta")
    monkeypatch.setattr(
        "evaluators.quality.evaluator.predict",
        lambda module, examples: examples.batch(torch.arange(2)).logits(module),
    )
    with pytest.raises(NotImplementedError, match="meta"):  # all went there; nothing comes back
        evaluator.test(design())
