"""Tables are extended: every cell that was there stays, every malformed table is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TableError
from pipeline.table import Cells, Columns, Row, extend, format_of

# Whatever a cell can hold: quotes, separators, line breaks, other scripts, marks that look empty.
AWKWARD = st.sampled_from(
    ["", " ", '"', '""', "'", ",", "\t", ";", "\n", "\r\n", "\r", "a\nb", 'say "no", twice']
) | st.sampled_from(
    [
        "null",
        "NaN",
        "007",
        "1e5",
        "=1+1",
        "#",
        "\\",
        "寝取られ",
        "e\u0301",
        "👩\u200d👧",
        "\u2028",
        "\x85",
    ]
)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12
) | st.lists(AWKWARD, max_size=3).map("".join)


class Lengths:
    """A stand-in for a tagger: it adds the length of the synopsis and an awkward echo of it."""

    names = ("length", "echo")
    numbers = frozenset(["length"])

    def __init__(self) -> None:
        self.chunks: list[int] = []

    def __call__(self, rows: list[Row]) -> Cells:
        self.chunks.append(len(rows))
        return {
            "length": [len(synopsis) for _, synopsis in rows],
            "echo": [f'{title}|"{synopsis}",\n\t' for title, synopsis in rows],
        }


def extended(source: Path, target: Path, kind: str, chunk: int = 100, **columns: str) -> int:
    return extend(str(source), str(target), kind, Lengths(), Columns(**columns), chunk)


def refusal(source: Path, kind: str = "csv", **columns: str) -> str:
    """The message with which a table is refused; its target must not come to be."""
    target = source.with_name(f"target.{kind}")
    before = sorted(source.parent.iterdir())
    with pytest.raises(TableError) as caught:
        extended(source, target, kind, **columns)
    assert sorted(source.parent.iterdir()) == before
    message = str(caught.value)
    assert str(source) in message
    return message


def read_delimited(data: bytes, mark: str) -> list[list[str]]:
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return list(csv.reader(text, delimiter=mark, strict=True))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("desk")


# Delimited text


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=7),
    kind=st.sampled_from(["csv", "tsv"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark_order=st.booleans(),
    chunk=st.integers(1, 4),
)
def test_every_row_and_cell_of_delimited_text_stays(
    desk: Path,
    rows: list[tuple[str, ...]],
    kind: str,
    ending: str,
    quoting: Any,
    mark_order: bool,
    chunk: int,
) -> None:
    mark = {"csv": ",", "tsv": "\t"}[kind]
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # Python before 3.13 leaves a lone CR bare, where it ends the row.
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=mark, lineterminator=ending, quoting=quoting)
    writer.writerow(["other", "title", "synopsis"])
    writer.writerows(rows)
    given_bytes = (b"\xef\xbb\xbf" if mark_order else b"") + buffer.getvalue().encode()
    source, target = desk / f"in.{kind}", desk / f"out.{kind}"
    source.write_bytes(given_bytes)

    assert extended(source, target, kind, chunk) == len(rows)

    written = target.read_bytes()
    assert written.startswith(b"\xef\xbb\xbf") == mark_order
    header, *body = read_delimited(written, mark)
    assert header == ["other", "title", "synopsis", "length", "echo"]
    assert [tuple(row[:3]) for row in body] == rows
    assert [row[3:] for row in body] == [[str(len(s)), f'{t}|"{s}",\n\t'] for _, t, s in rows]


def test_bytes_of_a_row_stay_however_they_were_quoted(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'"id",synopsis\n"1",plain\n2,"quoted"\n3, spaced \n4,"in ""it"""\n')
    extended(source, target, "csv")
    starts = [b'"id",synopsis,', b'"1",plain,', b'2,"quoted",', b"3, spaced ,", b'4,"in ""it""",']
    written = target.read_bytes()
    places = [written.find(start) for start in starts]
    assert places[0] == 0
    assert places == sorted(places)
    assert -1 not in places


def test_line_endings_are_those_of_the_header(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b'synopsis,id\r\n"two\r\nlines",1\r\n')
    extended(source, target, "csv")
    assert target.read_bytes().startswith(b'synopsis,id,length,echo\r\n"two\r\nlines",1,10,')
    assert target.read_bytes().endswith(b'"\r\n')


def test_a_last_line_without_an_end_is_a_row(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("synopsis\nfirst\nlast")
    assert extended(source, target, "csv") == 2
    assert [row[0] for row in read_delimited(target.read_bytes(), ",")][1:] == ["first", "last"]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\n\nsynopsis,id\n\na,1\n\n\nb,2\n\n")
    assert extended(source, target, "csv") == 2
    assert [row[:2] for row in read_delimited(target.read_bytes(), ",")] == [
        ["synopsis", "id"],
        ["a", "1"],
        ["b", "2"],
    ]


def test_a_table_with_a_header_alone_gets_a_longer_header(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,synopsis")
    assert extended(source, target, "csv") == 0
    assert target.read_text() == "id,synopsis,length,echo\n"


def test_columns_can_have_other_names_and_a_title_is_not_needed(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("plot,name\nabc,N\n")
    extended(source, target, "csv", synopsis="plot", title="name")
    assert read_delimited(target.read_bytes(), ",")[1][2:] == ["3", 'N|"abc",\n\t']
    extended(source, target, "csv", synopsis="plot")
    assert read_delimited(target.read_bytes(), ",")[1][2:] == ["3", '|"abc",\n\t']


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("synopsis,id\na,1\nb\n", ["row 2", "line 3", "1 cells", "header has 2"]),
        ("synopsis,id\na,1,extra\n", ["row 1", "line 2", "3 cells"]),
        ('synopsis,id\n"two\nlines",1\nb,2,3\n', ["row 2", "line 4"]),
        ('synopsis,id\na,1\n"never closed,2\nb,3\n', ["row 2", "line 4", "quotes"]),
        ('synopsis,id\n"a"b,1\n', ["row 1", "line 2", "quotes"]),
        ("id,text\n1,a\n", ["no column 'synopsis'", "'id', 'text'", "--column"]),
        ("synopsis,echo\na,b\n", ["already has", "'echo'"]),
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
    ],
)
def test_malformed_text_is_refused_with_its_place(
    tmp_path: Path, data: str, told: list[str]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text(data)
    message = refusal(source)
    assert [words for words in told if words not in message] == []


def test_text_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes("synopsis\nplain\ncaf\xe9\n".encode("latin-1"))
    message = refusal(source)
    assert "line 3" in message
    assert "UTF-8" in message


# JSON Lines

JSON_CELL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["synopsis", "title", "id", "x y", "", "名"]), JSON_CELL, max_size=5
        ),
        max_size=6,
    ),
    escaped=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_every_object_of_json_lines_stays(
    desk: Path, rows: list[dict[str, Any]], escaped: bool, ending: str
) -> None:
    rows = [{"synopsis": "there is one"}, *rows]
    source, target = desk / "in.jsonl", desk / "out.jsonl"
    lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    source.write_bytes("".join(line + ending for line in lines).encode())

    assert extended(source, target, "jsonl") == len(rows)

    written = target.read_bytes().decode().split("\n")[:-1]
    assert [line[: len(old) - 1] for line, old in zip(written, lines, strict=True)] == [
        old[:-1] for old in lines
    ]
    for line, row in zip(written, rows, strict=True):
        record = json.loads(line)
        synopsis = row.get("synopsis")
        assert record.pop("length") == (len(synopsis) if isinstance(synopsis, str) else 0)
        assert isinstance(record.pop("echo"), str)
        assert list(record.items()) == list(row.items())


def test_a_byte_order_mark_before_json_lines_does_no_harm(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"synopsis": "abc"}\n')
    assert extended(source, target, "jsonl") == 1
    assert json.loads(target.read_text())["length"] == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ('{"synopsis": "a"}\n\n{"synopsis": \n', ["row 2", "line 3", "not JSON"]),
        ('["a"]\n', ["row 1", "line 1", "braces"]),
        ('{"id": 1}\n', ["no row has 'synopsis'", "--column"]),
        ('{"synopsis": "a", "echo": 1}\n', ["row 1", "'echo'"]),
        ("[" * 100_000 + "\n", ["row 1", "not JSON"]),
    ],
)
def test_malformed_json_lines_are_refused_with_their_place(
    tmp_path: Path, data: str, told: list[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(data)
    message = refusal(source, "jsonl")
    assert [words for words in told if words not in message] == []


def test_a_synopsis_may_come_late_in_json_lines(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"title": "none yet"}\n{"synopsis": "here"}\n')
    assert extended(source, target, "jsonl", chunk=2) == 2
    assert extended(source, target, "jsonl", chunk=1) == 2


# Parquet


def odd_table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, None, 2**40], pa.int64()),
            "cast": pa.array([["Ivo", None], None, []], pa.list_(pa.string())),
            "synopsis": pa.array(["abc", None, 'é "q"\n'], pa.string()),
            "made": pa.array([0, 1, None], pa.timestamp("us")),
            "kind": pa.array(["film", "film", None]).dictionary_encode(),
        }
    )


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_every_typed_cell_of_parquet_stays(tmp_path: Path, chunk: int) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(odd_table(), source)
    assert extended(source, target, "parquet", chunk) == 3
    written, given_table = pq.read_table(target), pq.read_table(source)
    assert written.select(given_table.column_names) == given_table
    assert written.column_names[-2:] == ["length", "echo"]
    assert written["length"].to_pylist() == [3, 0, 6]
    assert written["length"].type == pa.float64()
    assert written["echo"].type == pa.string()


def test_text_in_parquet_that_is_not_utf8_is_refused_with_its_row(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    raw = pa.array([b"good", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"synopsis": raw}), source)
    message = refusal(source, "parquet")
    assert "row 2" in message
    assert "UTF-8" in message


def test_of_columns_with_one_name_the_first_is_read(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
        if kind == "csv":
            source.write_text("synopsis,synopsis\nabc,de\n")
        else:
            pq.write_table(pa.table([["abc"], ["de"]], names=["synopsis"] * 2), source)
        assert extended(source, target, kind) == 1
    written = pq.ParquetFile(tmp_path / "out.parquet").read()
    assert [column.to_pylist() for column in written.columns[:3]] == [["abc"], ["de"], [3.0]]
    assert read_delimited((tmp_path / "out.csv").read_bytes(), ",")[1][:3] == ["abc", "de", "3"]


def test_parquet_without_rows_gets_its_columns(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(odd_table().slice(0, 0), source)
    assert extended(source, target, "parquet") == 0
    assert pq.read_table(target).column_names[-1] == "echo"


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    source.write_text("synopsis\nthis is text\n")
    assert "not a readable Parquet file" in refusal(source, "parquet")
    pq.write_table(odd_table(), source)
    source.write_bytes(source.read_bytes()[:-40])
    assert "not a readable Parquet file" in refusal(source, "parquet")
    pq.write_table(odd_table().drop_columns("synopsis"), source)
    assert "no column 'synopsis'" in refusal(source, "parquet")


def test_parquet_with_a_damaged_page_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"synopsis": [f"line {n} of many" for n in range(500)]}), source)
    data = bytearray(source.read_bytes())
    data[1000:1040] = b"\xff" * 40
    source.write_bytes(data)
    refusal(source, "parquet")


# Packed files


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_packed_tables_are_read_and_written(tmp_path: Path, kind: str) -> None:
    plain, packed, target = (tmp_path / f"{name}.{kind}" for name in ("in", "packed", "out"))
    packed, target = Path(f"{packed}.gz"), Path(f"{target}.gz")
    if kind == "parquet":
        pq.write_table(odd_table(), plain)
    else:
        plain.write_text({"csv": "synopsis\nabc\n", "jsonl": '{"synopsis": "abc"}\n'}[kind])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows = extended(packed, target, kind)
    assert rows == extended(plain, tmp_path / f"plain-out.{kind}", kind)
    unpacked = gzip.decompress(target.read_bytes())
    assert unpacked == (tmp_path / f"plain-out.{kind}").read_bytes()


def test_a_packed_file_is_known_by_its_content(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(gzip.compress(b"synopsis\nabc\n"))
    assert extended(source, target, "csv") == 1
    assert target.read_text().startswith("synopsis,length,echo\nabc,3,")


def test_equal_tables_pack_to_equal_bytes(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("synopsis\nabc\n")
    extended(source, tmp_path / "a.csv.gz", "csv")
    extended(source, tmp_path / "b.csv.gz", "csv")
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


PACKED = gzip.compress(b"synopsis\n" + b"".join(b"line %d\n" % n for n in range(400)), mtime=0)


def test_a_packed_file_cut_short_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(PACKED[:-20])
    assert "damaged gzip" in refusal(source)


def test_a_packed_file_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(PACKED[:-6] + bytes([PACKED[-6] ^ 255]) + PACKED[-5:])
    assert "damaged gzip" in refusal(source)


def test_a_packed_file_with_a_broken_stream_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(PACKED[:10] + b"\xff" * 8 + PACKED[18:])
    assert "damaged gzip" in refusal(source)


# Targets


def test_a_target_keeps_what_it_had_when_the_source_is_malformed(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("synopsis,id\n" + "a,1\n" * 50 + "b\n")
    target.write_text("kept")
    with pytest.raises(TableError, match="row 51"):
        extended(source, target, "csv", chunk=1)
    assert target.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_target_keeps_its_rights(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("synopsis\na\n")
    target.write_text("old")
    target.chmod(0o600)
    extended(source, target, "csv")
    assert target.stat().st_mode & 0o777 == 0o600
    extended(source, tmp_path / "new.csv", "csv")
    assert (tmp_path / "new.csv").stat().st_mode & 0o777 == source.stat().st_mode & 0o777


def test_a_table_can_replace_itself(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("synopsis\nab\ncd\n")
    assert extended(source, source, "csv") == 2
    assert [row[:2] for row in read_delimited(source.read_bytes(), ",")] == [
        ["synopsis", "length"],
        ["ab", "2"],
        ["cd", "2"],
    ]


@pytest.mark.parametrize("place", ["folder", "missing/out.csv", "in.csv/out.csv"])
def test_a_target_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text("synopsis\na\n")
    (tmp_path / "folder").mkdir()
    target = tmp_path / place
    with pytest.raises(TableError) as caught:
        extended(source, target, "csv")
    assert str(target) in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "in.csv"]


@pytest.mark.parametrize("place", ["folder.csv", "missing.csv"])
def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    refusal(tmp_path / place)


# Names and progress


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.csv", "csv"),
        ("b/A.TSV", "tsv"),
        ("a.tab", "tsv"),
        ("a.ndjson.gz", "jsonl"),
        ("a.b.jsonl", "jsonl"),
        ("a.PQ", "parquet"),
        ("-", "csv"),
    ],
)
def test_the_ending_tells_the_format(path: str, kind: str) -> None:
    assert format_of(path) == kind


@pytest.mark.parametrize("path", ["a", "a.xlsx", "csv", "a.csv.zip", "a.gz"])
def test_an_unknown_ending_is_refused(path: str) -> None:
    with pytest.raises(TableError, match="unknown kind of table"):
        format_of(path)


def test_rows_come_in_chunks_and_progress_adds_up(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("synopsis\n" + "a\n" * 7)
    added, read = Lengths(), []
    target = str(tmp_path / "out.csv")
    extend(str(source), target, "csv", added, Columns(), 3, read.append)
    assert added.chunks == [3, 3, 1]
    assert sum(read) == source.stat().st_size


def test_progress_is_told_as_rows_are_done(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("synopsis\n" + f"{'a' * 299}\n" * 4000)
    added, read, told = Lengths(), [], []
    added_rows = added.__call__

    class Watching(Lengths):
        def __call__(self, rows: list[Row]) -> Cells:
            told.append(sum(read))
            return added_rows(rows)

    extend(str(source), str(tmp_path / "o.csv"), "csv", Watching(), Columns(), 100, read.append)
    size = source.stat().st_size
    assert told[0] < size / 5
    assert told[len(told) // 2] < size * 0.7
