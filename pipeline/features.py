"""Features of a document: stemmed words and pairs of neighbours, each with its place in the text.

A document is a title, a newline, and a synopsis, both cleaned. No pair spans the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

_TOKEN = re.compile(r"[^\W_]+(?:['*][^\W_]+)*|[.,;:!?]")
_MARKS = frozenset(".,;:!?")
_NEGATORS = frozenset(
    ["no", "not", "never", "nobody", "nothing", "none", "without", "neither", "nor", "cannot"]
)
TURNS = frozenset({"but", "except", "although", "though"})
REACH = 4
"""Words after a negator that it denies, up to a punctuation mark or a word of `TURNS`."""
NEGATED = "¬"
"""What the name of a denied word begins with."""
# Words in which catalogues hide a letter from their own filters.
_MASKED = {
    "r*pe": "rape",
    "r*ped": "raped",
    "s*x": "sex",
    "s*xual": "sexual",
    "k*ll": "kill",
    "k*lled": "killed",
    "m*rder": "murder",
    "m*rdered": "murdered",
    "sl*ve": "slave",
    "su*cide": "suicide",
    "sui*ide": "suicide",
    "t*rture": "torture",
    "ab*se": "abuse",
}


@dataclass(frozen=True)
class Occurrence:
    """One occurrence of a feature: its name and the character span that each word of it has."""

    name: str
    spans: tuple[tuple[int, int], ...]


def analyze(document: str) -> list[str]:
    """Names of all feature occurrences of a document, words first, then pairs, per field.

    This is the `analyzer` of the scikit-learn vectorizer that training fits and that an
    exported pipeline carries.
    """
    title, _, synopsis = document.partition("\n")
    return [name for field in (title, synopsis) for name in _names(_stems(_TOKEN.findall(field)))]


def word_spans(field: str) -> list[tuple[int, int]]:
    """(start, end) of each word of one field (a title or a synopsis)."""
    return [match.span() for match in _TOKEN.finditer(field) if match[0] not in _MARKS]


def occurrences(field: str) -> list[Occurrence]:
    """The features of one field (a title or a synopsis), as in `analyze`, with their spans."""
    spans = word_spans(field)
    names = _names(_stems(_TOKEN.findall(field)))
    places = [(span,) for span in spans] + list(pairwise(spans))
    return [Occurrence(name, place) for name, place in zip(names, places, strict=True)]


def _stems(tokens: list[str]) -> list[str]:
    """Stems of the words among the tokens; those that a negator denies begin with `NEGATED`.

    A denied word is a feature of its own (Das and Chen 2001, "Yahoo! for Amazon: extracting
    market sentiment from stock message boards").
    """
    lowered = [token.lower() for token in tokens]
    words = [token for token in lowered if token not in _MARKS]
    stems = stem(words)
    if not any(map(negates, words)):
        return stems
    place = reach = 0
    for token in lowered:
        if token in _MARKS or token in TURNS:
            reach = 0
        if token in _MARKS:
            continue
        if reach:
            stems[place] = NEGATED + stems[place]
            reach -= 1
        if negates(token):
            reach = REACH
        place += 1
    return stems


def stem(words: list[str], often: bool = True) -> list[str]:
    """The stem of each lower-case word, which does not depend on its neighbours.

    Stems are remembered, unless the words are not met `often`: looking takes longer than stemming.
    """
    return _stemmer(often)([_MASKED.get(word, word) for word in words])


def negates(word: str) -> bool:
    """Whether a lower-case word denies the words after it."""
    return word in _NEGATORS or word.endswith("n't")


def _names(stems: list[str]) -> list[str]:
    return [*stems, *(f"{first} {second}" for first, second in pairwise(stems))]


@cache
def _stemmer(remembers: bool) -> Callable[[list[str]], list[str]]:
    # Porter's second English stemmer, in Snowball's C (PyStemmer).
    from Stemmer import Stemmer

    stemmer = Stemmer("english")
    stemmer.maxCacheSize = 100_000 if remembers else 0
    stems: Callable[[list[str]], list[str]] = stemmer.stemWords
    return stems
