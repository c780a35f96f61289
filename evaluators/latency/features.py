"""What of a design takes time on a device: parts whose times add up, and what is known of each.

Each part has a nominal cost in ms, its work at the rates of NOMINAL_PER_MS, which are those of one
thread of an x86 core; how much slower or faster a device is at it is left to be learnt. Parts of
one kind of work, of one encoder or of one precision are expected to be slow or fast together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.latency.fusion_work import point_work
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import PRECISIONS, Genotype, Precision
from search_space.design.rules import fused_width
from search_space.network.network import HEAD_WIDTHS
from search_space.operators.work import On, Work

Array = npt.NDArray[np.float64]
NOMINAL_PER_MS = Work(
    linear=3e7,
    convolution=3e7,
    depthwise=6e6,
    attention=1e7,
    elements=1.5e6,
    weights=4e6,
    operators=300.0,
)
CONSTANT_MS = 0.05
DEVICE_SD, KIND_SD, OWNER_SD, OWN_SD = 2.0, 0.5, 0.25, 0.3
CONSTANT_SD = 1.5
"""Of natural logarithms: what a device, a kind of work, an encoder and a part are expected to
differ by from their nominal cost."""
PRECISION_SD, PRECISION_KIND_SD, PRECISION_OWN_SD, SAME_SD = 0.5, 0.25, 0.15, 0.02
"""The same for a precision: as a whole, on a kind of work, on a part, on a part it leaves alone."""
_FUSION = ("tokens", "token attention", "vectors", "convolution", "pooling", "operators")


@dataclass(frozen=True)
class WorkItem:
    """Something that takes time: the kinds of its work with their shares, and whose it is.

    quantised: whether dynamic quantisation changes it: products of tokens with weights, and what
    stands between them. own_sd: what it is expected to differ by from others of its kind.
    """

    name: str
    owner: str
    shares: tuple[tuple[str, float], ...]
    quantised: bool = False
    own_sd: float = OWN_SD

    def changed_by(self, precision: Precision) -> bool:
        """Whether this part is another computation in this precision than in fp32."""
        if precision == "int8-dynamic":
            return self.quantised
        return precision != "fp32"


class LatencyFeatures:
    """Turns designs into the nominal costs of their parts, one column a part and precision.

    Costs are those of the graph after its rewrites, at the length that it is timed at. Layers of
    one vision encoder are the same parts at every size of its pictures, merged tokens or not.
    """

    def __init__(self, trunks: TrunkWork, rewriting: Rewriting) -> None:
        self._trunks, self._rewriting = trunks, rewriting
        self._parts = [WorkItem("constant", "network", (), own_sd=CONSTANT_SD)]
        for name in {trunks.base(name): name for name in reversed(trunks.names)}.values():
            self._parts += self._trunk_parts(name)
        for kind, quantised in zip(_FUSION, (True, True, False, False, False, False), strict=True):
            works = _FUSION_KINDS[kind]
            shares = tuple((work, 1 / len(works)) for work in works)
            self._parts.append(WorkItem(f"fusion {kind}", "fusion", shares, quantised))
        self._at = {part.name: k for k, part in enumerate(self._parts)}

    @property
    def columns(self) -> int:
        """How many numbers describe a design."""
        return len(self._parts) * len(PRECISIONS)

    @property
    def owners(self) -> list[str]:
        """Whose each column is: an encoder's, the fusion's (with the head) or the network's."""
        return [part.owner for _ in PRECISIONS for part in self._parts]

    def of(self, genotypes: Sequence[Genotype]) -> Array:
        """Nominal ms (N, columns) of each design. Raises ValueError for an unknown encoder."""
        found = np.zeros((len(genotypes), len(PRECISIONS), len(self._parts)))
        for row, genotype in zip(found, genotypes, strict=True):
            for name, ms in self._costs(genotype).items():
                row[PRECISIONS.index(genotype.precision), self._at[name]] += ms
        return found.reshape(len(genotypes), self.columns)

    def beliefs(self) -> Array:
        """What is believed of each column before any reading: (columns, effects).

        The logarithm of a column's time over its nominal cost is its row times effects that are
        independent, of mean 0 and deviation 1.
        """
        rows: list[dict[str, float]] = []
        for precision in PRECISIONS:
            for part in self._parts:
                row = {"device": DEVICE_SD, f"part {part.name}": part.own_sd}
                row[f"owner {part.owner}"] = OWNER_SD
                changed = part.changed_by(precision)
                for kind, share in part.shares:
                    row[f"kind {kind}"] = KIND_SD * share
                    if changed:
                        row[f"{precision} {kind}"] = PRECISION_KIND_SD * share
                if changed:
                    row[precision] = PRECISION_SD
                if precision != "fp32":
                    own = PRECISION_OWN_SD if changed else SAME_SD
                    row[f"{precision} part {part.name}"] = own
                rows.append(row)
        effects = list(dict.fromkeys(name for row in rows for name in row))
        return np.array([[row.get(name, 0.0) for name in effects] for row in rows])

    def _trunk_parts(self, name: str) -> list[WorkItem]:
        shape, owner = self._trunks.shapes[name], self._trunks.base(name)
        if shape.modality == "text":
            kinds = {"linear": True, "attention": False, "elements": True, "layers": True}
            return [
                WorkItem(f"{name} {kind}", name, ((works, 1.0),), quantised)
                for (kind, quantised), works in zip(
                    kinds.items(), ("linear", "attention", "elements", "weights"), strict=True
                )
            ]
        parts = []
        for tap in range(1, shape.depth + 1):
            linear, rest = self._of_layer(name, tap)
            parts += [
                WorkItem(f"{owner} {tap} {which}", owner, tuple(_shares(costs)), which == "linear")
                for which, costs in (("linear", linear), ("rest", rest))
                if sum(costs.values())
            ]
        return parts

    def _of_layer(self, name: str, tap: int) -> tuple[dict[str, float], dict[str, float]]:
        """Nominal ms of what a layer's linear products take, and of all the rest, by kind."""
        prefix = self._trunks.prefix
        costs = _nominal(prefix(name, tap).less(prefix(name, tap - 1)))
        linear = {"linear": costs.pop("linear")}
        return linear, costs

    def _costs(self, genotype: Genotype) -> dict[str, float]:
        genotype = self._rewriting.timed(genotype)
        for modality, name in genotype.encoders.items():
            if name not in self._trunks.shapes:
                known = ", ".join(self._trunks.names)
                raise ValueError(
                    f"{modality} encoder {name!r} is unknown to this latency model: "
                    f"choose one of {known}"
                )
        costs = {"constant": CONSTANT_MS}
        for modality, name in genotype.encoders.items():
            depth = genotype.deepest_tap(modality)
            if modality == "text":
                nominal = _nominal(self._trunks.prefix(name, depth, genotype.text_tokens))
                costs |= {f"{name} {k}": nominal[k] for k in ("linear", "attention", "elements")}
                costs[f"{name} layers"] = nominal["weights"] + nominal["operators"]
                continue
            for tap in range(1, depth + 1):
                for which, found in zip(("linear", "rest"), self._of_layer(name, tap), strict=True):
                    if ms := sum(found.values()):
                        costs[f"{self._trunks.base(name)} {tap} {which}"] = ms
        return costs | self._fusion_costs(genotype)

    def _fusion_costs(self, genotype: Genotype) -> dict[str, float]:
        shapes = self._trunks.shapes
        width = sum(fused_width(genotype, point, shapes) for point in genotype.points)
        first, second = HEAD_WIDTHS
        found: dict[On, Work] = {"tokens": Work(), "maps": Work(), "poolings": Work()}
        found["vectors"] = Work(weights=width * first + first * second, operators=5)
        for point in genotype.points:
            for on, work in point_work(genotype, point, shapes, self._rewriting.rewrites):
                found[on] = found[on].plus(work)
        nominal = {on: _nominal(work) for on, work in found.items()}
        tokens, vectors = nominal["tokens"], nominal["vectors"]
        return {
            "fusion tokens": tokens["linear"] + tokens["weights"],
            "fusion token attention": tokens["attention"] + tokens["elements"],
            "fusion vectors": vectors["weights"] + vectors["elements"],
            "fusion convolution": nominal["maps"]["convolution"],
            "fusion pooling": nominal["poolings"]["elements"],
            "fusion operators": sum(costs["operators"] for costs in nominal.values()),
        }


_FUSION_KINDS = {
    "tokens": ("linear",),
    "token attention": ("attention", "elements"),
    "vectors": ("weights",),
    "convolution": ("convolution",),
    "pooling": ("elements",),
    "operators": ("operators",),
}


def _nominal(work: Work) -> dict[str, float]:
    """Milliseconds of each kind of work at the nominal rates."""
    rates = vars(NOMINAL_PER_MS)
    return {kind: amount / rates[kind] for kind, amount in vars(work).items()}


def _shares(costs: dict[str, float]) -> list[tuple[str, float]]:
    total = sum(costs.values())
    return [(kind, ms / total) for kind, ms in costs.items() if ms]
