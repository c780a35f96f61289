"""The trainer uses a machine well without changing what it trains: batches fetched early, batches
in parts, half precision, compiled layers; on a CPU here, where all of it runs too."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from quick_evaluators import QUICK, demo, design, image_folder, quality
from torch import Tensor, nn

from evaluators.data import DataError, DataSet
from evaluators.features.examples import Batch, RawInputs
from evaluators.features.prefetch import Waited, made_ahead
from evaluators.features.preprocessing import Preprocessing
from evaluators.training.config import (
    Arithmetic,
    TrainingConfig,
    TrainingProtocol,
    named_protocol,
    protocol_from_json,
)
from evaluators.training.execution import (
    CARD_BYTES,
    PLAIN,
    RESERVED_BYTES,
    STATE_BYTES,
    UNSEEN_FACTOR,
    Execution,
    activation_bytes,
    compiled_layers,
    execution_on,
    part_size,
    repeated_layers,
)
from evaluators.training.loop import fit, predict
from search_space.design.genotype import FusionPoint
from search_space.network.network import build

REGIME = TrainingConfig(2, 2, 8, 0.01, 0.01)


class Vectors:
    """Twelve features of which the first tells the class; `asked` notes who fetched what."""

    def __init__(self, count: int, seed: int = 0) -> None:
        made = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        self.values = torch.randn(count, 12, generator=made)
        self.values[:, 0] += 2.0 * self.labels
        self.lengths: Tensor | None = None
        self.groups: Tensor | None = None
        self.asked: list[tuple[threading.Thread, list[int]]] = []

    def batch(self, indices: Tensor) -> Batch:
        self.asked.append((threading.current_thread(), indices.tolist()))
        values = self.values[indices]
        return Batch(self.labels[indices], lambda module: module(values))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2))


def trained(execution: Execution = PLAIN, **changes: object) -> dict[str, Tensor]:
    module = network()
    config = replace(REGIME, **changes)  # type: ignore[arg-type]
    fit(module, Vectors(40), Vectors(20, 1), config, 0, execution=execution)
    return module.state_dict()


# -- loading


def test_what_is_made_ahead_comes_in_order_and_never_further_ahead_than_asked() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    source = made_ahead(make, range(20), ahead=3)
    assert [next(source) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(made) <= 5 + 3
    assert list(source) == [k * k for k in range(5, 20)] and made == list(range(20))


def test_batches_are_made_while_the_reader_is_busy() -> None:
    reader_is_busy = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            assert reader_is_busy.wait(10), "item 1 was only asked for when it was needed"
        return item

    source = made_ahead(make, range(3), ahead=2)
    assert next(source) == 0
    reader_is_busy.set()
    assert list(source) == [1, 2]


@pytest.mark.parametrize("ahead", [0, 4])
def test_an_error_in_the_background_comes_out_in_its_turn(ahead: int) -> None:
    def make(item: int) -> int:
        if item == 2:
            raise DataError("item 2 is broken")
        return item

    source = made_ahead(make, range(5), ahead)
    assert [next(source), next(source)] == [0, 1]
    with pytest.raises(DataError, match="item 2"):
        next(source)


def test_background_threads_end_with_their_reader() -> None:
    before = threading.active_count()
    source = made_ahead(lambda item: item, range(1000), ahead=4, workers=2)
    next(source)
    source.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_waiting_is_counted_and_working_is_not() -> None:
    clock = iter([0.0, 3.0, 10.0, 11.0, 50.0, 50.5])
    waited: Waited[int] = Waited(lambda: next(clock))
    assert list(waited.over([1, 2])) == [1, 2]
    assert waited.seconds == 3.0 + 1.0 + 0.5


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_training_tells_how_long_it_waited_for_data(ahead: int) -> None:
    train = Vectors(40)
    done = fit(network(), train, Vectors(20), REGIME, 0, execution=Execution(batches_ahead=ahead))
    assert 0 < done.waited_s < done.seconds
    threads = {thread for thread, _ in train.asked}
    assert (threading.main_thread() in threads) == (ahead == 0)


def test_fetching_ahead_changes_no_weight() -> None:
    ours, theirs = trained(), trained(Execution(batches_ahead=3))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_kept_may_be_the_mean_of_the_last_epochs() -> None:
    module, ends = network(), []
    config = replace(REGIME, epochs=4, patience=4, average_from=2)

    def noted(*_: object) -> None:
        ends.append([p.detach().clone() for p in module.parameters()])

    done = fit(module, Vectors(40), Vectors(200, 1), config, 0, noted)
    own = network()
    fit(own, Vectors(40), Vectors(200, 1), replace(config, average_from=None), 0)
    assert done.best_epoch > 2, "or nothing was averaged"
    since = ends[1 : done.best_epoch]
    for k, kept in enumerate(module.parameters()):
        assert torch.allclose(kept, torch.stack([end[k] for end in since]).mean(0), atol=1e-6)
    pairs = zip(own.parameters(), module.parameters(), strict=True)
    assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)


# -- batches in parts


def test_batches_in_parts_give_the_gradient_of_the_whole() -> None:
    whole, cut = [], []
    for steps, memory in ((whole, None), (cut, 1.0)):
        module = network()
        execution = Execution(memory_bytes=memory)
        config = replace(REGIME, epochs=1, clip_norm=None, optimizer="sgd", schedule="constant")
        done = fit(module, Vectors(40), Vectors(20), config, 0, execution=execution)
        assert done.part == (2 if memory else 8)
        steps += list(module.parameters())
    for ours, theirs in zip(whole, cut, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert not torch.equal(whole[0], network()[0].weight)


def test_no_part_is_a_single_sample() -> None:
    train = Vectors(19)
    execution = Execution(memory_bytes=1.0)
    fit(network(), train, Vectors(20), replace(REGIME, epochs=1), 0, execution=execution)
    sizes = [len(indices) for _, indices in train.asked[2:]]  # two passes measured the memory
    assert sum(sizes) == 19 and set(sizes) <= {2, 3}


def test_the_part_is_what_the_kept_activations_leave_room_for() -> None:
    module, train = network(), Vectors(40)
    # Of a sample the backward pass keeps: 12 inputs and 16 outputs of tanh, four bytes each.
    assert activation_bytes(module, train, "fp32") == 4 * (12 + 16)
    states = STATE_BYTES * sum(p.numel() for p in module.parameters())
    for samples, expected in ((1, 2), (5, 5), (400, 8)):
        room = samples * UNSEEN_FACTOR * 4 * (12 + 16) + 1
        execution = Execution(memory_bytes=RESERVED_BYTES + states + room)
        assert part_size(module, train, REGIME, "fp32", execution) == expected
    assert part_size(module, train, REGIME, "fp32", PLAIN) == REGIME.batch_size


def test_measuring_memory_leaves_the_network_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(0)
    activation_bytes(module, Vectors(40), "fp32")
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_card_gets_batches_ahead_memory_of_8_gb_and_a_compiler_if_asked() -> None:
    assert execution_on("cpu") == PLAIN == Execution("cpu", 0, None, None)
    card = execution_on("cuda")
    assert card.batches_ahead > 0 and card.memory_bytes == CARD_BYTES == 8e9
    assert card.compiler is None and execution_on("cuda", compiled=True).compiler == "inductor"
    assert execution_on("cpu", compiled=True) == PLAIN


# -- arithmetic and compilation


@pytest.mark.parametrize("arithmetic", get_args(Arithmetic))
def test_every_arithmetic_keeps_weights_in_fp32_and_learns(arithmetic: Arithmetic) -> None:
    module = network()
    config = TrainingConfig(8, 8, 8, 0.05, 0.0)
    done = fit(module, Vectors(64), Vectors(64), config, 0, arithmetic=arithmetic)
    assert next(module.parameters()).dtype == torch.float32
    assert done.valid_accuracy > 0.8


def test_gradients_too_small_for_fp16_are_scaled() -> None:
    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 2, bias=False)
            nn.init.zeros_(self.linear.weight)

        def forward(self, values: Tensor) -> Tensor:
            logits: Tensor = self.linear(values * 1e-6)
            return logits

    module = Faint()
    config = TrainingConfig(1, 1, 8, 0.1, 0.0, optimizer="sgd", schedule="constant", clip_norm=None)
    fit(module, Vectors(16), Vectors(16), config, 0, arithmetic="fp16")
    assert module.linear.weight.abs().max() > 0


def blocks() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = layers, nn.Linear(12, 2)

        def forward(self, values: Tensor) -> Tensor:
            for layer in self.layers:
                values = torch.tanh(layer(values))
            logits: Tensor = self.head(values)
            return logits

    return Stack()


@pytest.mark.parametrize(("from_steps", "compiled"), [(0, 3), (1000, 0)])
def test_long_trainings_run_their_repeated_layers_compiled(from_steps: int, compiled: int) -> None:
    plain, module = blocks(), blocks()
    fit(plain, Vectors(16), Vectors(8), REGIME, 0)
    execution = Execution(compiler="eager", compile_from_steps=from_steps)
    done = fit(module, Vectors(16), Vectors(8), REGIME, 0, execution=execution)
    assert done.compiled == compiled
    for ours, theirs in zip(plain.parameters(), module.parameters(), strict=True):
        assert torch.allclose(ours, theirs)
    assert all(layer._compiled_call_impl is None for layer in module.modules())


def test_the_layers_of_transformers_are_compiled_and_those_of_convolutions_are_not() -> None:
    encoders = {spec.name: spec for spec in demo().encoders}
    transformer = build(design(vision_tap=3), encoders, demo().shapes, 2)
    assert [len(layers) for layers in repeated_layers(transformer)] == [2, 3]
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    assert not repeated_layers(convolutions)
    with compiled_layers(transformer, Execution(compiler="eager", compile_from_steps=0), 1) as told:
        assert told == 5


def test_a_whole_network_trains_alike_with_everything_at_once(
    tmp_path: Path, data: DataSet
) -> None:
    """Dropout draws anew for every part, so the parts are kept whole here."""
    asked = design(attention_blocks=1)
    plain = replace(QUICK, trunks="by-stage", whole=replace(QUICK.whole, epochs=1))
    execution = Execution(
        batches_ahead=2, memory_bytes=CARD_BYTES, compiler="eager", compile_from_steps=0
    )
    one = quality(data, tmp_path / "one", plain)
    two = quality(data, tmp_path / "two", plain, execution=execution)
    ours, theirs = one.trainer.trained(asked).state_dict(), two.trainer.trained(asked).state_dict()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=1e-5), name


# -- pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


def test_pictures_wait_as_bytes_and_are_normalised_last(data: DataSet) -> None:
    spec = demo().encoder("small-xcit")
    samples = data.split("train")
    pixels = Preprocessing(data, demo().shapes).values(spec, samples)
    kept = pixels.kept(torch.tensor([3, 1]))
    assert kept.dtype == torch.uint8
    streamed = torch.cat(list(pixels.stream(5)))
    assert torch.equal(pixels.normalised(kept), streamed[[3, 1]])
    assert len(streamed) == len(samples)
    batch = RawInputs(None, [pixels], torch.zeros(len(samples)), "cpu").batch(torch.tensor([3, 1]))
    (given,) = batch.logits(Given())  # type: ignore[misc]
    assert torch.equal(given, streamed[[3, 1]])


class Given(nn.Module):
    """Gives its inputs back."""

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        return inputs


def test_predictions_come_in_the_order_of_the_samples() -> None:
    examples = Vectors(300)
    examples.lengths = torch.randint(1, 50, (300,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network()(examples.values)
    assert torch.allclose(predict(network(), examples), expected, atol=1e-6)
    assert len({tuple(indices) for _, indices in examples.asked}) == 3


# -- named protocols


def test_the_papers_settings_stand_as_published() -> None:
    protocol = named_protocol("paper", seed=3)
    assert (protocol.name, protocol.seed, protocol.trunks) == ("paper", 3, "by-stage")
    stages = protocol.by_stage
    assert stages is not None
    late, intermediate, early = stages.late, stages.intermediate, stages.early
    assert [r.epochs for r in (late, intermediate, early)] == [100, 100, 300]
    assert [r.learning_rate for r in (late, intermediate, early)] == [1e-3, 1e-4, 1e-4]
    for config in (late, intermediate, early, stages.vision_only):
        assert (config.optimizer, config.momentum, config.weight_decay) == ("sgd", 0.9, 1e-4)
        assert (config.batch_size, config.schedule, config.clip_norm) == (32, "constant", None)
        assert config.patience == config.epochs
        assert config.trunk_learning_rate == config.learning_rate
    text = stages.text_only
    assert (text.optimizer, text.learning_rate, text.epochs) == ("adam", 1e-5, 12)
    assert (stages.vision_only.epochs, stages.vision_only.learning_rate) == (150, 1e-4)


@pytest.mark.parametrize("name", ["fair", "paper"])
def test_a_protocol_survives_json(name: str) -> None:
    import json
    from dataclasses import asdict

    protocol = named_protocol(name, seed=1)  # type: ignore[arg-type]
    assert protocol_from_json(json.loads(json.dumps(asdict(protocol)))) == protocol


def short(protocol: TrainingProtocol) -> TrainingProtocol:
    """The same protocol with a number of epochs of its own for each stage."""
    stages = protocol.by_stage
    assert stages is not None
    names = ("text_only", "vision_only", "late", "intermediate", "early")
    cut = {
        name: replace(getattr(stages, name), epochs=k, patience=k)
        for k, name in enumerate(names, start=1)
    }
    return replace(protocol, by_stage=replace(stages, **cut))


def test_the_papers_protocol_trains_each_stage_by_its_own_settings(
    data: DataSet, tmp_path: Path
) -> None:
    protocol = short(named_protocol("paper", seed=0))
    told: dict[str, int] = {}
    evaluator = quality(
        data, tmp_path, protocol, progress=lambda what, _, n: told.__setitem__(what, n)
    )
    evaluator.prepare()
    assert told == {"tuning small-bert alone": 1, "tuning small-xcit alone": 2}
    points = tuple(FusionPoint(k, k, "concatenation", 16) for k in (1, 2, 3))
    stages = {
        "late": design(text_tap=6, vision_tap=6),
        "intermediate": replace(design(), points=points),
        "early": design(),
        "text-only": evaluator.trainer.plan.unimodal(demo().encoder("small-bert")),
        "vision-only": evaluator.trainer.plan.unimodal(demo().encoder("small-xcit")),
    }
    expected = {
        "late": {"training fusion": 3},
        "intermediate": {"training whole": 4},
        "early": {"training whole": 5},
        "text-only": {"training whole": 1},
        "vision-only": {"training whole": 2},
    }
    for stage, genotype in stages.items():
        told.clear()
        assert evaluator.trainer.plan.stage(genotype) == stage
        found = evaluator.evaluate(genotype)
        trained = {what: n for what, n in told.items() if what.startswith("training")}
        assert trained == expected[stage], stage
        assert found.details["epochs"] == next(iter(expected[stage].values()))


def test_what_the_paper_trains_whole_starts_from_trunks_as_they_were_loaded(
    data: DataSet, tmp_path: Path
) -> None:
    evaluator = quality(data, tmp_path, short(named_protocol("paper", seed=0)))
    evaluator.prepare()
    fair = quality(data, tmp_path, replace(QUICK, trunks="by-stage"))
    fair.prepare()
    loaded = quality(data, tmp_path).trainer.untrained(design()).trunks["text"]
    for whole, as_loaded in ((evaluator, True), (fair, False)):
        text = whole.trainer.untrained(design()).trunks["text"]
        same = [
            torch.equal(a, b) for a, b in zip(text.parameters(), loaded.parameters(), strict=True)
        ]
        assert all(same) == as_loaded


def test_the_two_protocols_give_a_design_two_keys(data: DataSet, tmp_path: Path) -> None:
    protocols = (named_protocol("fair", 0), named_protocol("paper", 0))
    keys = {quality(data, tmp_path, p).key(design(text_tap=6, vision_tap=6)) for p in protocols}
    assert len(keys) == 2


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_every_optimizer_and_schedule_trains(optimizer: str, schedule: str) -> None:
    weights = trained(optimizer=optimizer, schedule=schedule, momentum=0.9)
    assert not torch.equal(weights["0.weight"], network().state_dict()["0.weight"])
