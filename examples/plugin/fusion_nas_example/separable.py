"""A vision encoder as a plugin: four depthwise-separable convolutions."""

from pathlib import Path
from typing import TYPE_CHECKING

from fusion_nas.encoders import PluginEncoder

if TYPE_CHECKING:
    from torch import nn


class Separable(PluginEncoder):
    """Each tap halves the sides of the feature map and widens it."""

    modality = "vision"
    widths = (16, 32, 64, 128)
    image_size = 64

    def build(self, depth: int, folder: Path | None) -> "nn.Module":
        """Return the first `depth` layers. torch is imported here, not above."""
        import torch
        from torch import nn

        class Layer(nn.Module):
            def __init__(self, given: int, made: int) -> None:
                super().__init__()
                self.each = nn.Conv2d(given, given, 3, stride=2, padding=1, groups=given)
                self.across = nn.Conv2d(given, made, 1)
                nn.init.kaiming_normal_(self.across.weight, nonlinearity="relu")

            def forward(self, values: torch.Tensor) -> torch.Tensor:
                return torch.relu(self.across(self.each(values)))

        class Layers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                sizes = zip((3, *Separable.widths), Separable.widths[:depth], strict=False)
                self.layers = nn.ModuleList(Layer(given, made) for given, made in sizes)

            def forward(self, values: torch.Tensor) -> list[tuple[torch.Tensor, None]]:
                taps = []
                for layer in self.layers:
                    values = layer(values)
                    taps.append((values, None))
                return taps

        model = Layers()
        if folder is not None:
            from safetensors.torch import load_file

            weights = load_file(folder / "model.safetensors")
            model.load_state_dict({name: weights[name] for name in model.state_dict()})
        return model
