"""Batch tagging: a table in, the same table with warnings out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline import table
from pipeline.batch import Batch
from pipeline.decision import FloatArray
from pipeline.errors import TableError
from pipeline.model import AnyModel, Model
from pipeline.synopsis import Status, clean_all
from pipeline.table import Cells, Columns, Row

CHUNK = 2000
"""Rows handled at a time; fewer by an accurate model, so that its progress shows."""
_ACCURATE_CHUNK = 100


@dataclass(frozen=True)
class Tagger:
    """What tagging adds to a row: warnings and a status, and if asked for, scores and evidence.

    Columns: `warnings` (tag ids joined by ';', broader tags included, by falling probability),
    `warning_status`, `score_<tag>` (a probability; nothing for a row that cannot be read), and
    `warning_evidence` (phrases as `tag: phrase, phrase` joined by '; ').
    """

    model: AnyModel
    profile: str = "balanced"
    threshold: float | None = None
    scores: bool = False
    evidence: bool = False

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The added columns that hold numbers."""
        return frozenset(f"score_{tag}" for tag in self.model.tags) if self.scores else frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The added columns, in order."""
        scores = tuple(f"score_{tag}" for tag in self.model.tags) if self.scores else ()
        return ("warnings", "warning_status", *scores, *(("warning_evidence",) * self.evidence))

    def __call__(self, rows: list[Row]) -> Cells:
        """The added columns of a chunk of (title, synopsis) rows."""
        cleaned = clean_all([text for row in rows for text in row])
        batch = Batch(cleaned[0::2], cleaned[1::2])
        statuses = batch.statuses()
        readable = np.flatnonzero([state is Status.OK for state in statuses])
        probabilities = self.model.predict_proba(batch.select(readable))
        suggested = self.model.decide(probabilities, self.profile, self.threshold)
        cells: Cells = {name: [None] * len(rows) for name in self.names}
        cells["warnings"] = [""] * len(rows)
        cells["warning_status"] = [str(state) for state in statuses]
        for row, chosen in zip(
            readable.tolist(), self._ranked(probabilities, suggested), strict=True
        ):
            cells["warnings"][row] = chosen
        if self.scores:
            for tag, scores in zip(self.model.tags, probabilities.round(6).T.tolist(), strict=True):
                column = cells[f"score_{tag}"]
                for row, score in zip(readable.tolist(), scores, strict=True):
                    column[row] = score
        if self.evidence:
            cells["warning_evidence"] = [self._phrases(*row) for row in rows]
        return cells

    def _ranked(self, probabilities: FloatArray, suggested: npt.NDArray[np.bool_]) -> list[str]:
        """The suggested tags of each row, joined, by falling probability."""
        row, tag = np.nonzero(suggested)
        order = np.lexsort((-probabilities[row, tag], row))
        names = [self.model.tags[place] for place in tag[order].tolist()]
        ends = np.cumsum([0, *suggested.sum(axis=1)]).tolist()
        return [";".join(names[first:last]) for first, last in pairwise(ends)]

    def _phrases(self, title: str, synopsis: str) -> str:
        found = self.model.suggest(synopsis, title, profile=self.profile, threshold=self.threshold)
        return "; ".join(
            f"{warning.tag}: {', '.join(' '.join(e.text.split()) for e in warning.evidence)}"
            for warning in found.warnings
        )


def tag_table(
    source: str,
    target: str,
    tagger: Tagger,
    columns: Columns | None = None,
    kind: str | None = None,
    chunk: int | None = None,
    read: Callable[[int], None] = lambda _: None,
) -> int:
    """Tag a table chunk by chunk in constant memory; returns the number of rows.

    Args:
        source: a CSV, TSV, JSON Lines or Parquet file (.gz too), or '-' for standard input.
        target: where the tagged table goes, in the same format, or '-' for standard output.
        tagger: the model and what to add.
        columns: names of the synopsis and title columns.
        kind: the format, where the names do not tell.
        chunk: rows handled at a time; None for as many as suit the model.
        read: told the number of bytes read since the last call.

    Raises:
        TableError: see `table.extend`; also when source and target differ in format.
    """
    kind = kind or table.format_of(source, None if target == "-" else table.format_of(target))
    if target != "-" and table.format_of(target) != kind:
        raise TableError(
            f"{target}: the input is {kind}, so the output must be too; name it .{kind}"
        )
    chunk = chunk or (CHUNK if isinstance(tagger.model, Model) else _ACCURATE_CHUNK)
    return table.extend(source, target, kind, tagger, columns or Columns(), chunk, read)
