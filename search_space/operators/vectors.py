"""Networks of the fusion operators that give one vector; `definitions` says what each computes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def concatenation(*vectors: Tensor) -> Tensor:
    """(B, N), (B, M) and so on to (B, N + M + ...)."""
    return torch.cat(vectors, dim=1)


def product(text: Tensor, vision: Tensor) -> Tensor:
    """(B, N) twice to (B, 2N)."""
    return torch.cat([text * vision, text * vision.flip(1)], dim=1)


def tensor(first: Tensor, *others: Tensor) -> Tensor:
    """(B, N), (B, M) and so on to (B, N M ...), the first's index slowest."""
    for other in others:
        first = (first.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
    return first


def tensor_fusion(*vectors: Tensor) -> Tensor:
    """(B, N), (B, M) and so on to (B, (N + 1) (M + 1) ...), each with a 1 after its features."""
    return tensor(*(torch.cat([v, torch.ones_like(v[:, :1])], dim=1) for v in vectors))


def summation(first: Tensor, *others: Tensor) -> Tensor:
    """(B, N) each to (B, N)."""
    for other in others:
        first = first + other
    return first


class Parameterless(nn.Module):
    """An operator that learns nothing."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N), (B, M) and so on to the operator's width."""
        return self.function(*vectors)

    def extra_repr(self) -> str:
        """What it computes."""
        return self.function.__name__


class Gated(nn.Module):
    """The network of `definitions.Gated`."""

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        gates = modalities if modalities > 2 else 1
        self.gate = nn.Linear(modalities * width, gates * width)

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N) each to (B, N)."""
        said = self.gate(torch.cat(vectors, dim=1))
        if len(vectors) == 2:
            text, vision = vectors
            gate = torch.sigmoid(said)
            return gate * text + (1 - gate) * vision
        stacked = torch.stack(vectors, dim=1)
        fused: Tensor = (said.view(stacked.shape).softmax(1) * stacked).sum(1)
        return fused


class LowRankTensor(nn.Module):
    """The network of `definitions.LowRankTensor`."""

    def __init__(self, width: int, modalities: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        # The bias of each is the weight of its 1.
        self.factors = nn.ModuleList(nn.Linear(width, rank * width) for _ in range(modalities))
        self.bias = nn.Parameter(torch.zeros(width))
        # As the authors draw them: factors (rank, N + 1, N) and a share of each rank by Glorot's
        # normal distribution. The shares are multiplied into the first modality's factors.
        sd = math.sqrt(2 / (width * (width + 1 + rank)))
        for parameter in self.factors.parameters():
            nn.init.normal_(parameter, std=sd)
        shares = nn.init.xavier_normal_(torch.empty(1, rank)).repeat_interleave(width, 1)[0]
        with torch.no_grad():
            for parameter in self.factors[0].parameters():
                parameter.mul_(shares.view(-1, *[1] * (parameter.ndim - 1)))

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N) each to (B, N)."""
        first, *others = (f(v) for f, v in zip(self.factors, vectors, strict=True))
        products: Tensor = first
        for other in others:
            products = products * other
        return products.view(len(products), self.rank, -1).sum(1) + self.bias


class Bilinear(nn.Module):
    """The network of `definitions.Bilinear`."""

    def __init__(self, width: int, factors: int, epsilon: float) -> None:
        super().__init__()
        self.factors, self.epsilon = factors, epsilon
        self.text = nn.Linear(width, factors * width, bias=False)
        self.vision = nn.Linear(width, factors * width, bias=False)

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N), of length 1."""
        products = self.text(text) * self.vision(vision)
        summed = products.view(len(text), -1, self.factors).sum(2)
        rooted = summed / torch.sqrt(summed.abs() + self.epsilon)
        normed: Tensor = functional.normalize(rooted, dim=1, eps=self.epsilon)
        return normed


class MultiplicativeInteractions(nn.Module):
    """The network of `definitions.MultiplicativeInteractions`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.interaction = nn.Linear(width * width, width, bias=False)
        self.separate = nn.Linear(2 * width, width)

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N)."""
        both = self.separate(torch.cat([text, vision], dim=1))
        fused: Tensor = self.interaction(tensor(text, vision)) + both
        return fused


class FeatureWiseModulation(nn.Module):
    """The network of `definitions.FeatureWiseModulation`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.generator = nn.Linear(width, 2 * width)

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N)."""
        change, shift = self.generator(text).chunk(2, dim=1)
        modulated: Tensor = (1 + change) * vision + shift
        return modulated


class GatedMultimodalUnit(nn.Module):
    """The network of `definitions.GatedMultimodalUnit`."""

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(modalities))
        gates = modalities if modalities > 2 else 1
        self.gate = nn.Linear(modalities * width, gates * width, bias=False)

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N) each to (B, N)."""
        hidden = [torch.tanh(own(v)) for own, v in zip(self.maps, vectors, strict=True)]
        gates = torch.sigmoid(self.gate(torch.cat(vectors, dim=1)))
        if len(vectors) == 2:
            return gates * hidden[1] + (1 - gates) * hidden[0]
        stacked = torch.stack(hidden, dim=1)
        fused: Tensor = (gates.view(stacked.shape) * stacked).sum(1)
        return fused
