"""From a design to one ONNX file: exported, checked, compared with torch, named by its content."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from device_agent.wire.request import TensorSpec
from evaluators.costs import costs_reported, static_costs
from evaluators.evaluation import Measure
from evaluators.features.fusion_inputs import FusionInputs
from evaluators.features.trunk_weights import architecture
from evaluators.onnx.artifacts import Artifact as Artifact
from evaluators.onnx.artifacts import ParityError as ParityError
from evaluators.onnx.composition import OUTPUT, Composer
from evaluators.onnx.export import export
from evaluators.onnx.one_modality import Without
from evaluators.onnx.quantisation import CALIBRATION_SAMPLES, Feed, For, reduce_precision
from evaluators.onnx.rewriting import Rewriting, TextLengths
from evaluators.onnx.subgraphs import Joined
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import Genotype
from search_space.design.rules import violations
from search_space.encoders.loading import describe_vocabulary
from search_space.modality import Modality
from search_space.network.network import INPUTS, FusionNetwork, build, input_names
from search_space.network.rewrites import NONE, Rewrites, rewrite

PARITY_TOLERANCE = 1e-4
"""Greatest difference from torch, relative to the larger of 1 and the largest logit."""
TRAINED_TOLERANCE = 1e-3
"""The same for trained weights. Training standardises features, so a network may amplify rounding
errors of its trunks up to a thousandfold (`evaluators.features.scales`)."""
GRAPH_VERSION = 3
"""Goes up whenever designs become other graphs: 2 standardised the features of some designs, which
0.1.0 did not; 3 takes out what no output depends on (`evaluators.onnx.passes`)."""
PARITY_SAMPLES = 3
COMPOSED_TOLERANCE = 1e-5
"""The same for a composed graph."""
_PROVIDERS = ["CPUExecutionProvider"]


class OnnxBuilder:
    """Builds designs for a fixed number of classes and batch 1.

    Shapes are static, but for the text where `Rewrites.own_length` is asked for. `runtime` is the
    one that will run them: int8 differs, see `evaluators.onnx.quantisation`. `text_lengths` tells
    of the data how long texts have to be.
    """

    def __init__(
        self,
        encoders: Mapping[str, EncoderSpec],
        shapes: Mapping[str, EncoderShape],
        classes: int,
        folder: Path,
        runtime: For = "onnxruntime",
        rewrites: Rewrites = NONE,
        text_lengths: TextLengths | None = None,
        parts: Path | None = None,
    ) -> None:
        self._encoders, self._shapes, self._folder = encoders, shapes, folder
        self.classes, self.runtime = classes, runtime
        self.rewriting = Rewriting(rewrites, text_lengths)
        self._composer = (
            None if parts is None else Composer(encoders, shapes, classes, parts, self.rewriting)
        )

    def encoders_of(self, genotype: Genotype) -> list[dict[str, Any]]:
        """The architecture of the design's encoders: all of their specification but the weights."""
        return [architecture(self._encoders[name]) for name in genotype.encoders.values()]

    def graph_key(self) -> dict[str, int]:
        """What keys of latencies hold of how graphs are built: a latency is of one version."""
        return {"graph": GRAPH_VERSION}

    def build(
        self,
        genotype: Genotype,
        network: FusionNetwork | None = None,
        calibration: Sequence[tuple[Tensor, ...]] = (),
        weights: bool = True,
    ) -> Artifact:
        """The design as a file named by its SHA-256.

        Without a network its weights are random: latency depends on the graph alone. Such a design
        is composed of kept parts (`evaluators.onnx.composition`) where it is of fp32 and the
        builder has a folder for them; with `weights` False its file is without the large ones, as
        `evaluators.onnx.stripped` has it. Any other design is exported whole: with trained
        weights, in a reduced precision, or where there is no such folder. For int8, `calibration`
        holds inputs (batch 1, as the graph takes them) that scales are drawn from; without
        any they come from a few random ones, which gives the same graph with other numbers in
        it. Rewrites are applied
        and compared with the network as written, at the length of its own texts. Raises ValueError
        for a design that cannot be built, ParityError where ONNX differs from torch.
        """
        if network is None and genotype.precision == "fp32" and self._composer is not None:
            return self._compose(self._composer, genotype, weights)
        return self._export(genotype, network, calibration)

    def build_without(
        self,
        genotype: Genotype,
        network: FusionNetwork,
        absent: Modality,
        nothing: FusionInputs,
        calibration: Sequence[tuple[Tensor, ...]] = (),
    ) -> Artifact:
        """A trained, fused design as a graph of its own that runs without one modality.

        `nothing`: what its fusion reads where nothing is said, shown or heard, instead of which
        constants stand; compared with torch as in `build`. `calibration` as there, all inputs.
        """
        return self._export(genotype, network, calibration, Without(absent, nothing))

    def _compose(self, composer: Composer, genotype: Genotype, weights: bool) -> Artifact:
        if found := violations(genotype, self._shapes):
            raise ValueError("; ".join(found))
        rows = self._random_inputs(genotype)
        fed = [self.rewriting.fed(genotype, row) for row in rows]
        composed = composer.compose(genotype, fed[0])
        logits, expected = run_joined(composed.graph, fed), composer.expected(genotype, rows)
        difference = _compared(genotype, logits, expected, COMPOSED_TOLERANCE)
        whole_bytes = sum(map(len, composed.graph.chunks("whole")))
        chunks = composed.graph.chunks("whole" if weights else "light")
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{digest.hexdigest()}-{uuid4().hex[:8]}.onnx"
        try:
            with open(path, "wb") as file:
                file.writelines(chunks)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        costs = costs_reported(composed.parameters, composed.macs, genotype.precision)
        costs += (Measure("onnx_bytes", whole_bytes, "B", "lower"),)
        specs, words = self.input_specs(genotype), self.rewriting.words(genotype)
        return Artifact(path, digest.hexdigest(), specs, difference, costs, words, not weights)

    def _export(
        self,
        genotype: Genotype,
        network: FusionNetwork | None,
        calibration: Sequence[tuple[Tensor, ...]],
        without: Without | None = None,
    ) -> Artifact:
        tolerance = PARITY_TOLERANCE if network is None else TRAINED_TOLERANCE
        if network is None:
            untrained = {n: replace(spec, weights="random") for n, spec in self._encoders.items()}
            network = build(genotype, untrained, self._shapes, self.classes)
        written: nn.Module = network.cpu().eval()
        rewritten = rewrite(network, genotype, self._shapes, self.rewriting.rewrites)
        exported: nn.Module = rewritten
        names = input_names(genotype)
        if without is not None:
            written, exported = without.applied(network), without.applied(rewritten)
            names = without.left_of(names)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Quantisation puts files of its own beside the network: all of them go with the folder.
        with TemporaryDirectory(prefix="building-", dir=self._folder) as building:
            temporary = Path(building) / "network.onnx"
            as_written = self._random_inputs(genotype)
            rows = [self.rewriting.fed(genotype, row) for row in as_written]
            calibration = calibration or rows
            if without is not None:
                as_written, rows, calibration = (
                    [without.left_of_row(genotype, row) for row in each]
                    for each in (as_written, rows, calibration)
                )
            axes = {n: a for n, a in self.rewriting.open_axes(genotype).items() if n in names}
            export(exported, rows[0], temporary, names, [OUTPUT], axes, genotype.describe())
            onnx.checker.check_model(str(temporary), full_check=False)
            check = partial(_difference, temporary, genotype, written, as_written, rows)
            difference = check(tolerance)
            if genotype.precision != "fp32":
                feeds = _feeds(names, calibration)
                reduce_precision(temporary, genotype.precision, feeds, self.runtime)
                difference = check(None)
            costs = static_costs(rewritten, self.rewriting.timed(genotype), self._shapes)
            if without is not None:
                costs = ()  # those of the whole network are not this one's
            costs += (Measure("onnx_bytes", temporary.stat().st_size, "B", "lower"),)
            digest = _sha256(temporary)
            # Another worker may build the same network: each has a file of its own to discard.
            path = self._folder / f"{digest}-{uuid4().hex[:8]}.onnx"
            temporary.replace(path)
        specs = tuple(s for s in self.input_specs(genotype) if s.name in names)
        return Artifact(path, digest, specs, difference, costs, self.rewriting.words(genotype))

    def input_specs(self, genotype: Genotype) -> tuple[TensorSpec, ...]:
        """Names, types and shapes of the timed inputs, and what a device may fill them with."""
        return self._specs(self.rewriting.timed(genotype))

    def _specs(self, genotype: Genotype) -> tuple[TensorSpec, ...]:
        specs: list[TensorSpec] = []
        for modality, name in genotype.encoders.items():
            if modality == "text":
                size = (1, genotype.text_tokens)
                vocabulary = describe_vocabulary(self._encoders[name])
                specs.append(TensorSpec("input_ids", "int64", size, "uniform", 0, vocabulary))
                specs.append(TensorSpec("attention_mask", "int64", size, "ones"))
            else:
                (values,), of_one = INPUTS[modality], self._shapes[name].input_size
                specs.append(TensorSpec(values, "float32", (1, *of_one), "normal"))
        return tuple(specs)

    def _random_inputs(self, genotype: Genotype) -> list[tuple[Tensor, ...]]:
        """A few inputs of batch 1 for the network as written, from a fixed seed.

        Their texts end at different places, none after the longest of the data.
        """
        longest = self.rewriting.longest(genotype)
        generator = torch.Generator().manual_seed(0)
        rows = []
        for k in range(PARITY_SAMPLES):
            row: list[Tensor] = []
            for spec in self._specs(genotype):
                if spec.name == "input_ids":
                    row.append(torch.randint(0, int(spec.high), spec.shape, generator=generator))
                elif spec.name == "attention_mask":
                    mask = torch.ones(spec.shape, dtype=torch.int64)
                    mask[:, longest - k * longest // (2 * PARITY_SAMPLES) :] = 0
                    row.append(mask)
                else:
                    row.append(torch.randn(spec.shape, generator=generator))
            rows.append(tuple(row))
        return rows


def _difference(
    path: Path,
    genotype: Genotype,
    network: nn.Module,
    as_written: Sequence[tuple[Tensor, ...]],
    fed: Sequence[tuple[Tensor, ...]],
    tolerance: float | None,
) -> float:
    """How far a file's logits are from the network's, each given the inputs that it takes."""
    with torch.inference_mode():
        expected = torch.cat([network(*row) for row in as_written]).numpy()
    return _compared(genotype, run_onnx(path, fed), expected, tolerance)


def _compared(
    genotype: Genotype, found: np.ndarray, expected: np.ndarray, tolerance: float | None
) -> float:
    """The greatest difference. Raises ParityError where it is not allowed."""
    difference = float(np.abs(found - expected).max())
    allowed = None if tolerance is None else tolerance * max(1.0, float(np.abs(expected).max()))
    if not np.isfinite(found).all():
        raise ParityError(
            f"{genotype.describe()}: its ONNX in {genotype.precision} gives logits that are "
            "not finite numbers; nothing was measured. choose another precision"
        )
    if allowed is not None and difference > allowed:
        raise ParityError(
            f"{genotype.describe()}: its ONNX differs from torch by {difference:.2e} "
            f"(allowed {allowed:.1e}); nothing was measured. please report it"
        )
    return difference


def run_onnx(path: Path, rows: Iterable[tuple[Tensor, ...]]) -> np.ndarray:
    """Logits (N, classes) of inputs of batch 1, run one by one on this machine's CPU."""
    options = _session_options()
    return _run(onnxruntime.InferenceSession(str(path), options, _PROVIDERS), rows)


def run_joined(graph: Joined, rows: Iterable[tuple[Tensor, ...]]) -> np.ndarray:
    """The same for a graph in memory; its large weights are read where they lie."""
    options, given = _session_options(), graph.outside()
    # For a few runs: threads, fused kernels and packed weights take longer to make than they save.
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_external_initializers(list(given), list(given.values()))
    content = b"".join(graph.chunks("outside"))
    return _run(onnxruntime.InferenceSession(content, options, _PROVIDERS), rows)


def _session_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _run(session: Any, rows: Iterable[tuple[Tensor, ...]]) -> np.ndarray:
    names = [entry.name for entry in session.get_inputs()]
    outputs: list[Any] = [
        session.run([OUTPUT], {n: t.contiguous().numpy() for n, t in zip(names, row, strict=True)})[
            0
        ]
        for row in rows
    ]
    return np.concatenate(outputs)


def _feeds(names: Sequence[str], rows: Sequence[tuple[Tensor, ...]]) -> Iterator[Feed]:
    for row in rows[:CALIBRATION_SAMPLES]:
        yield {n: t.contiguous().numpy() for n, t in zip(names, row, strict=True)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
