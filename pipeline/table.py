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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, cast

from pipeline.draft import Terms, open_draft
from pipeline.errors import TableError
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
_BUFFER = 1 << 20
_GROUP = 1 << 14
"""Rows of a row group in the Parquet files that are written."""
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
class Place:
    """How far a table has been read.

    Attributes:
        rows: rows so far.
        lines: lines so far, the header's too.
        offset: bytes so far, unpacked; 0 in a Parquet file.
        named: whether a row so far had the synopsis column: in JSON Lines, each may or may not.
    """

    rows: int = 0
    lines: int = 0
    offset: int = 0
    named: bool = False


@dataclass(frozen=True)
class Chunk:
    """Rows of a table: the texts to read, the rows as they were, and the place behind them."""

    rows: list[Row]
    raw: Any
    end: Place


@dataclass(frozen=True)
class Layout:
    """How the rows of one table are written out, extended.

    Attributes:
        kind: one of `FORMATS`.
        names: the added columns, in order.
        ending: of a line of delimited text.
        schema: of a Parquet table, extended.
        packed: whether each piece of output is packed, as a member of a gzip file.
    """

    kind: str
    names: tuple[str, ...]
    ending: str = "\n"
    schema: Any = None
    packed: bool = False

    def lengthen(self, added: Callable[[], Extension], chunk: Chunk) -> tuple[bytes, Place]:
        """The output for a chunk, and the place behind it."""
        cells = added()(chunk.rows)
        if self.kind == "parquet":
            return _arrow_stream(chunk.raw, cells, self), chunk.end
        write = _lengthened_objects if self.kind == "jsonl" else _lengthened_records
        return self.pack(write(chunk.raw, cells, self)), chunk.end

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
                task = partial(reading.layout.lengthen, make)
                with closing(in_order(task, reading.chunks, jobs)) as pieces:
                    if not start.rows:
                        draft.append(reading.head, None)
                    for data, place in pieces:
                        draft.append(data, asdict(place))
            schema = reading.layout.schema
            draft.publish(partial(_write_parquet, schema) if kind == "parquet" else None)
        return Place(**draft.place).rows if draft.place else 0


@contextmanager
def open_table(
    source: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    read: Callable[[int], None] = lambda _: None,
    start: Place = Place(),
    packed: bool = False,
) -> Iterator[Reading]:
    """A table to be read from a place on; see `extend`.

    Raises:
        TableError: the source cannot be read, its header lacks a column or has an added one. The
            chunks raise it for what is wrong further on.
    """
    name, names = _name(source), tuple(added.names)
    if kind == "parquet":
        with _seekable(source) as stream:
            table, schema = _parquet(stream, source, added, columns)
            chunks = _parquet_chunks(table, source, columns, chunk, read, start)
            yield Reading(Layout(kind, names, schema=schema), b"", chunks)
        return
    with open_source(source, read) as stream:
        lines = _Lines(stream, name)
        if kind == "jsonl":
            layout, head = Layout(kind, names, packed=packed), b""
            chunks = _object_chunks(lines, name, added, columns, chunk, start)
        else:
            ending, head, chunks = _delimited(lines, name, kind, added, columns, chunk, start)
            layout = Layout(kind, names, ending, packed=packed)
        yield Reading(layout, layout.pack(head), chunks)


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


class _Lines:
    """Decoded lines of a stream that remember those read since `take` was last called."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._taken: list[str] = []
        self.number = 0
        self.offset = 0
        self.marked = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        if self.number == 1 and line.startswith(codecs.BOM_UTF8):
            self.marked, line = True, line[len(codecs.BOM_UTF8) :]
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TableError(
                f"{self._name}: line {self.number} is not UTF-8; convert the file, "
                "for example with: iconv -f WINDOWS-1252 -t UTF-8"
            ) from error
        self._taken.append(text)
        return text

    def take(self) -> str:
        taken, self._taken = "".join(self._taken), []
        return taken

    def leap(self, start: Place) -> None:
        """Go on where a run was interrupted."""
        self._stream.seek(start.offset)
        self.number, self.offset = start.lines, start.offset

    def place(self, rows: int, named: bool = True) -> Place:
        return Place(rows, self.number, self.offset, named)


def _delimited(
    lines: _Lines,
    name: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    start: Place,
) -> tuple[str, bytes, Iterator[Chunk]]:
    """The ending of a line, the extended header, and the chunks of delimited text."""
    csv.field_size_limit(2**31 - 1)
    mark = _DELIMITERS[kind]
    records = csv.reader(lines, delimiter=mark, strict=True)
    header = _next_record(records, lines, name, 0)
    while header == []:
        lines.take()
        header = _next_record(records, lines, name, 0)
    if header is None:
        raise TableError(f"{name}: is empty; it needs a header line with a synopsis column")
    places = _places(header, columns, added, name)
    raw = lines.take()
    ending = "\r\n" if raw.endswith("\r\n") else "\n"
    (longer,) = _lengthened([raw], [added.names], mark, ending)
    head = (codecs.BOM_UTF8 if lines.marked else b"") + longer.encode()
    if start.rows:
        lines.leap(start)
    return ending, head, _delimited_chunks(lines, records, name, len(header), places, chunk, start)


def _delimited_chunks(
    lines: _Lines,
    records: Iterator[list[str]],
    name: str,
    width: int,
    places: tuple[int, int | None],
    chunk: int,
    start: Place,
) -> Iterator[Chunk]:
    synopsis, title = places
    count = start.rows
    rows: list[Row] = []
    batch: list[str] = []
    while (record := _next_record(records, lines, name, count + 1)) is not None:
        raw = lines.take()
        if not record:
            continue
        count += 1
        if len(record) != width:
            raise TableError(
                f"{name}: row {count} (line {lines.number}) has {len(record)} cells where the "
                f"header has {width}; mend that row"
            )
        batch.append(raw)
        rows.append((record[title] if title is not None else "", record[synopsis]))
        if len(rows) == chunk:
            yield Chunk(rows, batch, lines.place(count))
            rows, batch = [], []
    if rows:
        yield Chunk(rows, batch, lines.place(count))


def _next_record(
    records: Iterator[list[str]], lines: _Lines, name: str, row: int
) -> list[str] | None:
    try:
        return next(records, None)
    except csv.Error as error:
        raise TableError(
            f"{name}: row {row} (line {lines.number}) is malformed: {error}; check its quotes"
        ) from error


def _lengthened_records(batch: list[str], cells: Cells, layout: Layout) -> bytes:
    values = zip(*(cells[name] for name in layout.names), strict=True)
    return "".join(_lengthened(batch, values, _DELIMITERS[layout.kind], layout.ending)).encode()


class _Records:
    """What a `csv.writer` writes to: each record as a text of its own."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.write = self.written.append


def _lengthened(
    batch: list[str], values: Iterable[Sequence[object]], mark: str, ending: str
) -> Iterator[str]:
    """Records as they stand in a file with more cells at their ends; None is an empty cell."""
    records = _Records()
    # A first cell, taken off again, so that one empty cell is not written in quotes.
    csv.writer(records, delimiter=mark, lineterminator=ending).writerows(
        ["x", *cells] for cells in values
    )
    for raw, added in zip(batch, records.written, strict=True):
        yield raw.rstrip("\r\n") + added[1:]


def _places(
    header: list[str], columns: Columns, added: Extension, name: str
) -> tuple[int, int | None]:
    for column in added.names:
        if column in header:
            raise TableError(
                f"{name}: already has a column {column!r}; rename it, or tag the original table"
            )
    if columns.synopsis not in header:
        raise TableError(
            f"{name}: no column {columns.synopsis!r}; it has {', '.join(map(repr, header[:20]))} "
            "(name it with --column synopsis=NAME)"
        )
    title = header.index(columns.title) if columns.title in header else None
    return header.index(columns.synopsis), title


def _object_chunks(
    lines: _Lines, name: str, added: Extension, columns: Columns, chunk: int, start: Place
) -> Iterator[Chunk]:
    rows: list[Row] = []
    batch: list[str] = []
    count, named = start.rows, start.named
    if start.rows:
        lines.leap(start)
    for line in lines:
        lines.take()
        if not line.strip():
            continue
        count += 1
        record = json_object(line, name, count, lines.number)
        named = named or columns.synopsis in record
        for column in added.names:
            if column in record:
                raise TableError(f"{name}: row {count} already has {column!r}; rename it first")
        batch.append(line)
        rows.append((_cell(record.get(columns.title)), _cell(record.get(columns.synopsis))))
        if len(rows) == chunk:
            yield Chunk(rows, batch, lines.place(count, named))
            rows, batch = [], []
    if rows:
        yield Chunk(rows, batch, lines.place(count, named))
    if count and not named:
        raise TableError(
            f"{name}: no row has {columns.synopsis!r} (name it with --column synopsis=NAME)"
        )


def json_object(line: str, name: str, row: int, number: int) -> dict[str, Any]:
    """The object on a line of JSON; `row` and `number` (of the line) say where in an error.

    Raises:
        TableError: the line is not JSON, or not an object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{name}: row {row} (line {number}) is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise TableError(f"{name}: row {row} (line {number}) is not an object in braces")
    return record


def _cell(value: object) -> str:
    return value if isinstance(value, str) else ""


def _lengthened_objects(batch: list[str], cells: Cells, layout: Layout) -> bytes:
    written = []
    for row, raw in enumerate(batch):
        values = {name: cells[name][row] for name in layout.names}
        body = raw.strip()[:-1].rstrip()
        comma = "" if body == "{" else ", "
        written.append(f"{body}{comma}{json.dumps(values, ensure_ascii=False)[1:]}\n")
    return "".join(written).encode(errors="replace")


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


def _parquet(stream: IO[bytes], source: str, added: Extension, columns: Columns) -> tuple[Any, Any]:
    """A Parquet file opened, and its schema extended."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = _name(source)
    try:
        table = pq.ParquetFile(stream, buffer_size=_BUFFER)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{name}: not a readable Parquet file ({error})") from error
    schema = table.schema_arrow
    _places(schema.names, columns, added, name)
    for column in added.names:
        schema = schema.append(
            pa.field(column, pa.float64() if column in added.numbers else pa.string())
        )
    return table, schema


def _parquet_chunks(
    table: Any, source: str, columns: Columns, chunk: int, read: Callable[[int], None], start: Place
) -> Iterator[Chunk]:
    import pyarrow as pa

    size = Path(source).stat().st_size if source != "-" else 0
    total, count, told = table.metadata.num_rows, 0, 0
    try:
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if count + rows <= start.rows:
                count += rows
                continue
            for batch in table.iter_batches(chunk, row_groups=[group]):
                count += len(batch)
                if count > start.rows:
                    yield Chunk(_parquet_rows(batch, columns), batch, Place(count))
                read(size * count // total - told)
                told = size * count // total
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{_name(source)}: a page of it is damaged ({error})") from error


def _parquet_rows(batch: Any, columns: Columns) -> list[Row]:
    synopses = [_cell(value) for value in batch.column(columns.synopsis).to_pylist()]
    if columns.title not in batch.schema.names:
        return [("", synopsis) for synopsis in synopses]
    titles = [_cell(value) for value in batch.column(columns.title).to_pylist()]
    return list(zip(titles, synopses, strict=True))


def _arrow_stream(batch: Any, cells: Cells, layout: Layout) -> bytes:
    """An extended batch as an Arrow stream of its own, which a Parquet file is made of later."""
    import pyarrow as pa

    arrays = [pa.array(cells[name], layout.schema.field(name).type) for name in layout.names]
    full = pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=layout.schema)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, layout.schema, options=options) as writer:
        writer.write_batch(full)
    return cast(bytes, sink.getvalue().to_pybytes())


def _write_parquet(schema: Any, part: IO[bytes], sink: IO[bytes]) -> None:
    """Make a Parquet file of Arrow streams; its row groups do not depend on theirs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(sink, schema) as writer:
        batches, rows = [], 0
        for batch in _arrow_batches(part):
            batches.append(batch)
            rows += len(batch)
            if rows >= _GROUP:
                table = pa.Table.from_batches(batches, schema)
                whole = rows - rows % _GROUP
                writer.write_table(table.slice(0, whole), _GROUP)
                batches, rows = table.slice(whole).to_batches(), rows - whole
        if rows:
            writer.write_table(pa.Table.from_batches(batches, schema), _GROUP)


def _arrow_batches(part: IO[bytes]) -> Iterator[Any]:
    import pyarrow as pa

    end = part.seek(0, 2)
    part.seek(0)
    while part.tell() < end:
        with pa.ipc.open_stream(part) as stream:
            yield from stream
