"""Batch tagging: a table in, the same table with warnings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

import pipeline
from pipeline import artefact, table
from pipeline.batch import Batch
from pipeline.decision import FloatArray
from pipeline.draft import Terms
from pipeline.errors import ModelError, TableError
from pipeline.model import AnyModel, Model
from pipeline.synopsis import Status, clean_all
from pipeline.table import Cells, Columns, Row

CHUNK = 1500
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


@dataclass(frozen=True)
class Recipe:
    """A tagger by where its model is: what other processes make it from.

    Attributes:
        folder: of the model; every process maps the same files to memory.
        digest: of the model, so that a folder that was replaced meanwhile is noticed.
        margin: of an accurate model.
        options: the tagger's fields beside the model, in order.
    """

    folder: Path
    digest: str
    margin: float | None
    options: tuple[str, float | None, bool, bool]

    @classmethod
    def of(cls, tagger: Tagger, folder: Path) -> Recipe:
        """The recipe of a tagger whose model is kept in a folder."""
        margin = None if isinstance(tagger.model, Model) else tagger.model.margin
        options = (tagger.profile, tagger.threshold, tagger.scores, tagger.evidence)
        return cls(folder, artefact.digest(folder), margin, options)

    def tagger(self) -> Tagger:
        """The tagger, loaded once a process; it computes in one thread.

        Raises:
            ModelError: the folder holds another model by now.
        """
        return _load_tagger(self)


@lru_cache(maxsize=1)
def _load_tagger(recipe: Recipe) -> Tagger:
    model = artefact.load_model(recipe.folder)
    if artefact.digest(recipe.folder) != recipe.digest:
        raise ModelError(f"{recipe.folder}: was replaced during the run; run it again")
    if not isinstance(model, Model):
        encoder = replace(model.encoder, threads=1)
        model = replace(model, encoder=encoder, margin=recipe.margin)
    return Tagger(model, *recipe.options)


@contextmanager
def model_folder(model: AnyModel) -> Iterator[Path]:
    """The folder of a model; one that was never saved is in a temporary one for so long."""
    if (folder := model.folder) is not None:
        yield folder
        return
    with TemporaryDirectory() as scratch:
        artefact.save_model(model, Path(scratch) / "model")
        yield Path(scratch) / "model"


def tag_table(
    source: str,
    target: str,
    tagger: Tagger,
    columns: Columns | None = None,
    kind: str | None = None,
    chunk: int | None = None,
    read: Callable[[int], None] = lambda _: None,
    jobs: int = 1,
    resume: bool = False,
    note: Callable[[str], None] = lambda _: None,
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
        jobs: processes that tag at the same time; -1 for one a core. The output is the same.
        resume: continue where an interrupted run of the same source, target, model and options
            stopped; the output is that of an undisturbed run. Without such a run, start afresh.
        note: told what becomes of what an interrupted run left.

    A run from a file to a file that is cut off leaves its finished part beside the target, hidden.

    Raises:
        TableError: see `table.extend`; also when source and target differ in format, or when
            `resume` is asked for with a stream.
        ModelError: the model's folder was replaced during the run.
    """
    kind = kind or table.format_of(source, None if target == "-" else table.format_of(target))
    if target != "-" and table.format_of(target) != kind:
        raise TableError(
            f"{target}: the input is {kind}, so the output must be too; name it .{kind}"
        )
    # A named pipe is as a stream; a missing file is told of further on.
    files = "-" not in {source, target} and not (
        Path(source).exists() and not Path(source).is_file()
    )
    if resume and not files:
        raise TableError(
            "standard input and output cannot be gone back to; --resume needs files for both"
        )
    columns = columns or Columns()
    chunk = chunk or (CHUNK if isinstance(tagger.model, Model) else _ACCURATE_CHUNK)
    with model_folder(tagger.model) as folder:
        recipe = Recipe.of(tagger, folder)
        terms = {**terms_of(recipe, columns), "--format": kind, "chunk size": chunk}
        return table.extend(
            source,
            target,
            kind,
            tagger,
            columns,
            chunk,
            read,
            jobs=cores() if jobs < 0 else jobs,
            again=recipe.tagger,
            terms=terms if files else None,
            resume=resume,
            note=note,
        )


def terms_of(recipe: Recipe, columns: Columns) -> Terms:
    """What a run that adds columns and its continuation must have in common."""
    profile, threshold, scores, evidence = recipe.options
    return {
        "model": [recipe.digest, recipe.margin],
        "--profile": profile,
        "--threshold": threshold,
        "--scores": scores,
        "--evidence": evidence,
        "--column": [columns.synopsis, columns.title],
        "version of forewarn": pipeline.__version__,
    }


def cores() -> int:
    """The cores that this process may use."""
    from joblib import cpu_count

    return int(cpu_count())
