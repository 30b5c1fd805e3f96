"""Features of a document: stemmed words and pairs of neighbours, each with its place in the text.

A document is a title, a newline, and a synopsis, both cleaned. No pair spans the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

_WORD = re.compile(r"[^\W_]+(?:['*][^\W_]+)*")
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
    return [name for field in (title, synopsis) for name in _names(_stems(_WORD.findall(field)))]


def word_spans(field: str) -> list[tuple[int, int]]:
    """(start, end) of each word of one field (a title or a synopsis)."""
    return [match.span() for match in _WORD.finditer(field)]


def occurrences(field: str) -> list[Occurrence]:
    """The features of one field (a title or a synopsis), as in `analyze`, with their spans."""
    matches = list(_WORD.finditer(field))
    spans = [match.span() for match in matches]
    names = _names(_stems([match[0] for match in matches]))
    places = [(span,) for span in spans] + list(pairwise(spans))
    return [Occurrence(name, place) for name, place in zip(names, places, strict=True)]


def _stems(words: list[str]) -> list[str]:
    stem = _stemmer()
    return stem([_MASKED.get(word, word) for word in map(str.lower, words)])


def _names(stems: list[str]) -> list[str]:
    return [*stems, *(f"{first} {second}" for first, second in pairwise(stems))]


@cache
def _stemmer() -> Callable[[list[str]], list[str]]:
    # Porter's second English stemmer, in Snowball's C (PyStemmer).
    from Stemmer import Stemmer

    stemmer = Stemmer("english")
    stemmer.maxCacheSize = 100_000
    stem: Callable[[list[str]], list[str]] = stemmer.stemWords
    return stem
