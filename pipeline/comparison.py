"""What changes from one model to another on the same labelled rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.corpus import NO, YES
from pipeline.errors import CorpusError, ModelError
from pipeline.evaluation import RESAMPLES, Bootstrap, Interval, bootstrap, evaluate, interval
from pipeline.predictions import Predictions

RESAMPLES_PAIRED = 5 * RESAMPLES
"""Resamples of works; more than for a model alone, since whether 0 is inside is what matters."""


@dataclass(frozen=True)
class Difference:
    """A figure of both models; `difference` is B minus A, with its paired 95 % interval."""

    a: float
    b: float
    difference: float
    interval: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class TagDifference:
    """Both models on one tag; `gained` and `lost` count the rows that B tags and A does not, and
    the reverse, `_right` those whose label agrees with B."""

    tag: str
    support: int
    f1: Difference
    average_precision: Difference
    gained: int
    gained_right: int
    lost: int
    lost_right: int


@dataclass(frozen=True)
class Change:
    """A row whose warnings differ: tags that only B suggests, and that only A does.

    `labels` says of each of these tags whether the row has it: yes, no, or None where unknown.
    """

    row: int
    title: str
    source: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    labels: dict[str, bool | None]

    @property
    def better(self) -> int:
        """Cells that B has right and A wrong, less the reverse."""
        right = [self.labels[tag] is True for tag in self.gained]
        right += [self.labels[tag] is False for tag in self.lost]
        wrong = [self.labels[tag] is False for tag in self.gained]
        wrong += [self.labels[tag] is True for tag in self.lost]
        return sum(right) - sum(wrong)


@dataclass(frozen=True)
class Comparison:
    """Models A and B on the same rows, on the tags that both know.

    `only_a` and `only_b` name the tags that one alone knows. `changes` are in the order of the
    rows. Intervals resample works, the same ones for both models.
    """

    a: str
    b: str
    profile: str
    rows: int
    works: int
    micro_f1: Difference
    macro_f1: Difference
    mean_average_precision: Difference
    tags: tuple[TagDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    changes: tuple[Change, ...]
    changed_works: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare(
    names: tuple[str, str],
    predictions: tuple[Predictions, Predictions],
    profile: str,
    seed: int = 0,
    resamples: int = RESAMPLES_PAIRED,
) -> Comparison:
    """Compare two models by their predictions of one corpus.

    Args:
        names: what to call A and B.
        predictions: of A and of B, for the same rows.
        profile: a key of `suggested` of both.
        seed: of the resamples.
        resamples: how often works are drawn.

    Raises:
        ModelError: the models have no tag in common.
        CorpusError: no row has a known label of a common tag.
    """
    first, second = predictions
    shared = tuple(tag for tag in first.tags if tag in second.tags)
    if not shared:
        raise ModelError(f"{names[0]} and {names[1]} have no tag in common")
    a, b = (_Side.of(part, shared, profile) for part in predictions)
    corpus = first.corpus
    labels = first.labels[:, [first.tags.index(tag) for tag in shared]]
    if not (labels >= 0).any():
        raise CorpusError("no row has a known label of a tag that both models know")
    scores = [
        evaluate(shared, side.probabilities, side.suggested, labels, corpus.works, resamples=0)
        for side in (a, b)
    ]
    boots = [
        bootstrap(side.probabilities, side.suggested, labels, corpus.works, seed, resamples)
        for side in (a, b)
    ]

    def over_all(name: str) -> Difference:
        return _difference(
            *(getattr(score, name) for score in scores), *(getattr(boot, name) for boot in boots)
        )

    changes = _changes(first, shared, labels, a.suggested, b.suggested)
    return Comparison(
        a=names[0],
        b=names[1],
        profile=profile,
        rows=len(corpus),
        works=len(np.unique(corpus.works)),
        micro_f1=over_all("micro_f1"),
        macro_f1=over_all("macro_f1"),
        mean_average_precision=over_all("mean_average_precision"),
        tags=tuple(
            _tag_difference(shared, by_a.tag, (by_a, by_b), boots, labels, (a, b))
            for by_a, by_b in zip(scores[0].tags, scores[1].tags, strict=True)
        ),
        only_a=tuple(tag for tag in first.tags if tag not in shared),
        only_b=tuple(tag for tag in second.tags if tag not in shared),
        changes=changes,
        changed_works=len({int(corpus.works[change.row]) for change in changes}),
    )


@dataclass(frozen=True)
class _Side:
    """One model on the shared tags: (n, tags) probabilities and suggestions."""

    probabilities: npt.NDArray[np.float64]
    suggested: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, predictions: Predictions, tags: tuple[str, ...], profile: str) -> _Side:
        columns = [predictions.tags.index(tag) for tag in tags]
        return cls(
            predictions.probabilities[:, columns], predictions.suggested[profile][:, columns]
        )


def _difference(a: float, b: float, boot_a: Any, boot_b: Any) -> Difference:
    return Difference(a, b, b - a, interval(boot_b - boot_a))


def _tag_difference(
    shared: tuple[str, ...],
    tag: str,
    scores: tuple[Any, Any],
    boots: list[Bootstrap],
    labels: npt.NDArray[np.int8],
    sides: tuple[_Side, _Side],
) -> TagDifference:
    column = shared.index(tag)
    known = labels[:, column]
    in_a, in_b = (side.suggested[:, column] for side in sides)
    gained, lost = in_b & ~in_a, in_a & ~in_b
    return TagDifference(
        tag=tag,
        support=scores[0].support,
        f1=_difference(scores[0].f1, scores[1].f1, *(boot.f1[:, column] for boot in boots)),
        average_precision=_difference(
            scores[0].average_precision,
            scores[1].average_precision,
            *(boot.average_precision[:, column] for boot in boots),
        ),
        gained=int(gained.sum()),
        gained_right=int((gained & (known == YES)).sum()),
        lost=int(lost.sum()),
        lost_right=int((lost & (known == NO)).sum()),
    )


def _changes(
    predictions: Predictions,
    tags: tuple[str, ...],
    labels: npt.NDArray[np.int8],
    in_a: npt.NDArray[np.bool_],
    in_b: npt.NDArray[np.bool_],
) -> tuple[Change, ...]:
    corpus, states = predictions.corpus, {YES: True, NO: False}
    return tuple(
        Change(
            row=int(row),
            title=corpus.titles[row],
            source=corpus.catalogues[row] or corpus.sources[row],
            gained=tuple(tags[t] for t in np.flatnonzero(in_b[row] & ~in_a[row])),
            lost=tuple(tags[t] for t in np.flatnonzero(in_a[row] & ~in_b[row])),
            labels={
                tags[t]: states.get(int(labels[row, t]))
                for t in np.flatnonzero(in_a[row] != in_b[row])
            },
        )
        for row in np.flatnonzero((in_a != in_b).any(axis=1))
    )
