"""Inputs made worse on purpose: pictures and texts as a sensor or a writer would spoil them.

Each corruption has severities 1 to 5; 0 changes nothing. What is drawn at random depends on the
sample's id, the corruption and a seed alone: a sample is spoilt alike everywhere, and by a higher
severity in the same place, only more. Pictures are spoilt in their own size, before an encoder's
resizing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from evaluators.data import Damage, DataError, DataSet, Modality, Sample, Split, read_image

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""
Name = Literal[
    "blur", "occlusion", "jpeg", "dark", "dropped-words", "swapped-words", "misspelt-words"
]
MOST_SEVERE = 5
BLUR_SIDE = 224
"""Shorter side, in pixels, of the picture that a blur's radius is told for."""
_GREY = 127
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Corruption:
    """What is spoilt, and how much: `levels` are those of severity 1 to 5, as `means` says."""

    modality: Modality
    means: str
    levels: tuple[float, float, float, float, float]


CORRUPTIONS: Mapping[Name, Corruption] = {
    "blur": Corruption(
        "vision",
        f"standard deviation of a Gaussian, in pixels of a picture {BLUR_SIDE} pixels wide or high",
        (1.0, 2.0, 4.0, 6.0, 9.0),
    ),
    "occlusion": Corruption(
        "vision", "share of the picture under one grey rectangle", (0.1, 0.2, 0.3, 0.45, 0.6)
    ),
    "jpeg": Corruption("vision", "quality of JPEG, 1 to 95", (30, 18, 10, 6, 2)),
    "dark": Corruption("vision", "factor on all values", (0.6, 0.4, 0.25, 0.15, 0.08)),
    "dropped-words": Corruption(
        "text", "chance of each word to be left out; one is kept", (0.1, 0.2, 0.3, 0.45, 0.6)
    ),
    "swapped-words": Corruption(
        "text", "chance of each word to change places with the next", (0.1, 0.2, 0.35, 0.55, 0.8)
    ),
    "misspelt-words": Corruption(
        "text",
        "chance of each letter to be another one, doubled, or (but for a word's first) left out",
        (0.03, 0.06, 0.1, 0.16, 0.25),
    ),
}


def names(modality: Modality) -> tuple[Name, ...]:
    """The corruptions of one modality."""
    return tuple(name for name, found in CORRUPTIONS.items() if found.modality == modality)


def generator(sample_id: str, name: str, seed: int) -> np.random.Generator:
    """What is random in one corruption of one sample, at every severity."""
    digest = hashlib.sha256(json.dumps([sample_id, name, seed]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def corrupt_picture(pixels: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """The picture (H, W, 3) uint8 spoilt, a new array of the same shape.

    Raises ValueError for a name that is no corruption of pictures, or a severity out of 0 to 5.
    """
    known = _known(name, severity, "vision")
    if severity == 0:
        return pixels.copy()
    level = CORRUPTIONS[known].levels[severity - 1]
    if known == "blur":
        return _blurred(pixels, level)
    if known == "occlusion":
        return _occluded(pixels, level, rng)
    if known == "jpeg":
        return _through_jpeg(pixels, round(level))
    return (pixels * level).round().astype(np.uint8)


def corrupt_text(text: str, name: str, severity: int, rng: np.random.Generator) -> str:
    """The text spoilt, its words parted by single blanks.

    Raises ValueError for a name that is no corruption of texts, or a severity out of 0 to 5.
    """
    known = _known(name, severity, "text")
    if severity == 0:
        return text
    level, words = CORRUPTIONS[known].levels[severity - 1], text.split()
    if known == "dropped-words":
        words = _dropped(words, level, rng)
    elif known == "swapped-words":
        words = _swapped(words, level, rng)
    else:
        words = [_misspelt(word, level, rng) for word in words]
    return " ".join(words)


def corrupted(
    data: DataSet, name: str, severity: int, seed: int = 0, split: Split = "test"
) -> DataSet:
    """The data with one split spoilt; severity 0 gives the data as they are.

    Texts are changed here, pictures when they are read; nothing is written. The fingerprint tells
    corruption, severity, seed and split, and so does `contents`, also of a fold. Raises ValueError
    for an unknown name or a severity out of 0 to 5; DataError where pictures are to be spoilt and
    were not read.
    """
    known = _known(name, severity)
    if severity == 0:
        return data
    modality = CORRUPTIONS[known].modality
    if modality not in data.modalities:
        raise DataError(
            f"{data.name}: {name} spoils pictures, and the data were read without; read them with "
            f"pictures, or give one of {', '.join(names('text'))}"
        )
    damage = Damage(name, severity, seed)
    spoil = _with_picture if modality == "vision" else _with_text
    samples = tuple(
        spoil(sample, damage) if sample.split == split else sample for sample in data.samples
    )
    told = json.dumps([data.fingerprint, name, severity, seed, split])
    key = hashlib.sha256(told.encode()).hexdigest()
    return replace(
        data,
        samples=samples,
        note=f"{data.note} Spoilt in {split}: {name}, severity {severity} of {MOST_SEVERE}.",
        fingerprint=key,
        # A fold's test samples are no other fold's: what was made of those must not be taken.
        cut_from=key if data.cut_from else "",
    )


def read_picture(sample: Sample, size: int) -> Pixels:
    """The sample's picture, spoilt where it is to be, as (3, size, size) uint8, channels first.

    Raises what `read_image` raises.
    """

    def spoilt(pixels: Pixels) -> Pixels:
        for damage in sample.damages:
            rng = generator(sample.id, damage.name, damage.seed)
            pixels = corrupt_picture(pixels, damage.name, damage.severity, rng)
        return pixels

    return read_image(sample.picture, size, spoilt if sample.damages else None)


def _known(name: str, severity: int, modality: Modality | None = None) -> Name:
    """The name, checked. Raises ValueError."""
    for known, found in CORRUPTIONS.items():
        if known == name and modality in (None, found.modality):
            if not 0 <= severity <= MOST_SEVERE:
                raise ValueError(f"severity {severity} of {name}: give 0 to {MOST_SEVERE}")
            return known
    choices = names(modality) if modality else tuple(CORRUPTIONS)
    raise ValueError(f"corruption {name!r}: choose one of {', '.join(choices)}")


def _with_picture(sample: Sample, damage: Damage) -> Sample:
    return replace(sample, damages=(*sample.damages, damage))


def _with_text(sample: Sample, damage: Damage) -> Sample:
    rng = generator(sample.id, damage.name, damage.seed)
    return replace(sample, text=corrupt_text(sample.text, damage.name, damage.severity, rng))


def _blurred(pixels: Pixels, deviation: float) -> Pixels:
    from PIL import Image, ImageFilter

    radius = deviation * min(pixels.shape[:2]) / BLUR_SIDE
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _occluded(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """A larger rectangle covers the smaller ones of the same draw."""
    ratio = 2.0 ** rng.uniform(-1, 1)
    down, across = rng.uniform(size=2)
    high, wide = (share * ratio) ** 0.5, (share / ratio) ** 0.5
    if high > 1:
        high, wide = 1.0, share
    elif wide > 1:
        high, wide = share, 1.0
    height, width = pixels.shape[:2]
    top, left = down * (1 - high), across * (1 - wide)
    rows = slice(round(top * height), round((top + high) * height))
    columns = slice(round(left * width), round((left + wide) * width))
    hidden = pixels.copy()
    hidden[rows, columns] = _GREY
    return hidden


def _through_jpeg(pixels: Pixels, quality: int) -> Pixels:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=quality)
    with Image.open(packed) as opened:
        return np.array(opened.convert("RGB"))


def _dropped(words: list[str], chance: float, rng: np.random.Generator) -> list[str]:
    if not words:
        return []
    draws = rng.uniform(size=len(words))
    kept = [word for word, drawn in zip(words, draws, strict=True) if drawn >= chance]
    return kept or [words[int(draws.argmax())]]


def _swapped(words: list[str], chance: float, rng: np.random.Generator) -> list[str]:
    """From the left; a word moves once."""
    found = list(words)
    draws = rng.uniform(size=len(words))
    k = 0
    while k + 1 < len(found):
        if draws[k] < chance:
            found[k], found[k + 1] = found[k + 1], found[k]
            k += 1
        k += 1
    return found


def _misspelt(word: str, chance: float, rng: np.random.Generator) -> str:
    """Every character draws alike, whether it is changed or not."""
    draws = rng.uniform(size=len(word))
    ways = rng.integers(3, size=len(word))
    steps = rng.integers(1, len(_LETTERS), size=len(word))
    spelt = []
    for k, letter in enumerate(word):
        if draws[k] >= chance or not letter.isalpha():
            spelt.append(letter)
        elif ways[k] == 0:
            spelt.append(2 * letter)
        elif ways[k] == 1 or k == 0:
            spelt.append(_another(letter, int(steps[k])))
    return "".join(spelt)


def _another(letter: str, step: int) -> str:
    """The letter `step` places on in the Latin alphabet, or the one there for a letter of none."""
    place = _LETTERS.find(letter.lower())
    other = _LETTERS[(place + step) % len(_LETTERS)]
    return other.upper() if letter.isupper() else other
