"""Voices for the faces set: vowels, syllable by syllable, by a speaker in a tone.

A glottal source of harmonics goes through three formants, each syllable through those of its own
vowel. The tone is in the prosody. From negative to positive the pitch rises, moves more and ends
higher, syllables come faster and louder, and the voice is brighter; each of these varies from
clip to clip and speaker to speaker too, so that none alone tells the tone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from evaluators.data.generative.scenes import Tone
from evaluators.data.media.waves import FULL_SCALE, Wave
from search_space.design.encoder import SOUND_HZ

SHORTEST, LONGEST = 1.5, 4.0
"""Seconds."""
_SYLLABLES = (6, 10)
"""The fewest and the most in a clip."""
_VOWELS = np.array(
    [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240)]
)
"""Formants of a, e, i, o, u in Hz."""
_WIDTHS = np.array([90.0, 110.0, 170.0])
"""Bandwidths of the formants in Hz."""
_HARMONICS = 24
_PERIOD = 1024
"""Samples of one period of the source, as a table."""
_LEVEL_DB = -26.0
"""Of speech, to full scale."""

_HARMONIC = np.arange(1, _HARMONICS + 1)
_SINES = np.sin(2 * np.pi * np.outer(_HARMONIC, np.arange(_PERIOD)) / _PERIOD)

Signal = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """What stays the same over the clips of one video."""

    pitch: float
    """Fundamental in Hz where the tone is neutral."""
    tract: float
    """By which the formants lie higher than those of a man."""
    tempo: float
    """Syllables a second."""
    level: float
    """Decibels above the usual."""
    tilt: float
    """How fast the harmonics of the source fall, in powers of their number."""
    noise: float
    """The room's, in decibels to full scale."""


def voice(rng: np.random.Generator) -> Voice:
    """A new speaker's voice; high voices come with short tracts."""
    height = rng.random()
    return Voice(
        pitch=95.0 * 2.3 ** (height + rng.uniform(-0.1, 0.1)),
        tract=1 + 0.18 * height + rng.uniform(-0.04, 0.04),
        tempo=rng.uniform(3.5, 4.5),
        level=rng.uniform(-3, 3),
        tilt=rng.uniform(1.3, 1.7),
        noise=rng.uniform(-62, -50),
    )


def speak(person: Voice, tone: Tone, rng: np.random.Generator) -> Wave:
    """One clip (N,) at 16 kHz, 1.5 to 4 seconds long."""
    told = tone.polarity * tone.strength
    count = int(rng.integers(_SYLLABLES[0], _SYLLABLES[1] + 1))
    tempo = person.tempo * (1 + 0.07 * told + rng.normal(0, 0.05))
    samples = int(SOUND_HZ * np.clip(count / tempo, SHORTEST, LONGEST))
    edges = np.linspace(0, samples, count + 1).astype(int)
    source = _source(_pitches(person, told, count, samples, rng), person.tilt - 0.08 * told)
    sound = np.empty(samples)
    for start, end in pairwise(edges):
        sound[start:end] = _syllable(source[start:end], person.tract, rng)
    level = _LEVEL_DB + person.level + 0.9 * told + rng.normal(0, 1.5)
    sound *= 10 ** (level / 20)
    sound += 10 ** (person.noise / 20) * rng.standard_normal(samples, np.float32)
    return np.clip(np.round(sound * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _pitches(
    person: Voice, told: int, count: int, samples: int, rng: np.random.Generator
) -> Signal:
    """The fundamental in Hz, sample by sample: a level, a slope, and an accent a syllable."""
    middles = (np.arange(count) + 0.5) / count
    level = 1.2 * told + rng.normal(0, 0.8)
    slope = -1.0 + 2.0 * told + rng.normal(0, 0.8)
    accents = rng.normal(0, 1.4 + 0.5 * told, count)
    semitones = level + slope * (middles - 0.5) + accents
    return person.pitch * 2 ** (np.interp(np.arange(samples) / samples, middles, semitones) / 12)


def _source(pitch: Signal, tilt: float) -> Signal:
    """Harmonics of a changing pitch; each falls by `tilt` powers of its number."""
    period: Signal = np.asarray(_HARMONIC**-tilt @ _SINES, np.float64)
    phase = np.cumsum(pitch) / SOUND_HZ
    source: Signal = period[(phase * _PERIOD).astype(np.int64) % _PERIOD]
    return source


def _syllable(source: Signal, tract: float, rng: np.random.Generator) -> Signal:
    """A part of the source through the formants of some vowel, swelling up and down, of mean
    square 1 but for the swell."""
    from scipy.signal import lfilter

    centres = tract * _VOWELS[rng.integers(len(_VOWELS))]
    radius = np.exp(-np.pi * _WIDTHS / SOUND_HZ)
    poles = radius * np.exp(2j * np.pi * centres / SOUND_HZ)
    vowel = lfilter([1.0], np.poly([*poles, *poles.conj()]).real, source)
    swell = np.sqrt(np.sin(np.pi * (np.arange(len(source)) + 0.5) / len(source)))
    spoken: Signal = vowel * swell / np.sqrt(np.mean(vowel**2))
    return spoken
