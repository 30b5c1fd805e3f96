"""Records end where a parser would end them, and their cells are those that it would find."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pipeline.records
from pipeline.errors import TableError
from pipeline.records import Chunk, Place, cells, cut, objects, read_header

calm = settings(deadline=None, max_examples=500)
MESS = st.lists(st.sampled_from([*'",\n\r\t a', "é", '"a",', '""', "\r\n", "b,c\n"]), max_size=25)
PIECES = st.lists(
    st.sampled_from(['"x"', '"a,b"', '"two\nlines"', '"say ""no"""', "plain", "", " ", "é 名"]),
    min_size=3,
    max_size=3,
).map(",".join)
TABLES = st.lists(PIECES, max_size=8).map("\n".join)


def by_parser(text: str, width: int) -> tuple[list[list[str]], str]:
    """The records that Python's csv module finds, up to what is wrong, and what that is."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    found: list[list[str]] = []
    try:
        for record in filter(None, reader):
            if len(record) != width:
                return found, f"row {len(found) + 1} (line {reader.line_num}) has"
            found.append(record)
    except csv.Error:
        return found, f"row {len(found) + 1} (line {reader.line_num}) is malformed"
    return found, ""


def by_chunks(data: bytes, width: int, size: int) -> tuple[list[list[str]], str, list[Chunk]]:
    """The same by `cut` and `cells`, and the chunks; a chunk with something wrong gives no rows."""
    found: list[list[str]] = []
    chunks = []
    for chunk in cut(io.BytesIO(data), size, Place(), ","):
        chunks.append(chunk)
        try:
            columns, kept = cells(chunk, "table", ",", width, range(width))
        except TableError as error:
            return found, str(error), chunks
        records = list(map(list, zip(*columns, strict=True)))
        assert records == [by_parser(raw.decode(), width)[0][0] for raw in kept]
        found += records
    return found, "", chunks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pipeline.records, "_LEAST", 5)
    monkeypatch.setattr(pipeline.records, "_TYPICAL", 1)


@calm
@given(MESS.map("".join) | TABLES, st.integers(1, 3), st.integers(1, 4))
@example('"a\n', 1, 1)
@example('a"b\n"c"\n', 1, 2)
@example(',"a"', 2, 1)
@example('a,5" pipe\nb,"6"" pipe"\n', 2, 1)
@example("\r\n\n\ra", 1, 1)
@example('""\n\n"', 1, 1)
@example('"x\r\ny",z\r\n', 2, 1)
def test_chunks_have_the_records_that_a_parser_finds(text: str, width: int, size: int) -> None:
    expected, wrong = by_parser(text, width)
    found, message, chunks = by_chunks(text.encode(), width, size)
    assert wrong in message
    assert bool(wrong) == bool(message)
    assert found == expected[: len(found)]
    assert len(found) + size > len(expected) if wrong else found == expected
    for before, after in pairwise(chunks):
        # Blank lines may lie between.
        assert before.end.rows == after.start.rows
        assert not text.encode()[before.end.offset : after.start.offset].strip(b"\r\n")


@calm
@given(TABLES, st.integers(1, 4))
def test_places_tell_rows_lines_and_bytes(text: str, size: int) -> None:
    data = text.encode()
    for chunk in cut(io.BytesIO(data), size, Place(), ","):
        assert data[chunk.start.offset : chunk.end.offset] == chunk.data
        assert chunk.end.rows - chunk.start.rows == len(cells(chunk, "t", ",", 3, [0])[1]) <= size
        lines = data[: chunk.end.offset].count(b"\n") + (not chunk.data.endswith(b"\n"))
        assert chunk.end.lines == lines


def test_a_chunk_has_as_many_records_as_asked_for_and_the_last_one_the_rest() -> None:
    data = b"a\n\nb\nc\n\nd\n\n\ne\n\n"
    counts = [c.end.rows - c.start.rows for c in cut(io.BytesIO(data), 2, Place(), ",")]
    assert counts == [2, 2, 1]


def test_a_long_record_is_looked_through_a_few_times_only(monkeypatch) -> None:
    looked = 0
    look = pipeline.records._record_ends

    def counting(data: bytes, *args: object) -> object:
        nonlocal looked
        looked += len(data)
        return look(data, *args)

    monkeypatch.setattr(pipeline.records, "_record_ends", counting)
    data = b'"' + b"line\n" * 50_000
    (chunk,) = cut(io.BytesIO(data), 1, Place(), ",")
    assert chunk.data == data
    assert looked < 5 * len(data)


def test_many_malformed_records_are_looked_through_once_each(monkeypatch) -> None:
    decoded = 0
    reader = pipeline.records._reader

    def counting(lines: Iterator[str], delimiter: str) -> object:
        nonlocal decoded
        decoded += 1
        return reader(lines, delimiter)

    monkeypatch.setattr(pipeline.records, "_LEAST", 1 << 16)
    monkeypatch.setattr(pipeline.records, "_reader", counting)
    data = b'"a"b\n' * 10_000
    start = time.process_time()
    chunks = list(cut(io.BytesIO(data), 10_000, Place(), ","))
    assert sum(len(chunk.data) for chunk in chunks) == len(data)
    assert decoded < 30_000
    assert time.process_time() - start < 20


def test_blank_lines_are_not_held(monkeypatch) -> None:
    longest = 0
    look = pipeline.records._record_ends

    def watching(data: bytes, *args: object) -> object:
        nonlocal longest
        longest = max(longest, len(data))
        return look(data, *args)

    monkeypatch.setattr(pipeline.records, "_record_ends", watching)
    (chunk,) = cut(io.BytesIO(b"\n" * 5000 + b"a\n" + b"\r\n" * 5000), 1, Place(), ",")
    assert (chunk.start, chunk.data[:2]) == (Place(0, 5000, 5000), b"a\n")
    assert longest < 50


def test_a_chunk_may_be_larger_than_any_file() -> None:
    (chunk,) = cut(io.BytesIO(b"a\nb\n"), 10**12, Place(), ",")
    assert chunk.end.rows == 2


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_byte_order_mark_alone_is_no_record(data: bytes) -> None:
    assert list(cut(io.BytesIO(data), 1, Place(), None)) == []


def test_only_plain_records_are_read_without_a_parser(monkeypatch) -> None:
    parsed = []
    parse = pipeline.records._parsed
    monkeypatch.setattr(
        pipeline.records, "_parsed", lambda chunk, *args: parsed.append(1) or parse(chunk, *args)
    )
    (chunk,) = cut(io.BytesIO(b'a,"b, ""c"""\r\n"d\ne",\r\n'), 9, Place(), ",")
    assert cells(chunk, "t", ",", 2, [1])[0] == [['b, "c"', ""]]
    assert parsed == []
    (chunk,) = cut(io.BytesIO(b'a,5" pipe\n'), 9, Place(), ",")
    assert cells(chunk, "t", ",", 2, [1])[0] == [['5" pipe']]
    assert parsed == [1]


def test_bytes_that_are_not_utf8_are_refused_in_any_column() -> None:
    (chunk,) = cut(io.BytesIO(b'a,"b\nc"\n\xff,d\n'), 9, Place(lines=1), ",")
    with pytest.raises(TableError, match="line 4 is not UTF-8"):
        cells(chunk, "t", ",", 2, [1])


def test_a_header_may_have_quotes_and_line_breaks_and_a_mark_before_it() -> None:
    stream = io.BytesIO(b'\xef\xbb\xbf\r\n"two\r\nlines",b\r\nnext')
    with pytest.raises(TableError, match="malformed"):
        read_header(io.BytesIO(b'"a"b,c\n'), "table", ",")
    header = read_header(stream, "table", ",")
    assert header.cells == ["two\r\nlines", "b"]
    assert header.raw == b'"two\r\nlines",b\r\n'
    assert header.marked
    assert header.end == Place(0, 3, stream.tell(), True)
    assert stream.read() == b"next"


@calm
@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=4) | st.none()), max_size=6),
    st.sampled_from(["\n", "\r\n", "\n \t\n"]),
    st.integers(1, 4),
)
def test_objects_are_those_of_the_lines(
    rows: list[dict[str, str | None]], ending: str, size: int
) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    data = ending.join(lines).encode()
    found = [objects(chunk, "t", ["other"]) for chunk in cut(io.BytesIO(data), size, Place(), None)]
    assert [row for parsed, _ in found for row in parsed] == rows
    assert [line.strip() for _, kept in found for line in kept] == lines
