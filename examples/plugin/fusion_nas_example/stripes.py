"""A data set as a plugin: drawn pictures of stripes, with a sentence that names their direction."""

import random
from collections.abc import Iterator
from pathlib import Path

from fusion_nas.datasets import PluginDataSet, Row

SPLITS = {"train": 48, "valid": 24, "test": 24}
WORDS = {"upright": ("vertical", "upright"), "level": ("horizontal", "level")}
SIDE = 64


class Stripes(PluginDataSet):
    """Two classes that both modalities tell; one sentence in eight names the other direction."""

    modalities = ("text", "vision")

    def rows(self, folder: Path) -> Iterator[Row]:
        """Draw pictures to `folder`, the same each time, and yield all samples."""
        drawn = random.Random(0)
        for split, count in SPLITS.items():
            for k in range(count):
                label = sorted(WORDS)[k % 2]
                said = label if drawn.random() > 1 / 8 else sorted(WORDS)[(k + 1) % 2]
                text = f"lines that are {drawn.choice(WORDS[said])}, number {drawn.randrange(100)}"
                file = folder / f"{split}-{k:02}.png"
                period, tint = drawn.randrange(4, 12), drawn.randrange(128, 256)
                if not file.is_file():
                    self._draw(file, label == "upright", period, tint)
                yield Row(f"{split}-{k:02}", label, split, text, image=file)

    def _draw(self, file: Path, upright: bool, period: int, tint: int) -> None:
        import numpy as np
        from PIL import Image

        line = np.where(np.arange(SIDE) % period < period / 2, tint, 32).astype(np.uint8)
        plane = np.tile(line, (SIDE, 1))
        # Renamed when it is complete: an interrupted run leaves no half of a picture as `file`.
        part = file.with_name(f"part-{file.name}")
        Image.fromarray(plane if upright else plane.T).convert("RGB").save(part)
        part.replace(file)
