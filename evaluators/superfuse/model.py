"""The model of "Encoding Domain Insights into Multi-modal Fusion", many seeds side by side.

Two embeddings, a fusion that learns nothing, one linear layer to 32 features, a 2-way softmax (here
of as many classes as there are). Every tensor has a first extent S, the seeds; a seed's own numbers
are drawn from its own generators, so that it comes out alike in any company.

Two exact rewrites make it cheap. The linear layer over an outer product is a bilinear form of the
two embeddings, so the outer product of a batch is never made. And where nothing stands between the
two linear layers, they are multiplied first, once a step, and not once a sample; softmax sees
logits less those of class 0, which it cannot tell from the logits themselves.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from evaluators.evaluation import NotFiniteError
from evaluators.superfuse.embeddings import SplitPairs, Task
from evaluators.superfuse.names import FACTORS, NOISED, Activation, Fusion, Noised
from search_space.operators.vectors import concatenation, product

HIDDEN = 32
LEARNING_RATE = 1e-3
SUPERFUSE_VERSION = 2
"""Part of every key: raise it when the same settings come to train other networks, or more is
stored of them; 2 stores ROC curves."""
FALSE_POSITIVES = tuple(k / 50 for k in range(51))
"""Rates of false positives at which ROC curves are stored."""
ROWS = 256
"""Samples whose logits are asked for, and noise drawn, at a time."""
CHUNK = 2**18
"""Numbers of one modality that a step works on at a time: they stay in a core's cache."""
LEAST_CHUNK = 64
"""Samples of a seed that it works on at least: each time all weights are read."""
MAX_WEIGHTS = 2**26
"""Weights of all seeds that are trained side by side; with AdamW's state 1.1 GB."""
_PURPOSES = ("weights", "rows", "order", "text noise", "vision noise")


class Stopped(Exception):
    """Training was asked to end."""


@dataclass(frozen=True)
class SuperfuseConfig:
    """How a network is trained: AdamW at a constant rate, no weight decay.

    A batch is `batch` samples, or a `steps`-th of the training set where that is more.
    """

    epochs: int = 100
    activation: Activation = "none"
    batch: int = 32
    steps: int = 32
    hidden: int = HIDDEN
    learning_rate: float = LEARNING_RATE

    def batch_size(self, size: int) -> int:
        """Samples of a batch for a training set of `size`."""
        return min(size, max(self.batch, -(-size // self.steps)))


@dataclass(frozen=True)
class Trained:
    """What came of one seed: accuracies in percent at its best epoch on validation.

    noise: test accuracy by what was noised, one for each of FACTORS. auc: area under the ROC curve
    on test, 0 to 1, and roc the rates of true positives at FALSE_POSITIVES; of more than two
    classes the mean of one class against the rest over the classes. NaN and empty where test has
    one class only. train_s and noise_s are processor seconds, those of all seeds trained beside it
    shared out evenly.
    """

    seed: int
    valid: float
    test: float
    best_epoch: int
    noise: Mapping[Noised, tuple[float, ...]]
    auc: float
    roc: tuple[float, ...]
    train_s: float
    noise_s: float


def fused_width(fusion: Fusion, text: int, vision: int) -> int:
    """Inputs of the linear layer. Raises ValueError for a product of unequal widths."""
    if fusion == "tensor":
        return text * vision
    if fusion == "product" and text != vision:
        raise ValueError(f"product of text {text} and vision {vision} wide: it takes equal widths")
    return text + vision


def project(fusion: Fusion, weights: Tensor, text: Tensor, vision: Tensor) -> Tensor:
    """A linear map without bias over the fused pairs: (S, R, F), (S, B, N), (S, B, M) to (S, B, R).

    F is `fused_width`, in the order of `search_space.operators.vectors`: of a tensor text is
    slowest. A modality that is the same for all seeds may come as (1, B, N).
    """
    if fusion == "tensor":
        (seeds, outputs, _), wide, deep = weights.shape, text.shape[2], vision.shape[2]
        forms = weights.view(seeds, outputs, wide, deep).transpose(1, 2)
        read = text @ forms.reshape(seeds, wide, outputs * deep)
        return (read.view(seeds, -1, outputs, deep) * vision.unsqueeze(2)).sum(3)
    fuse = concatenation if fusion == "concatenation" else product
    seeds = max(len(text), len(vision))
    pair = (each.expand(seeds, -1, -1).flatten(0, 1) for each in (text, vision))
    fused = fuse(*pair)
    return fused.view(seeds, -1, fused.shape[1]) @ weights.mT


class Networks:
    """One network a seed, drawn as torch draws linear layers."""

    def __init__(
        self,
        fusion: Fusion,
        task: Task,
        seeds: Sequence[int],
        config: SuperfuseConfig,
        device: str = "cpu",
    ) -> None:
        self.fusion, self.activation = fusion, config.activation
        inputs, hidden = fused_width(fusion, *task.widths), config.hidden
        shapes = ((hidden, inputs), (hidden,), (len(task.classes), hidden), (len(task.classes),))
        drawn: list[list[Tensor]] = [[] for _ in shapes]
        for seed in seeds:
            generator = _generator(seed, "weights")
            for k, (shape, fan_in) in enumerate(
                zip(shapes, (inputs, inputs, hidden, hidden), strict=True)
            ):
                drawn[k].append((2 * torch.rand(shape, generator=generator) - 1) * fan_in**-0.5)
        self.parameters = [torch.stack(each).to(device).requires_grad_() for each in drawn]

    def parts(self) -> tuple[Tensor, ...]:
        """What `logits` reads: a projection (S, R, F), its bias (S, 1, R), and what follows it."""
        first, bias, second, last = self.parameters
        head = second[:, 1:] - second[:, :1]
        offset = (last[:, 1:] - last[:, :1]).unsqueeze(1)
        if self.activation == "none":
            return head @ first, (head @ bias.unsqueeze(2)).mT + offset
        return first, bias.unsqueeze(1), head.mT, offset

    def logits(self, parts: Sequence[Tensor], text: Tensor, vision: Tensor) -> Tensor:
        """(S, B, classes), those of class 0 being 0, of text (S, B, N) and vision (S, B, M)."""
        return self.finish(parts, project(self.fusion, parts[0], text, vision))

    def finish(self, parts: Sequence[Tensor], projected: Tensor) -> Tensor:
        """The logits of what `project` gave: (..., S, B, R) to (..., S, B, classes)."""
        made = projected + parts[1]
        if self.activation == "relu":
            made = torch.relu(made) @ parts[2] + parts[3]
        return F.pad(made, (1, 0))


def train(
    task: Task,
    fusion: Fusion,
    size: int,
    seeds: Sequence[int],
    config: SuperfuseConfig,
    device: str = "cpu",
    stop: threading.Event | None = None,
) -> list[Trained]:
    """Trains a network a seed on `size` rows of its own, and tests it clean and under noise.

    A seed draws its rows in one order for all sizes, so that a larger set holds the smaller ones,
    and it draws them, and its noise, alike for every fusion: differences between fusions are
    paired. Raises NotFiniteError for a loss that is no number, Stopped once `stop` is set.
    """
    found: list[Trained] = []
    weights = config.hidden * fused_width(fusion, *task.widths)
    together = max(1, MAX_WEIGHTS // weights)
    for start in range(0, len(seeds), together):
        some = seeds[start : start + together]
        found += _train_together(task, fusion, size, some, config, device, stop)
    return found


def _train_together(
    task: Task,
    fusion: Fusion,
    size: int,
    seeds: Sequence[int],
    config: SuperfuseConfig,
    device: str,
    stop: threading.Event | None,
) -> list[Trained]:
    began = time.thread_time()
    networks = Networks(fusion, task, seeds, config, device)
    parts = {split: part.to(device) for split, part in task.parts.items()}
    best = _Best(len(seeds), device)
    for epoch, _ in enumerate(_epochs(networks, parts["train"], size, seeds, config), start=1):
        if stop is not None and stop.is_set():
            raise Stopped
        with torch.no_grad():
            made = networks.parts()
            best.look(epoch, made, *_score(networks, made, parts["valid"]))
    with torch.no_grad():
        test, _ = _score(networks, best.parts, parts["test"])
        curves = _roc_curves(networks, best.parts, parts["test"])
        trained = time.thread_time()
        noise = noise_curves(networks, best.parts, parts["train"], parts["test"], seeds)
    ended = time.thread_time()
    return [
        Trained(
            seed,
            100 * float(best.correct[k]),
            100 * float(test[k]),
            int(best.epoch[k]),
            {name: tuple(100 * float(v) for v in curve[:, k]) for name, curve in noise.items()},
            *curves[k],
            (trained - began) / len(seeds),
            (ended - trained) / len(seeds),
        )
        for k, seed in enumerate(seeds)
    ]


def _epochs(
    networks: Networks, train: SplitPairs, size: int, seeds: Sequence[int], config: SuperfuseConfig
) -> Iterator[None]:
    """Trains, with a stop after each epoch."""
    device = train.labels.device
    rows = [torch.randperm(len(train), generator=_generator(seed, "rows"))[:size] for seed in seeds]
    orders = [_generator(seed, "order") for seed in seeds]
    optimizer = torch.optim.AdamW(
        networks.parameters, lr=config.learning_rate, weight_decay=0.0, fused=True
    )
    for _ in range(config.epochs):
        shuffled = [
            each[torch.randperm(size, generator=order)]
            for each, order in zip(rows, orders, strict=True)
        ]
        whole = torch.stack(shuffled).to(device)
        for batch in torch.split(whole, config.batch_size(size), dim=1):
            optimizer.zero_grad()
            _backward(networks, train, batch)
            optimizer.step()
        yield


def _backward(networks: Networks, train: SplitPairs, batch: Tensor) -> None:
    """Adds the gradients of each seed's mean loss over its own batch, (S, B) rows of `train`."""
    made = networks.parts()
    leaves = [part.detach().requires_grad_() for part in made]
    width = len(batch) * max(train.text.shape[1], train.vision.shape[1])
    for chunk in torch.split(batch, max(LEAST_CHUNK, CHUNK // width), dim=1):
        at = chunk.flatten()
        text, vision = (
            each.index_select(0, at).view(*chunk.shape, -1) for each in (train.text, train.vision)
        )
        logits = networks.logits(leaves, text, vision)
        loss = F.cross_entropy(logits.flatten(0, 1), train.labels[at], reduction="sum")
        (loss / batch.shape[1]).backward()  # type: ignore[no-untyped-call]
    torch.autograd.backward(made, [leaf.grad for leaf in leaves])


class _Best:
    """Each seed's best epoch so far: most right on validation, then the least loss."""

    def __init__(self, seeds: int, device: str) -> None:
        self.correct = torch.full((seeds,), -1.0, device=device)
        self.loss = torch.zeros(seeds, device=device)
        self.epoch = torch.zeros(seeds, dtype=torch.int64, device=device)
        self.parts: list[Tensor] = []

    def look(self, epoch: int, parts: Sequence[Tensor], correct: Tensor, loss: Tensor) -> None:
        """Takes in an epoch: parts, and right answers' share and loss of each seed (S,)."""
        if not torch.isfinite(loss).all():
            raise NotFiniteError(
                f"validation loss in epoch {epoch}: not finite; scale the embeddings"
            )
        if not self.parts:
            self.parts = [part.clone() for part in parts]
        better = (correct > self.correct) | ((correct == self.correct) & (loss < self.loss))
        self.correct, self.loss = (
            torch.where(better, correct, self.correct),
            torch.where(better, loss, self.loss),
        )
        self.epoch[better] = epoch
        for kept, part in zip(self.parts, parts, strict=True):
            kept[better] = part[better]


def _score(
    networks: Networks, parts: Sequence[Tensor], judged: SplitPairs
) -> tuple[Tensor, Tensor]:
    """Share of right answers (S,) and mean loss (S,) of each seed."""
    seeds = len(parts[0])
    correct = torch.zeros(seeds, device=judged.labels.device)
    loss = torch.zeros(seeds, device=judged.labels.device)
    for start in range(0, len(judged), ROWS):
        rows = slice(start, start + ROWS)
        logits = networks.logits(parts, judged.text[None, rows], judged.vision[None, rows])
        labels = judged.labels[rows].expand(seeds, -1)
        correct += (_answers(logits) == labels).sum(1)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        loss += losses.view(labels.shape).sum(1)
    return correct / len(judged), loss / len(judged)


def _answers(logits: Tensor) -> Tensor:
    """The first of the greatest logits (..., classes); of two classes told by comparing them."""
    return logits[..., 1] > logits[..., 0] if logits.shape[-1] == 2 else logits.argmax(-1)


def _roc_curves(
    networks: Networks, parts: Sequence[Tensor], judged: SplitPairs
) -> list[tuple[float, tuple[float, ...]]]:
    """Area and rates of true positives at FALSE_POSITIVES, for each seed."""
    rows = zip(*(torch.split(each, ROWS) for each in (judged.text, judged.vision)), strict=True)
    logits = torch.cat([networks.logits(parts, t[None], v[None]) for t, v in rows], dim=1)
    scores = logits.softmax(-1).cpu().double().numpy()
    labels = judged.labels.cpu().numpy()
    return [roc_curve_of(labels, each) for each in scores]


def roc_curve_of(
    labels: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[float, tuple[float, ...]]:
    """Return the area under the ROC curve and the curve at FALSE_POSITIVES.

    Args:
        labels: (N,), the classes.
        scores: (N, C), greater for what is likelier.

    Of two classes the second is positive. Of more, each that occurs is positive once, against the
    rest; areas and curves are averaged over them. NaN and () where `labels` has one class only.
    """
    from sklearn.metrics import auc, roc_curve

    there = np.unique(labels)
    if len(there) < 2:
        return float("nan"), ()
    areas, curves = [], []
    for positive in there if scores.shape[1] > 2 else (1,):
        false, true, _ = roc_curve(labels == positive, scores[:, positive])
        areas.append(auc(false, true))
        curves.append(np.interp(FALSE_POSITIVES, false, true))
        curves[-1][0] = 0.0  # every curve begins at the origin, also one that rises at once
    return float(np.mean(areas)), tuple(float(rate) for rate in np.mean(curves, axis=0))


def noise_curves(
    networks: Networks,
    parts: Sequence[Tensor],
    train: SplitPairs,
    test: SplitPairs,
    seeds: Sequence[int],
) -> dict[Noised, Tensor]:
    """Share of right answers under noise, (20, S) by what is noised: one row for each of FACTORS.

    A modality m becomes m + factor n, n ~ N(mean, standard deviation) of each of its features over
    the training rows; n is drawn once a seed and test row, and scaled. Every fusion is affine in
    each modality, so four projections (of text with and without n, by vision with and without)
    give those of all factors: one pass over the test rows instead of sixty.
    """
    seeds_count = len(seeds)
    factors = torch.tensor(FACTORS).to(parts[0]).view(-1, 1, 1, 1)
    correct = {
        name: torch.zeros(len(FACTORS), seeds_count, device=factors.device) for name in NOISED
    }
    draw_text = _noise(train.text, seeds, "text noise")
    draw_vision = _noise(train.vision, seeds, "vision noise")
    for start in range(0, len(test), ROWS):
        rows = slice(start, start + ROWS)
        text, vision, labels = test.text[None, rows], test.vision[None, rows], test.labels[rows]
        noised_text = text + draw_text(len(labels))
        noised_vision = vision + draw_vision(len(labels))

        def read(one: Tensor, other: Tensor) -> Tensor:
            return project(networks.fusion, parts[0], one, other)

        clean, of_text = read(text, vision), read(noised_text, vision)
        of_vision, of_both = read(text, noised_vision), read(noised_text, noised_vision)
        mixed: dict[Noised, Tensor] = {
            "text": torch.lerp(clean, of_text, factors),
            "image": torch.lerp(clean, of_vision, factors),
        }
        mixed["both"] = torch.lerp(mixed["text"], torch.lerp(of_vision, of_both, factors), factors)
        for name, projected in mixed.items():
            correct[name] += (_answers(networks.finish(parts, projected)) == labels).sum(2)
    return {name: each / len(test) for name, each in correct.items()}


def _noise(train: Tensor, seeds: Sequence[int], purpose: str) -> Callable[[int], Tensor]:
    """Draws (S, rows, D) with the mean and deviation of each of the D features of (N, D)."""
    mean, deviation = train.mean(0), train.std(0)
    generators = [np.random.default_rng((_PURPOSES.index(purpose), seed)) for seed in seeds]

    def draw(rows: int) -> Tensor:
        made = np.empty((len(seeds), rows, train.shape[1]), dtype=np.float32)
        for each, generator in zip(made, generators, strict=True):
            generator.standard_normal(dtype=np.float32, out=each)
        return mean + deviation * torch.from_numpy(made).to(train.device)

    return draw


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A generator of a seed's own, one for each thing that it draws."""
    return torch.Generator().manual_seed(seed * len(_PURPOSES) + _PURPOSES.index(purpose))
