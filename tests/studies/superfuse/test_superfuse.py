"""The study `superfuse`: its model against plain torch, its noise, its bad inputs, its run."""

import json
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import Browser, Parsed, headless
from tiny import SPACE, Place, write_data, write_space
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.evaluation import NotFiniteError
from evaluators.superfuse import model as superfuse
from evaluators.superfuse.embeddings import Embeddings, SplitPairs, Task, WidthError, drawn
from evaluators.superfuse.model import (
    FALSE_POSITIVES,
    Networks,
    SuperfuseConfig,
    fused_width,
    noise_curves,
    project,
    roc_curve_of,
    train,
)
from evaluators.superfuse.names import (
    ACTIVATIONS,
    FACTORS,
    FUSIONS,
    NOISED,
    Activation,
    Fusion,
    Noised,
)
from search_space import errors as codes
from search_space.operators.vectors import concatenation, product, tensor
from studies.cli import app as cli
from studies.config.settings import load_settings
from studies.superfuse.outcome import mean
from studies.superfuse.run import sizes

FUSE: dict[Fusion, Callable[[Tensor, Tensor], Tensor]] = {
    "concatenation": concatenation,
    "product": product,
    "tensor": tensor,
}
PRESET = """\
title = "A small study"
about = "Tiny sizes."
seed = 0
[superfuse]
smallest = 32
largest = 64
seeds = 3
epochs = 3
activation = "none"
width = 6
"""


def synthetic(width: int = 6, rows: int = 96) -> Task:
    return drawn(width, {"train": rows, "valid": 64, "test": 70}, 0).synthetic_task()


def uneven() -> Task:
    """Three classes, text 5 and vision 3 wide."""
    random = torch.Generator().manual_seed(0)
    parts = {
        split: SplitPairs(
            torch.randn(rows, 5, generator=random),
            torch.randn(rows, 3, generator=random),
            torch.arange(rows) % 3,
        )
        for split, rows in (("train", 60), ("valid", 30), ("test", 33))
    }
    return Task("real", ("a", "b", "c"), parts)  # type: ignore[arg-type]


# -- the model


def test_a_linear_layer_over_an_outer_product_is_a_bilinear_form() -> None:
    rng = np.random.default_rng(0)
    weights, text, vision = (rng.normal(size=s) for s in ((4, 7, 15), (4, 9, 5), (4, 9, 3)))
    plain = np.einsum("srnm,sbn,sbm->sbr", weights.reshape(4, 7, 5, 3), text, vision)
    made = project("tensor", *map(torch.from_numpy, (weights, text, vision)))
    np.testing.assert_allclose(made.numpy(), plain, rtol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("shared", ["neither", "text", "both"])
def test_a_projection_is_a_linear_layer_over_the_operator(fusion: Fusion, shared: str) -> None:
    random = torch.Generator().manual_seed(1)
    text, vision = (torch.randn(3, 8, 6, generator=random) for _ in range(2))
    weights = torch.randn(3, 4, fused_width(fusion, 6, 6), generator=random)
    if shared != "neither":
        text = text[:1]
    if shared == "both":
        vision = vision[:1]
    made = project(fusion, weights, text, vision)
    for seed in range(3):
        fused = FUSE[fusion](text[seed % len(text)], vision[seed % len(vision)])
        torch.testing.assert_close(made[seed], F.linear(fused, weights[seed]))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_logits_are_those_of_the_two_layers_for_softmax(
    fusion: Fusion, activation: Activation
) -> None:
    task = synthetic() if fusion == "product" else uneven()
    networks = Networks(fusion, task, [4, 5], SuperfuseConfig(activation=activation))
    part = task.parts["test"]
    made = networks.logits(networks.parts(), part.text[None], part.vision[None])
    for k in range(2):
        logits = plain_module(networks, k, activation)(FUSE[fusion](part.text, part.vision))
        torch.testing.assert_close(made[k].softmax(1), logits.softmax(1))


def plain_module(networks: Networks, k: int, activation: Activation) -> nn.Sequential:
    """One of the networks as torch's own layers, with the same weights."""
    first, bias, second, last = (each[k].detach().clone() for each in networks.parameters)
    made = nn.Sequential(
        nn.Linear(first.shape[1], len(first)),
        nn.ReLU() if activation == "relu" else nn.Identity(),
        nn.Linear(second.shape[1], len(second)),
    )
    state = {"0.weight": first, "0.bias": bias, "2.weight": second, "2.bias": last}
    made.load_state_dict(state)
    return made


# -- training


def plainly_trained(
    task: Task, fusion: Fusion, size: int, seed: int, config: SuperfuseConfig
) -> tuple[float, float, int]:
    """Validation and test accuracy in percent and best epoch, by torch's own layers and AdamW."""
    module = plain_module(Networks(fusion, task, [seed], config), 0, config.activation)
    fused = {s: FUSE[fusion](p.text, p.vision) for s, p in task.parts.items()}
    labels = {split: part.labels for split, part in task.parts.items()}
    rows = torch.randperm(len(labels["train"]), generator=superfuse._generator(seed, "rows"))[:size]
    order = superfuse._generator(seed, "order")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    best = (-1.0, 0.0, 0.0, 0)
    for epoch in range(1, config.epochs + 1):
        for batch in rows[torch.randperm(size, generator=order)].split(config.batch_size(size)):
            optimizer.zero_grad()
            F.cross_entropy(module(fused["train"][batch]), labels["train"][batch]).backward()
            optimizer.step()
        with torch.no_grad():
            logits, test = module(fused["valid"]), module(fused["test"])
            right = float((logits.argmax(1) == labels["valid"]).double().mean())
            loss = float(F.cross_entropy(logits, labels["valid"]))
            tested = float((test.argmax(1) == labels["test"]).double().mean())
            best = max(best, (right, -loss, tested, epoch), key=lambda reached: reached[:2])
    return 100 * best[0], 100 * best[2], best[3]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_is_trained_as_plain_torch_would(
    fusion: Fusion, activation: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superfuse, "LEAST_CHUNK", 10)  # batches are worked on in parts
    monkeypatch.setattr(superfuse, "CHUNK", 1)
    task = synthetic() if fusion == "product" else uneven()
    config = SuperfuseConfig(epochs=12, activation=activation, batch=16)
    (made,) = train(task, fusion, 50, [3], config)
    plain = plainly_trained(task, fusion, 50, 3, config)
    assert (made.valid, made.test, made.best_epoch) == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_seeds_trained_together_come_out_as_each_alone(fusion: Fusion) -> None:
    task, config, seeds = synthetic(), SuperfuseConfig(epochs=8), list(range(20))
    together = train(task, fusion, 64, seeds, config)
    assert [each.seed for each in together] == seeds
    for seed in (0, 7, 19):
        (alone,) = train(task, fusion, 64, [seed], config)
        made = together[seed]
        assert (made.valid, made.test, made.best_epoch) == pytest.approx(
            (alone.valid, alone.test, alone.best_epoch), abs=1e-4
        )
        for noised in NOISED:
            assert made.noise[noised] == pytest.approx(alone.noise[noised], abs=2.0)


def test_seeds_that_do_not_fit_side_by_side_are_trained_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, config = synthetic(), SuperfuseConfig(epochs=3)
    whole = train(task, "tensor", 32, [0, 1, 2, 3, 4], config)
    monkeypatch.setattr(superfuse, "MAX_WEIGHTS", 2 * 32 * 36)
    parts = train(task, "tensor", 32, [0, 1, 2, 3, 4], config)
    assert [each.test for each in parts] == pytest.approx([each.test for each in whole], abs=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_larger_training_set_holds_the_smaller_one_alike_for_every_fusion(fusion: Fusion) -> None:
    task, config = synthetic(rows=64), SuperfuseConfig(epochs=20)
    part = task.parts["train"]
    beyond = torch.randperm(64, generator=superfuse._generator(2, "rows"))[32:]
    labels = part.labels.clone()
    labels[beyond] = 1 - labels[beyond]
    other = replace(task, parts={**task.parts, "train": replace(part, labels=labels)})

    def found(of: Task, size: int) -> object:
        (made,) = train(of, fusion, size, [2], config)
        return made.valid, made.test, made.best_epoch, made.noise

    assert found(task, 32) == found(other, 32)
    assert found(task, 64) != found(other, 64)


def test_product_learns_the_dot_product_from_few_pairs_and_concatenation_does_not() -> None:
    task = drawn(8, {"train": 512, "valid": 256, "test": 512}, 0).synthetic_task()
    found = {
        fusion: np.array(
            [t.test for t in train(task, fusion, 512, range(4), SuperfuseConfig(epochs=40))]
        )
        for fusion in ("concatenation", "product")
    }
    assert (found["product"] - found["concatenation"]).min() > 10


def test_training_ends_when_it_is_asked_to() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(superfuse.Stopped):
        train(synthetic(), "product", 32, [0], SuperfuseConfig(), stop=stop)


def test_embeddings_too_large_for_numbers_end_in_words() -> None:
    task = synthetic()
    huge = {
        s: replace(p, text=p.text * 1e30, vision=p.vision * 1e30) for s, p in task.parts.items()
    }
    with pytest.raises(NotFiniteError, match="scale the embeddings"):
        train(replace(task, parts=huge), "product", 32, [0], SuperfuseConfig(epochs=2))


# -- noise


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_pass_gives_what_noise_added_factor_by_factor_does(
    fusion: Fusion, activation: Activation
) -> None:
    task, seeds = synthetic(rows=300), [0, 1, 2]
    networks = Networks(fusion, task, seeds, SuperfuseConfig(activation=activation))
    parts = [part.detach().double() for part in networks.parts()]
    train_part, test = (
        replace(p, text=p.text.double(), vision=p.vision.double())
        for p in (task.parts["train"], task.parts["test"])
    )
    curves = noise_curves(networks, parts, train_part, test, seeds)
    rows = len(test)
    of_text = superfuse._noise(train_part.text, seeds, "text noise")(rows)
    of_vision = superfuse._noise(train_part.vision, seeds, "vision noise")(rows)
    for k, factor in enumerate(FACTORS):
        on: dict[Noised, tuple[float, float]] = {
            "text": (factor, 0), "image": (0, factor), "both": (factor, factor)
        }  # fmt: skip
        for noised, (a, b) in on.items():
            logits = networks.logits(parts, test.text + a * of_text, test.vision + b * of_vision)
            right = (logits.argmax(2) == test.labels).sum(1) / rows
            torch.testing.assert_close(
                curves[noised][k].double(), right.double(), atol=1e-6, rtol=0
            )


def test_noise_has_the_mean_and_deviation_of_each_feature_of_the_training_rows() -> None:
    rng = torch.Generator().manual_seed(0)
    scale, shift = torch.tensor([0.5, 2.0, 0.0]), torch.tensor([-1.0, 3.0, 4.0])
    rows = torch.randn(500, 3, generator=rng) * scale + shift
    made = superfuse._noise(rows, [0, 1], "text noise")(20_000)
    torch.testing.assert_close(made.mean(1), rows.mean(0).expand(2, 3), atol=0.05, rtol=0)
    torch.testing.assert_close(made.std(1), rows.std(0).expand(2, 3), atol=0.05, rtol=0)
    assert not torch.equal(made[0], made[1])
    again = superfuse._noise(rows, [1], "text noise")(20_000)
    assert torch.equal(made[1], again[0])


def test_the_roc_curve_of_scores_that_order_three_of_four_pairs() -> None:
    labels, positive = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    area, curve = roc_curve_of(labels, np.stack([1 - positive, positive], axis=1))
    assert area == 0.75
    at = dict(zip(FALSE_POSITIVES, curve, strict=True))
    assert (at[0.0], at[0.02], at[0.48], at[0.52], at[1.0]) == (0.0, 0.5, 0.5, 1.0, 1.0)


def test_the_roc_curve_of_classes_is_the_mean_of_each_against_the_rest() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    scores = np.eye(3)[labels]
    scores[2] = scores[5] = (0.6, 0.4, -0.1)  # class 2 scores least where it is right
    area, curve = roc_curve_of(labels, scores)
    assert area == pytest.approx((1 + 1 + 0) / 3) and len(curve) == len(FALSE_POSITIVES)
    assert roc_curve_of(np.zeros(4, dtype=np.int64), scores[:4])[1] == ()


def test_a_class_that_test_lacks_is_left_out_of_the_roc_curve() -> None:
    labels = np.array([0, 1, 0, 1])
    assert roc_curve_of(labels, np.eye(3)[labels])[0] == 1.0


def test_chance_has_half_of_the_area_and_what_is_learnt_nearly_all() -> None:
    config = SuperfuseConfig(epochs=30)
    (found,) = train(synthetic(4, 900), "product", 800, [0], config)
    (blind,) = train(synthetic(4, 900), "concatenation", 800, [0], config)
    assert found.auc > 0.95 and abs(blind.auc - 0.5) < 0.2
    assert list(found.roc) == sorted(found.roc) and found.roc[0] == 0 and found.roc[-1] == 1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_noise_factor_of_zero_is_the_clean_figure(fusion: Fusion) -> None:
    for made in train(synthetic(), fusion, 64, [0, 1], SuperfuseConfig(epochs=3)):
        assert FACTORS[0] == 0 and len(FACTORS) == 20 and FACTORS[-1] == 0.95
        for noised in NOISED:
            assert made.noise[noised][0] == pytest.approx(made.test, abs=1e-4)


# -- embeddings


def test_projections_are_orthonormal_and_leave_a_modality_of_that_width_alone() -> None:
    task = uneven()
    narrowed = Embeddings("x", task.classes, task.parts).projected(3, 0)
    assert narrowed.widths == (3, 3)
    assert torch.equal(narrowed.real["train"].vision, task.parts["train"].vision)
    turn = torch.linalg.lstsq(task.parts["train"].text, narrowed.real["train"].text).solution
    torch.testing.assert_close(turn.T @ turn, torch.eye(3), atol=1e-5, rtol=0)
    with pytest.raises(WidthError, match="vision is 3 wide"):
        narrowed.projected(4, 0)


def test_centring_takes_the_training_mean_off_every_split() -> None:
    task = uneven()
    made = Embeddings("x", task.classes, task.parts).centred()
    mean_of = task.parts["train"].text.mean(0)
    torch.testing.assert_close(made.real["test"].text, task.parts["test"].text - mean_of)
    assert made.real["train"].vision.mean(0).abs().max() < 1e-6


def test_training_sizes_double_to_the_largest_or_to_all_pairs() -> None:
    (told, _) = superfuse_settings()
    told = replace(told, smallest=32, largest=65_536)
    assert sizes(told, 1_000)[-2:] == (512, 1_000)
    assert sizes(told, 1_100)[-2:] == (512, 1_024)
    assert sizes(told, 327_700)[-2:] == (32_768, 65_536)
    assert sizes(told, 32) == (32,)


def superfuse_settings(**flags: Any) -> tuple[Any, Any]:
    settings = load_settings("superfuse", flags)
    return settings.preset.superfuse, settings


def test_an_interval_is_students_over_seeds() -> None:
    found = mean(np.array([1.0, 2.0, 3.0]))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-3)


# -- the command


Said = tuple[int, str, str]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """`fusion-nas run` in this process, in a folder with a small preset of this kind."""
    place = Place(tmp_path)
    for name, value in {**place.environment(), "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(PRESET, encoding="utf-8")

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fusion-nas", "run", "--study", "small.toml", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    return run


def arrays(rows: int = 90, text: int = 6, vision: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows)
    made = rng.normal(size=(rows, text))
    made[:, 0] += 2 * labels
    return {"text": made, "vision": rng.normal(size=(rows, vision)), "labels": labels}


def test_a_study_runs_and_a_second_time_trains_nothing(command: Callable[..., Said]) -> None:
    code, out, err = command()
    assert (code, err) == (0, "")
    assert "Synthetic task: test accuracy" in out and "Found. Synthetic task, 64" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith(("page:", "["))) <= 80
    kept = Path("home/superfuse.jsonl").read_bytes()
    code, again, _ = command()
    assert code == 0 and "18 of 18 networks are cached" in again
    assert Path("home/superfuse.jsonl").read_bytes() == kept
    assert again.partition("Synthetic task")[2] == out.partition("Synthetic task")[2]


def test_a_study_that_was_broken_off_trains_the_rest(command: Callable[..., Said]) -> None:
    assert command("--json")[0] == 0
    file = Path("home/superfuse.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:10]) + lines[10][:40])
    code, out, err = command("--json")
    assert code == 0 and "10 of 18 networks are cached" in err
    assert len(file.read_bytes().splitlines()) == 19  # the torn line stays
    cells = json.loads(out)["cells"]
    assert [len(cell["test_percent_by_seed"]) for cell in cells] == [3] * 6


def test_sizes_are_set_by_a_flag(command: Callable[..., Said]) -> None:
    code, out, _ = command("--sizes", "8:16", "--json")
    assert code == 0
    found = json.loads(out)
    assert {cell["size"] for cell in found["cells"]} == {8, 16}
    assert len(found["false_positive_rates"]) == len(found["cells"][0]["roc"])
    assert 0 <= found["cells"][0]["auc"]["value"] <= 1


def test_more_seeds_keep_those_that_are_there(command: Callable[..., Said]) -> None:
    assert command("--seeds", "2")[0] == 0
    code, out, _ = command("--seeds", "4")
    assert code == 0 and "12 of 24 networks are cached" in out


def test_json_is_one_object_with_intervals(command: Callable[..., Said]) -> None:
    code, out, _ = command("--json")
    assert code == 0 and out.count("\n") == 1
    found = json.loads(out)
    (cell,) = (c for c in found["cells"] if (c["fusion"], c["size"]) == ("tensor", 64))
    assert cell["test_percent"]["low"] < cell["test_percent"]["value"]
    assert [len(curve) for curve in cell["noise_percent"].values()] == [20, 20, 20]
    assert cell["noise_percent"]["both"][0]["value"] == pytest.approx(cell["test_percent"]["value"])
    assert len(found["findings"]) == 1


def test_given_embeddings_are_studied_on_both_tasks(command: Callable[..., Said]) -> None:
    np.savez("own.npz", **arrays())
    code, out, _ = command("--embeddings", "own.npz", "--json")
    assert code == 0
    found = json.loads(out)
    assert [task["name"] for task in found["tasks"]] == ["real", "synthetic"]
    assert found["tasks"][0]["rows"] == {"train": 54, "valid": 18, "test": 18}
    assert Path("runs/superfuse-own.html").is_file() or Path("runs/small-own.html").is_file()


def test_a_split_of_ones_own_is_kept_to(command: Callable[..., Said]) -> None:
    split = np.array(["train"] * 60 + ["valid"] * 20 + ["test"] * 10)
    labels = np.array(["bad", "fair", "good"] * 30)
    np.savez("own.npz", **{**arrays(), "labels": labels, "split": split})
    code, out, _ = command("--embeddings", "own.npz", "--json")
    assert code == 0
    real = json.loads(out)["tasks"][0]
    assert real["rows"] == {"train": 60, "valid": 20, "test": 10}
    assert real["classes"] == ["bad", "fair", "good"]


def test_unequal_widths_leave_product_and_synthetic_out_and_a_width_brings_them_in(
    command: Callable[..., Said],
) -> None:
    np.savez("own.npz", **arrays(vision=4))
    code, out, _ = command("--embeddings", "own.npz")
    assert code == 0
    said = " ".join(out.split())
    assert "left out: product, which takes equal widths" in said and "--width 4" in said
    assert "Synthetic task:" not in out
    code, out, _ = command("--embeddings", "own.npz", "--width", "4", "--json")
    assert code == 0
    assert {cell["fusion"] for cell in json.loads(out)["cells"]} == set(FUSIONS)


def test_dot_products_of_one_sign_leave_the_synthetic_task_out_until_centred(
    command: Callable[..., Said],
) -> None:
    made = arrays()
    np.savez("own.npz", **{**made, "text": made["text"] + 30, "vision": made["vision"] + 30})
    code, out, _ = command("--embeddings", "own.npz")
    assert code == 0
    assert "every dot product of train is above 0" in " ".join(out.split()) and "--center" in out
    code, out, _ = command("--embeddings", "own.npz", "--center", "--json")
    assert [task["name"] for task in json.loads(out)["tasks"]] == ["real", "synthetic"]


def test_embeddings_come_from_encoders_at_hand(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    write_data(tmp_path / "data")
    write_space(tmp_path / "tiny.toml", SPACE)
    code, out, err = command("--data", "data", "--space", "tiny.toml", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["tasks"][0]["widths"] == [16, 16]
    assert found["tasks"][0]["rows"] == {"train": 40, "valid": 12, "test": 12}
    assert "tiny-bert" in found["embeddings"] and "tiny-vit" in found["embeddings"]


def without(*names: str) -> dict[str, Any]:
    return {name: array for name, array in arrays().items() if name not in names}


def holed(name: str) -> dict[str, Any]:
    made = arrays()
    made[name] = made[name].astype(float)
    made[name][7] = np.nan
    return made


THIRD = ["train"] * 60 + ["test", "valid"] * 15
BAD_FILES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "lengths": (
        {**arrays(), "vision": np.ones((89, 6))},
        ("text has 90 rows and vision 89", "one row of each a pair"),
    ),
    "nan in text": (holed("text"), ("text has NaN", "1 of 90 rows", "row 7", "leave these rows")),
    "nan in vision": (holed("vision"), ("vision has NaN", "row 7")),
    "nan in labels": (holed("labels"), ("labels has nan in row 7", "whole numbers or text")),
    "too large": ({**arrays(), "text": np.full((90, 6), 1e300)}, ("text has NaN or infinite",)),
    "labels of another length": (
        {**arrays(), "labels": np.zeros(89)},
        ("labels has the shape (89,)", "90 pairs", "(90,)"),
    ),
    "one class": (
        {**arrays(), "labels": np.full(90, 1)},
        ("labels holds one class only (1)", "two classes or more"),
    ),
    "one class in train": (
        {**arrays(), "labels": np.arange(90) >= 60, "split": np.array(THIRD)},
        ("all 60 training rows have the same label", "two classes"),
    ),
    "fractions": ({**arrays(), "labels": np.linspace(0, 1, 90)}, ("labels has 0.0112", "row 1")),
    "a label a row": ({**arrays(), "labels": np.arange(90)}, ("labels has 90 different",)),
    "no labels": (without("labels"), ("no array 'labels'", "'text', 'vision'", "numpy.savez")),
    "no text nor labels": (without("text", "labels"), ("no array 'text' nor 'labels'",)),
    "objects": (
        {**arrays(), "labels": np.array([object(), "x"] * 45, dtype=object)},
        ("labels holds pickled objects", "never loaded", ".astype(str)"),
    ),
    "flat": ({**arrays(), "text": np.ones(90)}, ("text has the shape (90,)", "(rows, width)")),
    "text of words": ({**arrays(), "text": np.full((90, 6), "x")}, ("text is of type", "numbers")),
    "few rows": (arrays(40), ("24 rows for training", "smallest training size of 32", "more rows")),
    "empty split": (
        {**arrays(), "split": np.array(["train"] * 60 + ["valid"] * 30)},
        ("no rows for test", "train, valid and test"),
    ),
    "unknown split": (
        {**arrays(), "split": np.array(["train"] * 60 + ["dev"] * 30)},
        ("split holds 'dev'", "train, valid, test"),
    ),
    "split of numbers": ({**arrays(), "split": np.zeros(90)}, ("split has", "float64", "text")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_told_in_one_line(
    command: Callable[..., Said], name: str
) -> None:
    made, words = BAD_FILES[name]
    np.savez("own.npz", **made)
    one_line(command("--embeddings", "own.npz"), codes.DATA, "own.npz", *words)


class Harmful:
    """Writes a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("harmed", "w"))


@pytest.mark.parametrize("kind", ["text", "npy", "pickle", "cut", "empty"])
def test_a_file_that_is_no_npz_is_refused_and_never_unpickled(
    command: Callable[..., Said], kind: str
) -> None:
    file = Path("own.npz")
    np.savez(file, **arrays())
    content = {
        "text": b"text,vision,labels\n",
        "pickle": pickle.dumps(Harmful()),
        "cut": file.read_bytes()[:2000],
        "empty": b"",
    }
    if kind == "npy":
        with open(file, "wb") as opened:
            np.save(opened, np.ones(3))
    else:
        file.write_bytes(content[kind])
    said = command("--embeddings", "own.npz")
    one_line(said, codes.DATA, "own.npz", "not a .npz file", "numpy.savez")
    assert not Path("harmed").exists()


def test_a_damaged_array_is_told(command: Callable[..., Said]) -> None:
    np.savez("own.npz", **arrays())
    whole = bytearray(Path("own.npz").read_bytes())
    whole[1000] ^= 0xFF
    Path("own.npz").write_bytes(whole)
    one_line(command("--embeddings", "own.npz"), codes.DATA, "text cannot be read", "damaged")


BAD_FLAGS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--embeddings", "nowhere.npz"), ("--embeddings nowhere.npz", "no such file")),
    (("--embeddings", "own.npz", "--width", "9"), ("--width 9", "6 wide", "give 2 to 6")),
    (("--width", "1"), ("--width 1", "2 to 4096")),
    (("--seeds", "1"), ("--seeds 1", "intervals are over seeds")),
    (("--center",), ("--center", "drawn", "--embeddings")),
    (("--space", "demo"), ("--space without --data",)),
    (("--text-encoder", "x"), ("--text-encoder without --data",)),
    (("--embeddings", "own.npz", "--data", "."), ("--data with --embeddings", "one of them")),
    (("--trials", "3"), ("--trials", "leave this flag out")),
    (("--sampler", "tpe"), ("--sampler", "leave this flag out")),
    (("--latency-limit", "3"), ("--latency-limit", "leave this flag out")),
    (("--device", "local"), ("--device", "leave this flag out")),
    (("--precision", "int8"), ("--precision", "leave this flag out")),
    (("--sizes", "32"), ("--sizes 32", "32:65536")),
    (("--sizes", "32:x"), ("--sizes 32:x", "32:65536")),
    (("--sizes", "-2:64"), ("--sizes -2:64", "32:65536")),
    (("--sizes", "1:64"), ("--sizes, the smallest 1", "give 2")),
    (("--sizes", "64:32"), ("--sizes, the largest 32", "give 64")),
    (("--seed-paper",), ("--seed-paper", "leave this flag out")),
    (("--name", "x"), ("--name", "leave this flag out")),
]


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS, ids=[" ".join(f) for f, _ in BAD_FLAGS])
def test_a_flag_that_means_nothing_here_is_refused_by_name(
    command: Callable[..., Said], flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    np.savez("own.npz", **arrays())
    one_line(command(*flags), codes.USAGE, *words)


@pytest.mark.parametrize(
    "flag", [("--embeddings", "x.npz"), ("--width", "3"), ("--center",), ("--sizes", "32:64")]
)
def test_its_own_flags_are_refused_elsewhere(
    command: Callable[..., Said], flag: tuple[str, ...]
) -> None:
    said = command("--study", "pareto", *flag)
    one_line(said, codes.USAGE, flag[0], "study pareto does not take it", "--study superfuse")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 3", "epochs = 0", "epochs = 0: give 1"),
        ("epochs = 3", 'epochs = "x"', "epochs = 'x' is not int"),
        ("seeds = 3", "", "seeds is missing"),
        ("width = 6", "width = 6\ndepth = 2", "depth is not a setting"),
        ('"none"', '"tanh"', "choose one of none, relu"),
        ("largest = 64", "largest = 16", "largest = 16: give 32"),
    ],
)
def test_a_preset_that_cannot_be_meant(
    command: Callable[..., Said], old: str, new: str, words: str
) -> None:
    Path("small.toml").write_text(PRESET.replace(old, new), encoding="utf-8")
    one_line(command(), codes.USAGE, words)


def one_line(said: Said, code: int, *words: str) -> None:
    assert said[0] == code, said
    assert said[2].startswith("fusion-nas: ") and said[2].count("\n") == 1, said
    for word in words:
        assert word in said[2], (word, said[2])


# -- the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from headless()


def test_the_page_says_what_was_found_and_what_is_not_as_published(
    command: Callable[..., Said],
) -> None:
    np.savez("own.npz", **arrays())
    code, _, _ = command("--embeddings", "own.npz", "--page", "page.html")
    assert code == 0
    parsed = Parsed(Path("page.html").read_text(encoding="utf-8"))
    for words in (
        "A small study",
        "What was found",
        "Synthetic task, 54 training pairs",
        "ROC curves",
        "Accuracy under noise",
        "As published, and not",
        "327,700",
        "names no batch size",
        "processor time",
    ):
        assert words in parsed.words, words
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (500, True)])
def test_the_page_is_drawn_without_network_and_its_words_do_not_overlap(
    browser: Browser, command: Callable[..., Said], tmp_path: Path, width: int, dark: bool
) -> None:
    np.savez("own.npz", **arrays())
    assert command("--embeddings", "own.npz", "--page", "page.html")[0] == 0
    browser.open(Path("page.html").read_text(encoding="utf-8"), tmp_path, width, dark)
    assert browser.complaints() == []
    assert not [u for u in browser.requested() if not u.startswith(("file:", "data:", "blob:"))]
    boxes = browser.run(
        """return [...document.querySelectorAll('[role=img]')].map(plot =>
        [...plot.querySelectorAll('.xtick text, .ytick text, .annotation-text-g, .xtitle, .ytitle')]
        .map(e => { const b = e.getBoundingClientRect();
                    return [e.textContent, b.left, b.top, b.right, b.bottom]; }))"""
    )
    assert boxes and all(boxes)
    for plot in boxes:
        for k, a in enumerate(plot):
            for b in plot[:k]:
                apart = a[1] >= b[3] or b[1] >= a[3] or a[2] >= b[4] or b[2] >= a[4]
                assert apart, (a, b)


def test_a_hostile_title_and_file_name_stay_words_in_the_browser(
    browser: Browser, command: Callable[..., Said], tmp_path: Path
) -> None:
    title, name = "</script><script>window.hacked=1</script>&amp;", "<img src=x onerror=hacked=1>'&"
    preset = PRESET.replace("A small study", title)
    Path("small.toml").write_text(preset, encoding="utf-8")
    np.savez(f"{name}.npz", **arrays())
    assert command("--embeddings", f"{name}.npz", "--page", "page.html")[0] == 0
    text = Path("page.html").read_text(encoding="utf-8")
    words = Parsed(text).words
    assert title in words and name in words
    browser.open(text, tmp_path)
    assert browser.complaints() == []
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.querySelectorAll('img').length") == 0
