"""Tables read and extended in chunks, every cell that is already there left as it is."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, cast

from pipeline import parquet, records
from pipeline.draft import Draft, Terms, open_draft
from pipeline.errors import TableError
from pipeline.records import Chunk, Place, text
from pipeline.workers import in_order

FORMATS = ("csv", "tsv", "jsonl", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
Row = tuple[str, str]
Cells = dict[str, list[Any]]


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; a table without the title column has empty titles."""

    synopsis: str = "synopsis"
    title: str = "title"


class Extension(Protocol):
    """Makes columns to add to a table from chunks of its (title, synopsis) rows."""

    @property
    def names(self) -> tuple[str, ...]:
        """The added columns, in order."""

    @property
    def numbers(self) -> frozenset[str]:
        """Those of them that hold numbers."""

    def __call__(self, rows: list[Row]) -> Cells:
        """The added columns, by name, each with a cell for every row."""


def format_of(path: str, default: str | None = None) -> str:
    """The format that a path's ending names, `.gz` aside; `default` for '-'.

    Raises:
        TableError: the ending is unknown.
    """
    if path == "-":
        return default or "csv"
    name = path.lower().removesuffix(".gz")
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise TableError(
        f"{path}: unknown kind of table; name it .csv, .tsv, .jsonl or .parquet (or with .gz)"
    )


@dataclass(frozen=True)
class Layout:
    """How the rows of one table are read and written out, extended.

    Attributes:
        kind: one of `FORMATS`.
        name: of the table, for errors.
        columns: names of the columns to read.
        names: the added columns, in order.
        header: of delimited text, its cells.
        ending: of a line of delimited text.
        schema: of a Parquet table, extended.
        packed: whether each piece of output is packed, as a member of a gzip file.
    """

    kind: str
    name: str
    columns: Columns
    names: tuple[str, ...]
    header: tuple[str, ...] = ()
    ending: str = "\n"
    schema: Any = None
    packed: bool = False

    def lengthen(self, added: Callable[[], Extension], chunk: Chunk) -> tuple[bytes, Place]:
        """The output for a chunk, and the place behind it.

        Raises:
            TableError: a row is malformed.
        """
        if self.kind == "parquet":
            titles, synopses = (
                parquet.texts(chunk, self.name, column)
                for column in (self.columns.title, self.columns.synopsis)
            )
            cells = added()(list(zip(titles, synopses, strict=True)))
            return parquet.arrow_stream(chunk.data, cells, self.schema), chunk.end
        if self.kind == "jsonl":
            return self._lengthen_objects(added, chunk)
        return self._lengthen_records(added, chunk), chunk.end

    def _lengthen_records(self, added: Callable[[], Extension], chunk: Chunk) -> bytes:
        mark, width = _DELIMITERS[self.kind], len(self.header)
        wanted = [self.columns.synopsis]
        if self.columns.title in self.header:
            wanted.append(self.columns.title)
        places = list(map(self.header.index, wanted))
        (synopses, *titles), kept = records.cells(chunk, self.name, mark, width, places)
        cells = added()(list(zip(*titles or [[""] * len(kept)], synopses, strict=True)))
        values = zip(*(cells[name] for name in self.names), strict=True)
        return self.pack(b"".join(_lengthened(kept, values, mark, self.ending)))

    def _lengthen_objects(
        self, added: Callable[[], Extension], chunk: Chunk
    ) -> tuple[bytes, Place]:
        parsed, kept = records.objects(chunk, self.name, self.names)
        cells = added()(
            [
                (text(record.get(self.columns.title)), text(record.get(self.columns.synopsis)))
                for record in parsed
            ]
        )
        written = []
        for row, line in enumerate(kept):
            values = {name: cells[name][row] for name in self.names}
            body = line.strip()[:-1].rstrip()
            comma = "" if body == "{" else ", "
            written.append(f"{body}{comma}{json.dumps(values, ensure_ascii=False)[1:]}\n")
        named = any(self.columns.synopsis in record for record in parsed)
        return self.pack("".join(written).encode(errors="replace")), replace(chunk.end, named=named)

    def pack(self, data: bytes) -> bytes:
        """Bytes of the output, packed if it is."""
        return gzip.compress(data, 6, mtime=0) if self.packed else data


@dataclass(frozen=True)
class Reading:
    """A table that is being read: how it is written out, what comes first, and its chunks."""

    layout: Layout
    head: bytes
    chunks: Iterator[Chunk]


def extend(
    source: str,
    target: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    read: Callable[[int], None] = lambda _: None,
    jobs: int = 1,
    again: Callable[[], Extension] | None = None,
    terms: Terms | None = None,
    resume: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> int:
    """Copy a table, adding columns made from its (title, synopsis) rows.

    Every row keeps its place and every cell its text. The target appears whole or not at all.

    Args:
        source: a path, or '-' for standard input.
        target: a path, or '-' for standard output.
        kind: one of `FORMATS`, of source and target alike.
        added: makes the columns to add.
        columns: names of the columns to read.
        chunk: rows handled at a time.
        read: told the number of bytes read since the last call.
        jobs: processes that make columns at the same time.
        again: makes `added` again in another process; needed for more than one job.
        terms: what a continuation of this run must have in common with it beside the source;
            None if there can be none.
        resume: continue an interrupted run of the same terms, if there is one.
        note: told what becomes of what such a run left.

    Returns:
        The number of rows.

    Raises:
        TableError: the source cannot be read, a row is malformed, a column is missing or would
            be added twice, or the target cannot be written. See also `open_draft`.
    """
    packed = kind != "parquet" and target.lower().endswith(".gz")
    if terms:
        terms = {"input (size or time of change)": fingerprint(source), **terms}
    with open_draft(target, terms, resume, note) as draft:
        if not draft.whole:
            start = Place(**draft.place) if draft.place else Place()
            if start.rows:
                note(f"{target}: going on after {start.rows:,} rows of an interrupted run")
            with open_table(source, kind, added, columns, chunk, read, start, packed) as reading:
                make = again if again and jobs > 1 else lambda: added
                _copy(reading, draft, start, make, jobs)
            schema = reading.layout.schema
            draft.publish(partial(parquet.write, schema) if kind == "parquet" else None)
        return Place(**draft.place).rows if draft.place else 0


def _copy(
    reading: Reading, draft: Draft, start: Place, make: Callable[[], Extension], jobs: int
) -> None:
    """Append the extended rows of a table to a draft, from a place on."""
    layout, place = reading.layout, start
    with closing(in_order(partial(layout.lengthen, make), reading.chunks, jobs)) as pieces:
        if not start.rows:
            draft.append(reading.head, None)
        for data, end in pieces:
            place = replace(end, named=end.named or place.named)
            draft.append(data, asdict(place))
    if layout.kind == "jsonl" and place.rows and not place.named:
        raise TableError(
            f"{layout.name}: no row has {layout.columns.synopsis!r} "
            "(name it with --column synopsis=NAME)"
        )


@contextmanager
def open_table(
    source: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    read: Callable[[int], None],
    start: Place,
    packed: bool,
) -> Iterator[Reading]:
    """A table to be read from a place on; see `extend`.

    Raises:
        TableError: the source cannot be read, its header lacks a column or has an added one. The
            chunks raise it for what is wrong further on.
    """
    layout = Layout(kind, _name(source), columns, tuple(added.names), packed=packed)
    if kind == "parquet":
        with _seekable(source) as stream:
            file = parquet.open_file(stream, layout.name)
            check_header(file.schema_arrow.names, columns, layout.names, layout.name)
            schema = parquet.extended_schema(file.schema_arrow, layout.names, added.numbers)
            size = 0 if source == "-" else Path(source).stat().st_size
            chunks = parquet.chunks(file, layout.name, size, chunk, read, start)
            yield Reading(replace(layout, schema=schema), b"", chunks)
        return
    with open_source(source, read) as stream:
        head = b""
        if kind != "jsonl":
            layout, head, behind = _delimited(layout, stream)
            start = start if start.rows else behind
        if start.rows:
            stream.seek(start.offset)
        chunks = records.cut(stream, chunk, start, _DELIMITERS.get(kind))
        yield Reading(layout, head, chunks)


def _delimited(layout: Layout, stream: IO[bytes]) -> tuple[Layout, bytes, Place]:
    """The layout by the header of a stream, the extended header, and the place behind it."""
    mark = _DELIMITERS[layout.kind]
    header = records.read_header(stream, layout.name, mark)
    check_header(header.cells, layout.columns, layout.names, layout.name)
    ending = "\r\n" if header.raw.endswith(b"\r\n") else "\n"
    (head,) = _lengthened([header.raw.rstrip(b"\r\n")], [layout.names], mark, ending)
    head = (codecs.BOM_UTF8 if header.marked else b"") + head
    layout = replace(layout, header=tuple(header.cells), ending=ending)
    return layout, layout.pack(head), header.end


def fingerprint(source: str) -> list[int]:
    """What tells a file from the same one changed: its size, and the time of its last change.

    Raises:
        TableError: there is no such file.
    """
    try:
        found = Path(source).stat()
    except OSError as error:
        raise _unreadable(source, error) from error
    return [found.st_size, found.st_mtime_ns]


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


@contextmanager
def open_source(source: str, read: Callable[[int], None]) -> Iterator[IO[bytes]]:
    """A binary stream of a path or standard input, unpacked if gzip, that reports its progress."""
    raw = sys.stdin.buffer if source == "-" else _open_file(source)
    try:
        counted = io.BufferedReader(_Counted(raw, source, read), 1 << 16)
        packed = counted.peek(2)[:2] == b"\x1f\x8b"
        yield cast(IO[bytes], gzip.GzipFile(fileobj=counted)) if packed else counted
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{_name(source)}: damaged gzip file ({error})") from error
    finally:
        if source != "-":
            raw.close()


def _open_file(source: str) -> IO[bytes]:
    if Path(source).is_dir():
        raise TableError(f"{source}: is a directory; name a file")
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: OSError) -> TableError:
    return TableError(f"{_name(source)}: cannot be read ({error.strerror or error})")


class _Counted(io.RawIOBase):
    """A raw stream that reports how many bytes were read from the one below, or leapt over."""

    def __init__(self, raw: IO[bytes], source: str, read: Callable[[int], None]) -> None:
        self._raw, self._source, self._read = raw, source, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._raw.read(len(buffer))
        except OSError as error:
            raise _unreadable(self._source, error) from error
        buffer[: len(data)] = data
        self._read(len(data))
        return len(data)

    def seekable(self) -> bool:
        return self._raw.seekable()

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        before = self._raw.tell()
        after = self._raw.seek(offset, whence)
        self._read(after - before)
        return after


class _Records:
    """What a `csv.writer` writes to: each record as a text of its own."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.write = self.written.append


def _lengthened(
    batch: Iterable[bytes], values: Iterable[Sequence[object]], mark: str, ending: str
) -> Iterator[bytes]:
    """Records, without their line ends, with more cells at their ends; None is an empty cell."""
    written = _Records()
    # A first cell, taken off again, so that one empty cell is not written in quotes.
    csv.writer(written, delimiter=mark, lineterminator=ending).writerows(
        ["x", *cells] for cells in values
    )
    for raw, added in zip(batch, written.written, strict=True):
        yield raw + added[1:].encode()


def check_header(names: Sequence[str], columns: Columns, added: Iterable[str], table: str) -> None:
    """See that a table has the synopsis column and none of those to be added.

    Raises:
        TableError: it has not.
    """
    for column in added:
        if column in names:
            raise TableError(
                f"{table}: already has a column {column!r}; rename it, or tag the original table"
            )
    if columns.synopsis not in names:
        raise TableError(
            f"{table}: no column {columns.synopsis!r}; it has {', '.join(map(repr, names[:20]))} "
            "(name it with --column synopsis=NAME)"
        )


@contextmanager
def _seekable(source: str) -> Iterator[IO[bytes]]:
    """A source that can be read from its end, as Parquet is: a pipe or a packed one is copied."""
    with open_source(source, lambda _: None) as stream:
        if isinstance(stream, gzip.GzipFile) or not stream.seekable():
            with tempfile.TemporaryFile() as spool:
                shutil.copyfileobj(stream, spool, 1 << 20)
                spool.seek(0)
                yield cast(IO[bytes], spool)
        else:
            yield stream
