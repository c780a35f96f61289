"""How a study trains: chosen for the machine that begins it, kept by every machine that goes on."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from test_evaluators_contract import QUICK, demo, design, image_folder, quality
from torch import nn

import studies.protocol as chosen
from evaluators.quality import ON_FROZEN, QualityEvaluator
from evaluators.training import Regime, TrainingProtocol, Trunks, affordable_epochs
from studies.outcome import Row
from studies.protocol import chosen_protocol, epoch_macs, resumed_protocol
from studies.records import cautions_of, figures_of, record_of
from studies.settings import Settings, load_settings


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    data = image_folder(tmp_path_factory.mktemp("data") / "set")
    return quality(data, tmp_path_factory.mktemp("home"), TrainingProtocol())


def settings(trunks: str = "auto") -> Settings:
    return load_settings("pareto", trunks=trunks)


def choice(
    evaluator: QualityEvaluator,
    monkeypatch: pytest.MonkeyPatch,
    text: float,
    vision: float,
    trunks: str = "auto",
    compute: str = "cpu",
) -> TrainingProtocol:
    """What is chosen where an epoch costs so much and the processor multiplies in bf16."""
    monkeypatch.setattr(chosen, "epoch_macs", lambda *_: {"text": text, "vision": vision})
    monkeypatch.setattr(chosen, "native_arithmetic", lambda _: "bf16")
    return chosen_protocol(settings(trunks), evaluator, demo(), compute)


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
    assert found.fusion.max_macs is not None


def test_a_gpu_trains_whole_and_without_a_bound(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = choice(evaluator, monkeypatch, 1e15, 1e15, compute="cuda")
    assert (found.trunks, found.arithmetic, found.fusion.max_macs) == ("by-stage", "bf16", None)


@pytest.mark.parametrize("trunks", get_args(Trunks))
def test_trunks_that_are_asked_for_win(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, trunks: str
) -> None:
    assert choice(evaluator, monkeypatch, 1e15, 1e15, trunks).trunks == trunks


def test_an_epoch_of_the_built_in_encoders_is_small(evaluator: QualityEvaluator) -> None:
    found = epoch_macs(evaluator, demo())
    assert 0 < found["text"] < found["vision"] < chosen.WHOLE_TRAINING_MACS


def test_another_machine_goes_on_as_the_study_began() -> None:
    began = replace(
        TrainingProtocol("text-tuned", arithmetic="bf16"),
        fusion=Regime(24, 4, 32, 5e-4, 0.0, max_macs=5e11),
    )
    kept = json.loads(json.dumps(asdict(began)))
    here = TrainingProtocol("frozen", arithmetic="fp32")
    assert resumed_protocol(here, "auto", kept) == began
    assert resumed_protocol(here, "frozen", kept) == replace(began, trunks="frozen") != began
    assert resumed_protocol(replace(here, seed=3), "auto", kept) == replace(began, seed=3) != began


class Texts:
    """Texts of two lengths; `logits` costs what the longest of a batch does."""

    def __init__(self, short: int, long: int) -> None:
        self.lengths = torch.tensor([4] * short + [400] * long)
        self.labels = torch.zeros(short + long, dtype=torch.int64)

    def logits(self, module: nn.Module, indices: torch.Tensor) -> torch.Tensor:
        longest = int(self.lengths[indices].max())
        said: torch.Tensor = module(torch.zeros(len(indices), longest, 8)).mean(1)
        return said


def test_a_bound_gives_epochs_by_the_texts_mean_length_in_any_order() -> None:
    module, regime = nn.Linear(8, 2), Regime(50, 50, 8, 1e-3, 0.0)
    examples = Texts(short=90, long=10)
    cost = 3 * 100 * 8 * 2 * 4  # passes, samples, weights, tokens of most texts
    bounded = replace(regime, max_macs=7.5 * cost)
    assert affordable_epochs(module, examples, regime) == 50
    assert affordable_epochs(module, examples, bounded) == 7
    examples.lengths = examples.lengths.flip(0)
    assert affordable_epochs(module, examples, bounded) == 7
    assert affordable_epochs(module, examples, replace(regime, max_macs=1.0)) == 1


def test_a_design_that_a_bound_cut_short_is_named(tmp_path: Path) -> None:
    bounded = replace(QUICK, fusion=replace(QUICK.fusion, max_macs=1.0))
    found = quality(image_folder(tmp_path / "set"), tmp_path / "home", bounded).evaluate(design())
    assert found.details["fusion_epochs"] == [1, 3]
    record = record_of(None, found, design().as_json(), latency_ms=[1.0, 0.9, 1.1])
    rows = [Row(0, "complete", "", **figures_of(record))]
    assert rows[0].shortened == "fusion trained for at most 1 of 3 epochs"
    assert [said for said in cautions_of(rows, {}) if "1 trial (trial 0) had a fusion so" in said]
    assert not cautions_of([replace(rows[0], shortened="")], {})


def test_whole_training_in_bf16_is_judged_in_fp32_and_kept_apart(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    found = {}
    for arithmetic in ("fp32", "bf16"):
        protocol = replace(QUICK, trunks="by-stage", arithmetic=arithmetic)  # type: ignore[arg-type]
        evaluator = quality(data, tmp_path / "home", protocol)
        found[arithmetic] = evaluator.evaluate(design())
        assert next(evaluator.trained(design()).parameters()).dtype == torch.float32
    assert found["fp32"].key != found["bf16"].key


def test_the_network_that_is_tested_stands_where_its_inputs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = quality(image_folder(tmp_path / "set"), tmp_path / "home")
    evaluator.evaluate(design())
    assert evaluator.fidelity(design()) == ON_FROZEN
    monkeypatch.setattr(evaluator, "_device", "meta")
    monkeypatch.setattr(
        "evaluators.quality.predict",
        lambda module, examples: examples.logits(module, torch.arange(2)),
    )
    with pytest.raises(NotImplementedError, match="meta"):  # all went there; nothing comes back
        evaluator.test(design())
