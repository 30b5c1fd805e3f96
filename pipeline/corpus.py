"""A corpus: cleaned titles and synopses with three-valued labels, one row per catalogue entry."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import works
from pipeline.errors import CorpusError, TableError
from pipeline.records import json_object
from pipeline.synopsis import Status, clean_all, status
from pipeline.taxonomy import Taxonomy

LabelArray = npt.NDArray[np.int8]

YES, NO, UNKNOWN, MAYBE = 1, 0, -1, -2
"""States of a label; a maybe is a cell that a reader would argue about."""
COLUMNS = ("id", "title", "synopsis", "tags", "maybe", "catalogue", "group")
MIN_USES = 5
"""A catalogue is observed to use a tag when at least this many of its rows carry it."""


@dataclass(frozen=True)
class Corpus:
    """Rows in the order read.

    `labels` is an (n, tags) int8 matrix of 1 yes, 0 no, -1 unknown, -2 maybe. `sources`
    names the file of each row, `groups` the work that its catalogue says it belongs to (None
    where it does not say). `notes` are remarks on the reading, one line each.
    """

    taxonomy: Taxonomy
    titles: tuple[str, ...]
    synopses: tuple[str, ...]
    labels: LabelArray
    groups: tuple[str | None, ...]
    sources: tuple[str, ...]
    catalogues: tuple[str, ...]
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.titles)

    @cached_property
    def documents(self) -> list[str]:
        """Title, newline, synopsis of each row: what features are made from."""
        return [f"{t}\n{s}" for t, s in zip(self.titles, self.synopses, strict=True)]

    @cached_property
    def works(self) -> npt.NDArray[np.int64]:
        """(n,) number of the work that each row belongs to; see `works.assign_works`."""
        return works.assign_works(self.titles, self.synopses, self.groups)

    def select(self, rows: npt.NDArray[np.int64]) -> Corpus:
        """The given rows, in their order, each still in the work that it has in the whole."""
        return replace(
            self,
            titles=tuple(self.titles[row] for row in rows),
            synopses=tuple(self.synopses[row] for row in rows),
            labels=self.labels[rows],
            groups=tuple(f"work:{self.works[row]}" for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            catalogues=tuple(self.catalogues[row] for row in rows),
        )


def read_corpus(
    paths: Sequence[str | Path],
    taxonomy: Taxonomy,
    columns: Mapping[str, str] | None = None,
    texts: Sequence[str | Path] = (),
    unlabelled: Sequence[str | Path] = (),
) -> Corpus:
    """Read and join corpora of any mix of CSV, TSV, JSON Lines and Parquet (.gz too).

    Args:
        paths: files with the columns of `COLUMNS`, of which synopsis is required.
        taxonomy: gives the label columns; tag words are matched by id, label and alias.
        columns: other names of columns in the files, by our name (`{"synopsis": "plot"}`).
        texts: files in which rows that have an id but no synopsis find their text.
        unlabelled: files whose rows are read for their texts alone; their labels are unknown, and
            rows that cannot be read or whose text is there already are left out.

    A file with a `maybe` column is annotated: its rows know every tag but their maybes. In a
    file with a `catalogue` column and no `maybe`, a row knows the tags it carries, and lacks
    those that its catalogue is observed to use. A file with neither is taken as one complete
    catalogue of its own: it knows every tag that it uses at all.

    Raises:
        TableError: a file cannot be read as a table or lacks a column.
        CorpusError: no row has both a synopsis and a known label.
    """
    library = _texts_by_id(texts, columns or {})
    parts = [_read_file(Path(path), taxonomy, columns or {}, library) for path in paths]
    if not parts:
        raise CorpusError("no corpus file was named; name at least one")
    known = {document for part in parts for document in part.documents}
    parts += [_read_unlabelled(Path(path), taxonomy, columns or {}, known) for path in unlabelled]
    corpus = _join(parts)
    if not len(corpus):
        raise CorpusError(f"{', '.join(map(str, paths))}: no row has a synopsis")
    if not (corpus.labels >= 0).any():
        raise CorpusError(
            f"{', '.join(map(str, paths))}: no row has a known label; tags must be ids, labels or "
            "aliases of the taxonomy"
        )
    return corpus


def read_frame(
    path: Path, columns: Mapping[str, str], required: Sequence[str] = ()
) -> pd.DataFrame:
    """A table by pandas, its columns renamed to ours; cells are text, lists or None.

    Raises:
        TableError: the file is missing, malformed, or a column named in `columns` is not there.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    try:
        if suffix in {".csv", ".tsv"}:
            frame = _read_delimited(path, "\t" if suffix == ".tsv" else ",")
        elif suffix in {".jsonl", ".ndjson"}:
            frame = _read_json_lines(path)
        elif suffix in {".parquet", ".pq"}:
            frame = pd.read_parquet(io.BytesIO(_unpacked(path)))
        else:
            raise TableError(f"{path}: unknown kind of table; use .csv, .tsv, .jsonl or .parquet")
    except TableError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except (ValueError, ArithmeticError) as error:
        raise TableError(f"{path}: cannot be parsed: {' '.join(str(error).split())}") from error
    for ours in required:
        if columns.get(ours, ours) not in frame.columns:
            raise TableError(
                f"{path}: no column {columns.get(ours, ours)!r}; "
                f"it has {', '.join(map(str, frame))} (name it with --column {ours}=NAME)"
            )
    renamed = {theirs: ours for ours, theirs in columns.items() if theirs in frame.columns}
    # A column of ours that another stands in for is dropped, so that no name is there twice.
    hidden = [ours for ours in renamed.values() if ours in frame.columns and ours not in renamed]
    return frame.drop(columns=hidden).rename(columns=renamed)


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _read_delimited(path: Path, mark: str) -> pd.DataFrame:
    text = _unpacked(path).decode("utf-8-sig")
    csv.field_size_limit(2**31 - 1)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        width = 0
        for record in records:
            width = width or len(record)
            # pandas would fill a short line with empty cells.
            if record and len(record) != width:
                raise TableError(
                    f"{path}: line {records.line_num} has {len(record)} cells where the header "
                    f"has {width}; mend that line"
                )
    except csv.Error as error:
        raise TableError(f"{path}: line {records.line_num} is malformed: {error}") from error
    return pd.read_csv(
        io.StringIO(text), sep=mark, dtype=str, keep_default_na=False, index_col=False
    )


def _read_json_lines(path: Path) -> pd.DataFrame:
    """Objects as they are: pandas' own reader turns numbers beside missing cells into floats."""
    records: list[dict[str, Any]] = []
    for number, line in enumerate(_unpacked(path).decode("utf-8-sig").split("\n"), 1):
        if line.strip():
            records.append(json_object(line, str(path), len(records) + 1, number))
    return pd.DataFrame(records, dtype=object)


def tag_words(cell: object) -> list[str]:
    """The words of a tags cell: a list, a JSON list, or a text joined by ';', '|' or ','.

    >>> tag_words("gore; self-harm")
    ['gore', 'self-harm']
    """
    if isinstance(cell, list | tuple | np.ndarray):
        return [str(word).strip() for word in cell if str(word).strip()]
    if not isinstance(cell, str):
        return []
    if cell.lstrip().startswith("["):
        try:
            return tag_words(json.loads(cell))
        except (json.JSONDecodeError, RecursionError):
            pass
    separator = next((mark for mark in ";|" if mark in cell), ",")
    return [word.strip() for word in cell.split(separator) if word.strip()]


def observed_labels(
    yes: Sequence[set[str]], catalogues: Sequence[str], taxonomy: Taxonomy, min_uses: int
) -> LabelArray:
    """(n, tags) labels of rows that know their positives, and negatives only by catalogue.

    A row has a no for a tag when its catalogue carries that tag on `min_uses` rows or more.
    """
    uses: dict[str, Counter[str]] = {}
    for tags, catalogue in zip(yes, catalogues, strict=True):
        uses.setdefault(catalogue, Counter()).update(tags)
    labels = np.full((len(yes), len(taxonomy)), UNKNOWN, dtype=np.int8)
    for row, (tags, catalogue) in enumerate(zip(yes, catalogues, strict=True)):
        for tag, count in uses[catalogue].items():
            if tag in tags:
                labels[row, taxonomy.index[tag]] = YES
            elif count >= min_uses:
                labels[row, taxonomy.index[tag]] = NO
    return labels


def annotated_labels(
    yes: Sequence[set[str]], maybe: Sequence[set[str]], taxonomy: Taxonomy
) -> LabelArray:
    """(n, tags) labels of rows read for every tag: all but the maybes are known.

    Both arguments are closed over broader tags, so what a maybe would imply is a maybe too.
    """
    labels = np.full((len(yes), len(taxonomy)), NO, dtype=np.int8)
    for row, (sure, unsure) in enumerate(zip(yes, maybe, strict=True)):
        labels[row, [taxonomy.index[tag] for tag in unsure]] = MAYBE
        labels[row, [taxonomy.index[tag] for tag in sure]] = YES
    return labels


def _read_file(
    path: Path,
    taxonomy: Taxonomy,
    columns: Mapping[str, str],
    library: Mapping[str, dict[Hashable, Any]],
) -> Corpus:
    frame = read_frame(path, columns, ("tags",) if library else ("synopsis", "tags"))
    notes = []
    if "synopsis" not in frame.columns and library and "id" in frame.columns:
        frame, missing = _with_texts(frame, library)
        if missing:
            notes.append(f"{path}: {missing} rows left out: their id is in none of the texts")
    if "synopsis" not in frame.columns:
        raise TableError(f"{path}: no column 'synopsis', and no ids to find texts by")
    synopses = clean_all([cell if isinstance(cell, str) else "" for cell in frame["synopsis"]])
    kept = np.array([any(map(str.isalnum, synopsis)) for synopsis in synopses], dtype=bool)
    if not kept.all():
        notes.append(f"{path}: {int((~kept).sum())} rows left out: no synopsis")
    frame = frame[kept]
    labels, remarks = _labels(frame, path.name, taxonomy)
    titles = clean_all(_texts(frame, "title"))
    return Corpus(
        taxonomy=taxonomy,
        titles=tuple(titles),
        synopses=tuple(s for s, keep in zip(synopses, kept, strict=True) if keep),
        labels=labels,
        groups=tuple(cell or None for cell in _texts(frame, "group")),
        sources=(path.name,) * len(frame),
        catalogues=tuple(_texts(frame, "catalogue")),
        fingerprints={str(path): fingerprint(path)},
        notes=tuple(notes + [f"{path}: {remark}" for remark in remarks]),
    )


def _read_unlabelled(
    path: Path, taxonomy: Taxonomy, columns: Mapping[str, str], known: set[str]
) -> Corpus:
    """The rows of a file whose text can be read and is not in `known`, which they are added to."""
    frame = read_frame(path, columns, ("synopsis",))
    titles = clean_all(_texts(frame, "title"))
    synopses = clean_all(_texts(frame, "synopsis"))
    rows = []
    for row, (title, synopsis) in enumerate(zip(titles, synopses, strict=True)):
        document = f"{title}\n{synopsis}"
        if document not in known and status(synopsis) is Status.OK:
            known.add(document)
            rows.append(row)
    groups, catalogues = _texts(frame, "group"), _texts(frame, "catalogue")
    return Corpus(
        taxonomy=taxonomy,
        titles=tuple(titles[row] for row in rows),
        synopses=tuple(synopses[row] for row in rows),
        labels=np.full((len(rows), len(taxonomy)), UNKNOWN, dtype=np.int8),
        groups=tuple(groups[row] or None for row in rows),
        sources=(path.name,) * len(rows),
        catalogues=tuple(catalogues[row] for row in rows),
        fingerprints={str(path): fingerprint(path)},
    )


def _labels(frame: pd.DataFrame, name: str, taxonomy: Taxonomy) -> tuple[LabelArray, list[str]]:
    yes, strange = _resolve(frame["tags"], taxonomy)
    complete = "maybe" in frame.columns or "catalogue" not in frame.columns
    remarks = []
    if strange and complete:
        shown = ", ".join(word for word, _ in strange.most_common(5))
        remarks.append(f"{len(strange)} words in tags are no tag of the taxonomy: {shown}")
    if "maybe" in frame.columns:
        return annotated_labels(yes, _resolve(frame["maybe"], taxonomy)[0], taxonomy), remarks
    if "catalogue" in frame.columns:
        labels = observed_labels(yes, _texts(frame, "catalogue"), taxonomy, MIN_USES)
        silent = np.array([not tag_words(cell) for cell in frame["tags"]], dtype=bool)
        labels[silent] = UNKNOWN
        return labels, remarks
    return observed_labels(yes, [name] * len(frame), taxonomy, 1), remarks


def _resolve(cells: Iterable[object], taxonomy: Taxonomy) -> tuple[list[set[str]], Counter[str]]:
    rows: list[set[str]] = []
    strange: Counter[str] = Counter()
    for cell in cells:
        words = tag_words(cell)
        found = {word: taxonomy.resolve(word) for word in words}
        strange.update(word for word, tag in found.items() if tag is None)
        rows.append(taxonomy.closure(tag for tag in found.values() if tag is not None))
    return rows, strange


def _texts(frame: pd.DataFrame, column: str) -> list[str]:
    if column not in frame.columns:
        return [""] * len(frame)
    return [
        "" if cell is None or cell != cell else str(cell).strip()  # noqa: PLR0124 (NaN)
        for cell in frame[column]
    ]


def _texts_by_id(
    paths: Sequence[str | Path], columns: Mapping[str, str]
) -> dict[str, dict[Hashable, Any]]:
    library: dict[str, dict[Hashable, Any]] = {}
    for path in paths:
        frame = read_frame(Path(path), columns, ("id", "synopsis"))
        wanted = [name for name in ("title", "synopsis", "group", "catalogue") if name in frame]
        library |= zip(frame["id"].astype(str), frame[wanted].to_dict("records"), strict=True)
    return library


def _with_texts(
    frame: pd.DataFrame, library: Mapping[str, dict[Hashable, Any]]
) -> tuple[pd.DataFrame, int]:
    known = frame["id"].astype(str).isin(library.keys())
    frame = frame[known].reset_index(drop=True)
    found = pd.DataFrame([library[row_id] for row_id in frame["id"].astype(str)])
    found = found.reset_index(drop=True)
    extra = found[[name for name in found.columns if name not in frame.columns]]
    return pd.concat([frame, extra], axis=1), int((~known).sum())


def _join(parts: Sequence[Corpus]) -> Corpus:
    def chain(name: str) -> tuple[Any, ...]:
        return tuple(item for part in parts for item in getattr(part, name))

    return replace(
        parts[0],
        titles=chain("titles"),
        synopses=chain("synopses"),
        labels=np.concatenate([part.labels for part in parts]),
        groups=chain("groups"),
        sources=chain("sources"),
        catalogues=chain("catalogues"),
        fingerprints=_by_name({k: v for part in parts for k, v in part.fingerprints.items()}),
        notes=chain("notes"),
    )


def _by_name(fingerprints: dict[str, str]) -> dict[str, str]:
    """By file name, which is the same on every machine, or by path where two share a name."""
    names = Counter(Path(path).name for path in fingerprints)
    return {
        Path(path).name if names[Path(path).name] == 1 else path: digest
        for path, digest in fingerprints.items()
    }


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
