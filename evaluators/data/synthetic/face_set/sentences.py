"""English sentences about films for the faces set, drawn from a small grammar.

The polarity of a sentence can always be read off its words: neutral parts hold no sentiment word,
and every sentiment word is turned round only by `not` or `never` in its own clause. Sentiment
words come by Zipf's law, in the order of their lists, as common words do in speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from evaluators.data.generative.scenes import Words
from evaluators.data.synthetic.face_set import vocabulary as v

SHORTEST, LONGEST = 5, 20
NEGATED = {-1: 0.26, 1: 0.07}
"""Share of the sentences of a polarity whose first clause reaches it by negation: as in speech,
"not good" is commoner than "not bad"."""
TWO_CLAUSES = 0.8
"""Share of the sentences with a polarity that say so twice."""
NEUTRAL_PART = 0.45
"""Share of the others that add a neutral clause."""
FILLED = 0.4
"""Share of all sentences with a filler such as `um`."""
_ZIPF_OFFSET = 4


def sentence(words: Words, rng: np.random.Generator) -> str:
    """A lower-case sentence of 5 to 20 words that says what `words` does."""
    while True:
        parts = _neutral_parts(rng) if words.polarity == 0 else _telling_parts(words, rng)
        if rng.random() < FILLED:
            parts.insert(int(rng.integers(len(parts))), _pick(rng, v.FILLERS))
        text = " ".join(parts)
        if SHORTEST <= len(text.split()) <= LONGEST:
            return text


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


@cache
def _zipf(count: int) -> npt.NDArray[np.float64]:
    weights = 1.0 / (np.arange(count, dtype=np.float64) + _ZIPF_OFFSET)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _common(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.choice(len(choices), p=_zipf(len(choices))))]


def _neutral_parts(rng: np.random.Generator) -> list[str]:
    parts = [_neutral(rng)]
    if rng.random() < 0.4:
        parts += ["and", _neutral(rng)]
    return parts


def _telling_parts(words: Words, rng: np.random.Generator) -> list[str]:
    first = _telling(words, rng, negated=rng.random() < NEGATED[words.polarity])
    if rng.random() < TWO_CLAUSES:
        return [first, "and", _telling(Words(words.polarity, 2), rng, negated=False)]
    if rng.random() >= NEUTRAL_PART:
        return [first]
    both = [first, _neutral(rng)]
    if rng.random() < 0.5:
        both.reverse()
    return [both[0], "and", both[1]]


def _telling(words: Words, rng: np.random.Generator, negated: bool) -> str:
    """One clause with one sentiment word, of the polarity asked for."""
    good = (words.polarity > 0) != negated
    form = rng.random()
    if form < 0.6:
        adjective = _common(rng, v.GOOD_ADJECTIVES if good else v.BAD_ADJECTIVES)
        return _adjective_clause(adjective, words.strength, rng, negated)
    if form < 0.8:
        verb = _common(rng, v.GOOD_VERBS if good else v.BAD_VERBS)
        return _verb_clause(verb, words.strength, rng, negated)
    noun = _common(rng, v.GOOD_NOUNS if good else v.BAD_NOUNS)
    return _noun_clause(noun, words.strength, rng, negated)


def _adjective_clause(word: str, strength: int, rng: np.random.Generator, negated: bool) -> str:
    thing = _pick(rng, v.THINGS)
    if strength == 2 and rng.random() < 0.4:
        return f"it was {'not ' if negated else ''}{_article(word)} {word} {_pick(rng, v.WHOLES)}"
    if negated:
        described = {1: f"not exactly {word}", 2: f"not {word}", 3: f"not {word} at all"}[strength]
    else:
        degree = {1: _pick(rng, v.WEAK) + " ", 2: "", 3: _pick(rng, v.STRONG) + " "}[strength]
        described = degree + word
    opening = _pick(rng, v.OPENINGS) + " " if rng.random() < 0.3 else ""
    return f"{opening}the {thing} was {described}"


def _verb_clause(word: str, strength: int, rng: np.random.Generator, negated: bool) -> str:
    thing = _pick(rng, v.THINGS)
    if negated:
        never = {1: "never quite", 2: "never", 3: "never ever"}[strength]
        return f"i {never} {word} the {thing}"
    weak, strong = _pick(rng, v.WEAK_BEFORE_VERB), _pick(rng, v.STRONG_BEFORE_VERB)
    degree = {1: weak + " ", 2: "", 3: strong + " "}[strength]
    return f"i {degree}{word} the {thing}"


def _noun_clause(word: str, strength: int, rng: np.random.Generator, negated: bool) -> str:
    thing = _pick(rng, v.THINGS)
    if negated:
        what = {1: f"not exactly a {word}", 2: f"not a {word}", 3: f"not a {word} at all"}[strength]
    elif strength == 3:
        degree = _pick(rng, v.STRONG_BEFORE_NOUN)
        what = f"{_article(degree)} {degree} {word}"
    else:
        what = f"a bit of a {word}" if strength == 1 else f"a {word}"
    return f"the {thing} was {what}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _neutral(rng: np.random.Generator) -> str:
    """One clause without any sentiment."""
    thing, name, job, place = (_pick(rng, some) for some in (v.THINGS, v.NAMES, v.JOBS, v.PLACES))
    return _pick(
        rng,
        (
            f"i saw it on {_pick(rng, v.DAYS)} with my {_pick(rng, v.COMPANIONS)}",
            f"we watched it in {place} in {_pick(rng, v.MONTHS)}",
            f"it is about {_article(job)} {job} from {place}",
            f"the {thing} has a {_pick(rng, v.ANIMALS)} and {_article(job)} {job}",
            f"{name} plays {_article(job)} {job} in {place}",
            f"it is based on a {_pick(rng, v.SOURCES)} by {name}",
            f"they shot it in {place} with {name}",
            f"it came out in {_pick(rng, v.MONTHS)} in {place}",
            f"my {_pick(rng, v.COMPANIONS)} told me about the {thing}",
            f"it has {_pick(rng, v.NUMBERS)} parts and a {_pick(rng, v.ANIMALS)}",
            f"we sat in the {_pick(rng, v.SEATS)} row with {_pick(rng, v.SNACKS)}",
            f"the {job} meets {name} after {_pick(rng, v.NUMBERS)} days",
            f"{name} wrote the {_pick(rng, v.SOURCES)} in {place}",
            f"the {job} has a {_pick(rng, v.ANIMALS)} called {name}",
        ),
    )
