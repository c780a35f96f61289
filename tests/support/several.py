"""A folder of multi-label data: texts tell two classes and pictures a third, any number a row."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("bright", "cat", "dog")
SPLITS = {"train": 48, "valid": 24, "test": 24}


def write_several(folder: Path, lines: bool = False) -> Path:
    """Write such a folder, with `label.csv` or, of `lines`, `label.jsonl`."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str | list[str]]] = []
    for split, count in SPLITS.items():
        for k in range(count):
            bright, cat, dog = k % 2 == 1, k % 4 > 1, k % 8 > 3
            words = ["cat"] * cat + ["dog"] * dog + ["yard"] * (1 + k % 3)
            pixels = rng.normal(190 if bright else 60, 25, (32, 32, 3)).clip(0, 255)
            name = f"{split}{k:02}"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{name}.png")
            there = zip(CLASSES, (bright, cat, dog), strict=True)
            labels = [label for label, has in there if has]
            text = " ".join(rng.permutation(words))
            rows.append({"id": name, "text": text, "labels": labels, "mode": split})
    if lines:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "label.jsonl").write_text(text, encoding="utf-8")
    else:
        cells = [f"{r['id']},{r['text']},{';'.join(r['labels'])},{r['mode']}" for r in rows]
        text = "\n".join(["id,text,labels,mode", *cells]) + "\n"
        (folder / "label.csv").write_text(text, encoding="utf-8")
    return folder
