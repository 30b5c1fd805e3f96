"""Records of a text table: cut out of a stream in chunks of bytes, and parsed later.

Where a record ends can be told without parsing it, so one process cuts for many that parse.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import TableError

if TYPE_CHECKING:
    from _csv import Reader

IntArray = npt.NDArray[np.int64]

_LEAST, _MOST = 1 << 16, 1 << 20
_TYPICAL = 512
"""Bytes of a record, about: a chunk is read at a time, so that progress is told as it is made."""
_FEED, _RETURN, _QUOTE = b'\n\r"'
_LONGEST_CELL = 2**31 - 1
_LINE_ENDS = b"\r\n"
_WHITE = b" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f"


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
    """Rows of a table as they stand in it, and the places before and behind them.

    Attributes:
        data: the bytes of records; in a Parquet file, a record batch.
        start: the place before them.
        end: the place behind them.
        ends: (records,) where in the bytes each record ends, blank lines among them.
    """

    data: Any
    start: Place
    end: Place
    ends: IntArray | None = None

    def records(self) -> Iterator[bytes]:
        """The bytes of each record, and of blank lines."""
        assert self.ends is not None
        return (self.data[a:b] for a, b in pairwise([0, *self.ends.tolist()]))


@dataclass(frozen=True)
class Header:
    """The first record of delimited text: its cells, its bytes, and the place behind it."""

    cells: list[str]
    raw: bytes
    marked: bool
    end: Place


def read_header(stream: IO[bytes], name: str, delimiter: str) -> Header:
    """Read the header from the beginning of a stream; blank lines before it are passed over.

    `marked` tells whether a byte order mark stands before it; it is not among the bytes.

    Raises:
        TableError: the table is empty, or its header is malformed or not UTF-8.
    """
    lines: list[bytes] = []
    marked, offset = False, 0

    def read() -> Iterator[str]:
        nonlocal marked, offset
        while line := stream.readline():
            offset += len(line)
            if not lines and line.startswith(codecs.BOM_UTF8):
                marked, line = True, line.removeprefix(codecs.BOM_UTF8)
            lines.append(line)
            yield _decoded(line, name, len(lines) - 1)

    records = _reader(read(), delimiter)
    try:
        while not (cells := next(records, None)):
            if cells is None:
                raise TableError(f"{name}: is empty; it needs a header line with a synopsis column")
    except csv.Error as error:
        raise _malformed(name, 0, len(lines), error) from error
    raw = b"".join(lines).lstrip(_LINE_ENDS)
    return Header(cells, raw, marked, Place(0, len(lines), offset, True))


def cut(stream: IO[bytes], size: int, start: Place, delimiter: str | None) -> Iterator[Chunk]:
    """Cut a stream into chunks of so many records.

    Args:
        stream: stands at `start`, where a record begins.
        size: records in a chunk; blank lines do not count.
        start: the place of the stream.
        delimiter: of cells, any of which may have several lines; None for a record a line.

    What is malformed is in some chunk, where `cells` or `objects` tell what is wrong with it.
    """
    blank = _WHITE if delimiter is None else _LINE_ENDS
    block = min(max(_LEAST, _TYPICAL * size), _MOST)
    held, more = b"", True
    while more:
        # Twice as much each time, lest a record without end be looked through over and over.
        new = stream.read(max(block, len(held)))
        more = bool(new)
        held += new
        if not start.offset and held.startswith(codecs.BOM_UTF8):
            held, start = held.removeprefix(codecs.BOM_UTF8), Place(offset=len(codecs.BOM_UTF8))
        ends = _record_ends(held, delimiter, more)
        counts = np.cumsum(_filled(held, ends, blank))
        rows = int(counts[-1]) if len(counts) else 0
        done = taken = begin = 0
        # A full chunk, or in the end what is left.
        while (count := min(size, rows - done)) and (count == size or not more):
            done += count
            last = int(np.searchsorted(counts, done)) + 1
            end = int(ends[last - 1])
            data = held[begin:end]
            place = _behind(start, data, count)
            yield Chunk(data, start, place, ends[taken:last] - begin)
            start, taken, begin = place, last, end
        if done == rows and len(ends):
            # Blank lines, of which there may be any number.
            start, begin = _behind(start, held[begin : int(ends[-1])], 0), int(ends[-1])
        held = held[begin:]


def _behind(start: Place, data: bytes, rows: int) -> Place:
    """The place behind the bytes of some rows."""
    lines = data.count(b"\n") + (data[-1:] not in {b"\n", b""})
    return Place(start.rows + rows, start.lines + lines, start.offset + len(data), start.named)


def _record_ends(data: bytes, delimiter: str | None, more: bool) -> IntArray:
    """(records,) places behind each whole record; all are whole if no `more` is to come."""
    view = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(view == _FEED) + 1
    if delimiter is not None:
        quotes = np.flatnonzero(view == _QUOTE)
        if _plain(view, quotes, delimiter):
            # A line feed after an odd number of quotes is in a quoted cell.
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        else:
            ends = _parsed_ends(data, delimiter, more)
    whole = bool(len(ends)) and ends[-1] == len(data)
    return ends if more or whole or not data else np.append(ends, len(data))


def _plain(view: npt.NDArray[np.uint8], quotes: IntArray, delimiter: str) -> bool:
    """Whether every other quote begins a cell, and those between end one or are doubled."""
    opening, closing = quotes[0::2], quotes[1::2]
    before, after = np.zeros(256, bool), np.zeros(256, bool)
    before[[*f'{delimiter}\n"'.encode()]] = True
    after[[*f'{delimiter}\r\n"'.encode()]] = True
    begun = before[view[opening - 1]] | (opening == 0)
    ended = after[view[np.minimum(closing + 1, len(view) - 1)]] | (closing + 1 == len(view))
    return bool(begun.all() and ended.all())


def _parsed_ends(data: bytes, delimiter: str, more: bool) -> IntArray:
    """`_record_ends` of text with quotes inside unquoted cells, by parsing it."""
    lines = io.BytesIO(data).readlines()
    if more and lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    place, left, ends = 0, iter(lines), []

    def feed() -> Iterator[str]:
        nonlocal place
        for line in left:
            place += len(line)
            yield line.decode("latin-1")

    whole = sum(map(len, lines))
    records = _reader(feed(), delimiter)
    while True:
        try:
            if next(records, None) is None:
                break
        except csv.Error:
            if place == whole:
                # It may only want what comes next.
                break
            records = _reader(feed(), delimiter)
        ends.append(place)
    return np.array(ends, np.int64)


def _filled(data: bytes, ends: IntArray, blank: bytes) -> npt.NDArray[np.bool_]:
    """(records,) whether a record has more than the bytes that blank lines have."""
    view, begins = np.frombuffer(data, np.uint8), np.append(0, ends)[:-1]
    solid = np.ones(256, bool)
    solid[[*blank]] = False
    filled: npt.NDArray[np.bool_] = solid[view[begins]]
    if filled.all():
        return filled
    return np.asarray(np.logical_or.reduceat(solid[view[: ends[-1]]], begins))


def cells(
    chunk: Chunk, name: str, delimiter: str, width: int, columns: Sequence[int]
) -> tuple[list[list[str]], list[bytes]]:
    """The cells of some columns of a chunk of delimited text, and the bytes of each record.

    Args:
        chunk: as `cut` made it.
        name: of the table, for errors.
        delimiter: of cells.
        width: of every record, in cells.
        columns: numbers of the columns wanted; a list of cells is returned for each.

    Raises:
        TableError: a record is malformed, is not `width` cells wide, or is not UTF-8.
    """
    bounds = _bounds(chunk, delimiter, width)
    if bounds is None:
        parsed, kept = _parsed(chunk, name, delimiter, width)
        return [[record[column] for record in parsed] for column in columns], kept
    data = chunk.data
    if not data.isascii():
        _decoded(data, name, chunk.start.lines)
    found = []
    for column in columns:
        begins, ends = bounds[:, column] + 1, bounds[:, column + 1]
        quoted = np.frombuffer(data, np.uint8)[np.minimum(begins, len(data) - 1)] == _QUOTE
        places = zip((begins + quoted).tolist(), (ends - quoted).tolist(), strict=True)
        texts = [data[a:b].decode() for a, b in places]
        for row in np.flatnonzero(quoted).tolist():
            texts[row] = texts[row].replace('""', '"')
        found.append(texts)
    places = zip((bounds[:, 0] + 1).tolist(), bounds[:, -1].tolist(), strict=True)
    return found, [data[a:b] for a, b in places]


def _bounds(chunk: Chunk, delimiter: str, width: int) -> IntArray | None:
    """(rows, width + 1) the places just before and between the cells of each row, and behind.

    None if the chunk is not so plain that they can be told without a parser.
    """
    view, ends = np.frombuffer(chunk.data, np.uint8), chunk.ends
    assert ends is not None
    quotes = np.flatnonzero(view == _QUOTE)
    if len(quotes) % 2 or not _plain(view, quotes, delimiter):
        return None
    found = np.flatnonzero((view == ord(delimiter)) | (view == _RETURN))
    # Those after an odd number of quotes are in a quoted cell.
    found = found[np.searchsorted(quotes, found) % 2 == 0]
    returns, delimiters = (found[(view[found] == _RETURN) == is_return] for is_return in (1, 0))
    if (view[np.minimum(returns + 1, len(view) - 1)] != _FEED).any():
        return None
    begins = np.append(0, ends[:-1])
    filled = _filled(chunk.data, ends, _LINE_ENDS)
    per_record = np.diff(np.searchsorted(delimiters, np.append(begins, ends[-1])))
    if (per_record != (width - 1) * filled).any():
        return None
    begins, ends = begins[filled], ends[filled]
    ends = ends - (view[ends - 1] == _FEED)
    ends = ends - (view[ends - 1] == _RETURN)
    between = delimiters.reshape(len(ends), width - 1)
    return np.concatenate([begins[:, None] - 1, between, ends[:, None]], axis=1)


def _parsed(
    chunk: Chunk, name: str, delimiter: str, width: int
) -> tuple[list[list[str]], list[bytes]]:
    """The cells and the bytes of each record of a chunk, by the `csv` module."""
    lines = io.StringIO(_decoded(chunk.data, name, chunk.start.lines), newline="\n")
    records = _reader(lines, delimiter)
    parsed: list[list[str]] = []
    kept: list[bytes] = []
    try:
        for raw, record in zip(chunk.records(), records, strict=True):
            if not record:
                continue
            parsed.append(record)
            kept.append(raw.rstrip(_LINE_ENDS))
            if len(record) != width:
                raise TableError(
                    f"{name}: row {chunk.start.rows + len(parsed)} (line "
                    f"{chunk.start.lines + records.line_num}) has {len(record)} cells where the "
                    f"header has {width}; mend that row"
                )
    except csv.Error as error:
        row, line = chunk.start.rows + len(parsed) + 1, chunk.start.lines + records.line_num
        raise _malformed(name, row, line, error) from error
    return parsed, kept


def objects(
    chunk: Chunk, name: str, added: Collection[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The object and the text of each line of a chunk of JSON Lines.

    Raises:
        TableError: a line is not an object in JSON, has one of the names to be `added`, or is not
            UTF-8.
    """
    parsed: list[dict[str, Any]] = []
    kept: list[str] = []
    _decoded(chunk.data, name, chunk.start.lines)
    for number, raw in enumerate(chunk.records(), chunk.start.lines + 1):
        if not raw.strip(_WHITE):
            continue
        line, row = raw.decode(), chunk.start.rows + len(parsed) + 1
        record = json_object(line, name, row, number)
        for column in added:
            if column in record:
                raise TableError(f"{name}: row {row} already has {column!r}; rename it first")
        parsed.append(record)
        kept.append(line)
    return parsed, kept


def text(cell: object) -> str:
    """A cell that is to be read: its text, or nothing where it holds none."""
    return cell if isinstance(cell, str) else ""


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


def _reader(lines: Iterator[str], delimiter: str) -> Reader:
    csv.field_size_limit(_LONGEST_CELL)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _malformed(name: str, row: int, line: int, error: csv.Error) -> TableError:
    return TableError(f"{name}: row {row} (line {line}) is malformed: {error}; check its quotes")


def _decoded(data: bytes, name: str, lines: int) -> str:
    """The text of bytes that stand after so many lines."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = lines + data.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{name}: line {line} is not UTF-8; convert the file, "
            "for example with: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
