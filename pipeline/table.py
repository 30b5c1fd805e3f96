"""Tables read and extended in chunks, every cell that is already there left as it is."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from pipeline.errors import TableError

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


def extend(
    source: str,
    target: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    read: Callable[[int], None] = lambda _: None,
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

    Returns:
        The number of rows.

    Raises:
        TableError: the source cannot be read, a row is malformed, a column is missing or would
            be added twice, or the target cannot be written.
    """
    if kind != "parquet":
        kind_of_lines = _json_lines if kind == "jsonl" else _delimited
        with open_source(source, read) as lines, open_target(target) as sink:
            return kind_of_lines(lines, sink, _name(source), kind, added, columns, chunk)
    return _parquet(source, target, added, columns, chunk, read)


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


@contextmanager
def open_source(source: str, read: Callable[[int], None]) -> Iterator[IO[bytes]]:
    """A binary stream of a path or standard input, unpacked if gzip, that reports its progress."""
    if source == "-":
        raw: IO[bytes] = sys.stdin.buffer
    else:
        if Path(source).is_dir():
            raise TableError(f"{source}: is a directory; name a file")
        try:
            raw = Path(source).open("rb")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise TableError(f"{source}: cannot be read ({error.strerror})") from error
    counted = io.BufferedReader(_Counted(raw, read), 1 << 16)
    packed = counted.peek(2)[:2] == b"\x1f\x8b"
    try:
        yield cast(IO[bytes], gzip.GzipFile(fileobj=counted)) if packed else counted
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{_name(source)}: damaged gzip file ({error})") from error
    finally:
        if source != "-":
            raw.close()


class _Counted(io.RawIOBase):
    """A raw stream that reports how many bytes were read from the one below."""

    def __init__(self, raw: IO[bytes], read: Callable[[int], None]) -> None:
        self._raw, self._read = raw, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._read(len(data))
        return len(data)


@contextmanager
def open_target(target: str) -> Iterator[IO[bytes]]:
    """A binary stream whose content appears at `target` when the block ends well, else never.

    Standard output is filled when the block ends, from a temporary file.
    """
    if target == "-":
        with tempfile.TemporaryFile() as spool:
            yield cast(IO[bytes], spool)
            spool.seek(0)
            while data := spool.read(1 << 20):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    path = Path(target)
    if path.is_dir():
        raise TableError(f"{target}: is a directory; name a file")
    # An existing file's own rights stay; a new one gets the usual ones.
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise TableError(f"{target}: cannot be written ({error.strerror})") from error
    try:
        with open(handle, "wb") as raw:  # noqa: PTH123 (a descriptor)
            if target.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                    yield cast(IO[bytes], packed)
            else:
                yield raw
        Path(scratch).chmod(mode)
        Path(scratch).replace(path)
    except gzip.BadGzipFile:
        raise  # The source's, though it is an OSError too.
    except OSError as error:
        raise TableError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        Path(scratch).unlink(missing_ok=True)


class _Lines:
    """Decoded lines of a stream that remember those read since `take` was last called."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._taken: list[str] = []
        self.number = 0
        self.marked = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
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


def _delimited(
    stream: IO[bytes],
    sink: IO[bytes],
    name: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
) -> int:
    csv.field_size_limit(2**31 - 1)
    mark = _DELIMITERS[kind]
    lines = _Lines(stream, name)
    records = csv.reader(lines, delimiter=mark, strict=True)
    header = _next_record(records, lines, name, 0)
    while header == []:
        lines.take()
        header = _next_record(records, lines, name, 0)
    if header is None:
        raise TableError(f"{name}: is empty; it needs a header line with a synopsis column")
    synopsis, title = _places(header, columns, added, name)
    raw = lines.take()
    ending = "\r\n" if raw.endswith("\r\n") else "\n"
    if lines.marked:
        sink.write(codecs.BOM_UTF8)
    sink.write(_lengthened(raw, list(added.names), mark, ending).encode())
    rows, batch, count = [], [], 0
    while (record := _next_record(records, lines, name, count + 1)) is not None:
        raw = lines.take()
        if not record:
            continue
        count += 1
        if len(record) != len(header):
            raise TableError(
                f"{name}: row {count} (line {lines.number}) has {len(record)} cells where the "
                f"header has {len(header)}; mend that row"
            )
        batch.append(raw)
        rows.append((record[title] if title is not None else "", record[synopsis]))
        if len(rows) == chunk:
            _write_delimited(sink, batch, added(rows), added, mark, ending)
            rows, batch = [], []
    if rows:
        _write_delimited(sink, batch, added(rows), added, mark, ending)
    return count


def _next_record(
    records: Iterator[list[str]], lines: _Lines, name: str, row: int
) -> list[str] | None:
    try:
        return next(records, None)
    except csv.Error as error:
        raise TableError(
            f"{name}: row {row} (line {lines.number}) is malformed: {error}; check its quotes"
        ) from error


def _write_delimited(
    sink: IO[bytes], batch: list[str], cells: Cells, added: Extension, mark: str, ending: str
) -> None:
    for row, raw in enumerate(batch):
        values = [_text(cells[column][row]) for column in added.names]
        sink.write(_lengthened(raw, values, mark, ending).encode())


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _lengthened(raw: str, values: list[str], mark: str, ending: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=mark, lineterminator="").writerow(["x", *values])
    return raw.rstrip("\r\n") + buffer.getvalue()[1:] + ending


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


def _json_lines(
    stream: IO[bytes],
    sink: IO[bytes],
    name: str,
    kind: str,
    added: Extension,
    columns: Columns,
    chunk: int,
) -> int:
    del kind
    lines = _Lines(stream, name)
    rows, batch, count, found = [], [], 0, False
    for line in lines:
        lines.take()
        if not line.strip():
            continue
        count += 1
        record = json_object(line, name, count, lines.number)
        found = found or columns.synopsis in record
        for column in added.names:
            if column in record:
                raise TableError(f"{name}: row {count} already has {column!r}; rename it first")
        batch.append(line)
        rows.append((_cell(record.get(columns.title)), _cell(record.get(columns.synopsis))))
        if len(rows) == chunk:
            _write_json_lines(sink, batch, added(rows), added)
            rows, batch = [], []
    if rows:
        _write_json_lines(sink, batch, added(rows), added)
    if count and not found:
        raise TableError(
            f"{name}: no row has {columns.synopsis!r} (name it with --column synopsis=NAME)"
        )
    return count


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


def _write_json_lines(sink: IO[bytes], batch: list[str], cells: Cells, added: Extension) -> None:
    for row, raw in enumerate(batch):
        values = {column: cells[column][row] for column in added.names}
        body = raw.strip()[:-1].rstrip()
        comma = "" if body == "{" else ", "
        sink.write(
            f"{body}{comma}{json.dumps(values, ensure_ascii=False)[1:]}\n".encode(errors="replace")
        )


def _parquet(
    source: str,
    target: str,
    added: Extension,
    columns: Columns,
    chunk: int,
    read: Callable[[int], None],
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name, count = _name(source), 0
    with (
        tempfile.TemporaryFile() as spool,
        open_source(source, read) as stream,
        open_target(target) as sink,
    ):
        # Parquet is read from its end, which a pipe or a packed file does not offer.
        while data := stream.read(1 << 20):
            spool.write(data)
        spool.seek(0)
        try:
            table = pq.ParquetFile(spool)
        except (pa.ArrowInvalid, OSError) as error:
            raise TableError(f"{name}: not a readable Parquet file ({error})") from error
        schema = table.schema_arrow
        _places(schema.names, columns, added, name)
        for column in added.names:
            schema = schema.append(
                pa.field(column, pa.float64() if column in added.numbers else pa.string())
            )
        with pq.ParquetWriter(sink, schema) as writer:
            for batch in _parquet_batches(table, chunk, name):
                rows = _parquet_rows(batch, columns)
                cells = added(rows)
                arrays = [pa.array(cells[c], schema.field(c).type) for c in added.names]
                full = pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
                writer.write_batch(full)
                count += len(rows)
    return count


def _parquet_batches(table: Any, chunk: int, name: str) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from table.iter_batches(batch_size=chunk)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{name}: a page of it is damaged ({error})") from error


def _parquet_rows(batch: Any, columns: Columns) -> list[Row]:
    synopses = [_cell(value) for value in batch.column(columns.synopsis).to_pylist()]
    if columns.title not in batch.schema.names:
        return [("", synopsis) for synopsis in synopses]
    titles = [_cell(value) for value in batch.column(columns.title).to_pylist()]
    return list(zip(titles, synopses, strict=True))
