"""Which rows belong to one work: given groups, sequels by title, copies by text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

NEAR_DUPLICATE = 0.6
"""Estimated Jaccard similarity of word triples from which two synopses are copies."""
_PERMUTATIONS = 64
_BAND = 4
_SEQUEL = re.compile(
    r"\b(?:(?:the\s+)?(?:\d+(?:st|nd|rd|th)|first|second|third|fourth|fifth|final)\s+(?:season|part)"
    r"|(?:season|part|vol(?:ume)?|book|chapter|episode|cour)\s*\.?\s*(?:\d+|[ivx]+)"
    r"|the\s+(?:movie|animation|series)|movie|ova|ona|specials?|tv|remake|[ivx]{2,4}|\d{1,2})\s*$"
)


def assign_works(
    titles: Sequence[str], synopses: Sequence[str], groups: Sequence[str | None]
) -> IntArray:
    """(n,) work numbers, equal for rows that no split may separate.

    Rows are one work when they share a `group`, when both lack a group and their titles are
    those of one series, when their synopses are near duplicates, or through a chain of these.
    """
    edges = [
        *_chains(_rows_by(groups)),
        *_chains(
            _rows_by(_series(t) if g is None else None for t, g in zip(titles, groups, strict=True))
        ),
        *near_duplicates(synopses),
    ]
    return _components(len(titles), edges)


def near_duplicates(synopses: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of rows with equal or nearly equal text, by MinHash signatures in bands (rensa)."""
    from rensa import RMinHash

    signatures = np.zeros((len(synopses), _PERMUTATIONS), dtype=np.uint32)
    long_enough = np.zeros(len(synopses), dtype=bool)
    for row, synopsis in enumerate(synopses):
        shingles = _shingles(synopsis)
        if shingles:
            sketch = RMinHash(num_perm=_PERMUTATIONS, seed=1)
            sketch.update(shingles)
            signatures[row] = sketch.digest()
            long_enough[row] = True
    pairs: set[tuple[int, int]] = set()
    for start in range(0, _PERMUTATIONS, _BAND):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for row in np.flatnonzero(long_enough).tolist():
            buckets[signatures[row, start : start + _BAND].tobytes()].append(row)
        for rows in buckets.values():
            pairs.update(pairwise(rows))
            pairs.update((rows[0], row) for row in rows[2:])
    return [
        (first, second)
        for first, second in sorted(pairs)
        if np.mean(signatures[first] == signatures[second]) >= NEAR_DUPLICATE
    ]


def split_folds(works: IntArray, folds: int, seed: int) -> IntArray:
    """(n,) fold of each row, whole works only, folds of nearly equal size; fixed by the seed."""
    numbers, sizes = np.unique(works, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(folds, dtype=np.int64)
    fold_of = np.zeros(len(numbers), dtype=np.int64)
    for work in order:
        fold_of[work] = np.argmin(load)
        load[fold_of[work]] += sizes[work]
    return fold_of[np.searchsorted(numbers, works)]


def _series(title: str) -> str | None:
    name = re.split(r"[:\-–—(\[~]\s", title.casefold() + " ", maxsplit=1)[0]
    name = re.sub(r"[^\w\s]", " ", name).strip()
    while (shorter := _SEQUEL.sub("", name).strip()) not in (name, ""):
        name = shorter
    return " ".join(name.split()) or None


def _shingles(synopsis: str) -> list[str]:
    words = re.findall(r"\w+", synopsis.casefold())
    if len(words) < 3:
        return []
    return [" ".join(triple) for triple in zip(words, words[1:], words[2:], strict=False)]


def _rows_by(keys: Iterable[str | None]) -> list[list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key:
            rows[key].append(row)
    return list(rows.values())


def _chains(groups: Iterable[list[int]]) -> list[tuple[int, int]]:
    return [pair for rows in groups for pair in pairwise(rows)]


def _components(size: int, edges: list[tuple[int, int]]) -> IntArray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    labels: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
