"""Tagging a table: warnings and a status for each row, in its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Forewarn
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError, TableError
from pipeline.model import Model
from pipeline.table import Columns
from pipeline.tagging import Tagger, tag_table

GRIM = (
    "When her brother is murdered, a retired detective follows the killer into a city at war, "
    "where soldiers torture their prisoners and the dead lie in the streets."
)
AFFAIR = (
    "Her husband works nights. Slowly she begins an affair with the neighbour, and the wife who "
    "swore never to cheat finds that she can no longer stop."
)
MILD = (
    "Three cousins restore an old ferry and carry their first passengers across the bay in spring."
)
SPANISH = (
    "Una mujer regresa a su pueblo y descubre que su padre guardaba un secreto desde hace años."
)
ROWS = [GRIM, "", "Two words", AFFAIR, SPANISH, MILD, "寝取られた夫の物語である。", "…!?", GRIM]
STATUSES = [
    "ok",
    "empty",
    "too-short",
    "ok",
    "not-english",
    "ok",
    "not-english",
    "empty",
    "ok",
]

SYNOPSIS = st.sampled_from([*ROWS, f"<p>{GRIM}</p>", AFFAIR.replace(" ", "\r\n", 3)])
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=9)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("desk")


def write_csv(path: Path, header: list[str], rows: list[tuple[str, ...]], mark: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=mark, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(data: bytes, mark: str = ",") -> list[dict[str, str]]:
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return list(csv.DictReader(text, delimiter=mark, strict=True))


def tagged(desk: Path, tagger: Tagger, rows: list[str], **options: int) -> list[dict[str, str]]:
    write_csv(desk / "in.csv", ["synopsis"], [(row,) for row in rows])
    tag_table(str(desk / "in.csv"), str(desk / "out.csv"), tagger, **options)
    return read_csv((desk / "out.csv").read_bytes())


# Rows and cells


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(CELL, SYNOPSIS | CELL, CELL), max_size=6),
    kind=st.sampled_from(["csv", "tsv"]),
    chunk=st.integers(1, 4),
)
def test_a_tagged_table_has_the_rows_and_cells_of_the_given_one(
    desk: Path, starter_model: Model, rows: list[tuple[str, ...]], kind: str, chunk: int
) -> None:
    mark = {"csv": ",", "tsv": "\t"}[kind]
    source, target = desk / f"in.{kind}", desk / f"out.{kind}"
    write_csv(source, ["title", "synopsis", "note"], rows, mark)
    assert tag_table(str(source), str(target), Tagger(starter_model), chunk=chunk) == len(rows)
    written = read_csv(target.read_bytes(), mark)
    assert [(row["title"], row["synopsis"], row["note"]) for row in written] == rows
    for row in written:
        found = starter_model.suggest(row["synopsis"], row["title"], evidence=False)
        assert row["warnings"] == ";".join(warning.tag for warning in found.warnings)
        assert row["warning_status"] == found.status


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": st.integers() | st.none()},
            optional={
                "synopsis": SYNOPSIS | st.none() | st.integers() | st.lists(CELL, max_size=2),
                "title": CELL | st.none(),
                "more": st.dictionaries(CELL, st.floats(allow_nan=False), max_size=2),
            },
        ),
        max_size=6,
    )
)
def test_tagged_json_lines_have_the_objects_of_the_given_ones(
    desk: Path, starter_model: Model, rows: list[dict[str, object]]
) -> None:
    rows = [*rows, {"synopsis": GRIM}]
    source, target = desk / "in.jsonl", desk / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tag_table(str(source), str(target), Tagger(starter_model))
    written = [json.loads(line) for line in target.read_text().split("\n")[:-1]]
    assert [list(row)[-2:] for row in written] == [["warnings", "warning_status"]] * len(rows)
    for row, old in zip(written, rows, strict=True):
        if not isinstance(old.get("synopsis"), str):
            assert (row["warnings"], row["warning_status"]) == ("", "empty")
        assert {key: row[key] for key in list(row)[:-2]} == old


def test_tagged_parquet_keeps_types_and_nulls(desk: Path, starter_model: Model) -> None:
    given_table = pa.table(
        {
            "id": pa.array([7, None, 2**53 + 1]),
            "synopsis": [GRIM, None, AFFAIR],
            "genres": [["drama", "war"], [], None],
        }
    )
    pq.write_table(given_table, desk / "in.parquet")
    tagger = Tagger(starter_model, scores=True)
    tag_table(str(desk / "in.parquet"), str(desk / "out.parquet"), tagger)
    written = pq.read_table(desk / "out.parquet")
    assert written.select(["id", "synopsis", "genres"]) == given_table
    assert written["warning_status"].to_pylist() == ["ok", "empty", "ok"]
    assert written["warnings"].to_pylist()[1] == ""
    assert written["score_murder"].type == pa.float64()
    first, none, last = written["score_infidelity"].to_pylist()
    assert none is None
    assert 0 <= first < last <= 1


def test_a_row_that_cannot_be_read_keeps_its_place_and_says_why(
    desk: Path, starter_model: Model
) -> None:
    written = tagged(desk, Tagger(starter_model), ROWS)
    assert [row["warning_status"] for row in written] == STATUSES
    assert [row["synopsis"] for row in written] == ROWS
    assert all(not row["warnings"] for row in written if row["warning_status"] != "ok")
    assert "infidelity" in written[3]["warnings"].split(";")
    assert written[0]["warnings"] == written[-1]["warnings"] != ""


def test_warnings_come_by_falling_probability_with_their_broader_tags(
    desk: Path, default_model: Model
) -> None:
    tagger = Tagger(default_model, scores=True, profile="cautious")
    for row in tagged(desk, tagger, [GRIM, AFFAIR, MILD]):
        tags = row["warnings"].split(";") if row["warnings"] else []
        assert len(tags) == len(set(tags))
        assert set(tags) == default_model.taxonomy.closure(tags)
        scores = [float(row[f"score_{tag}"]) for tag in tags]
        assert scores == sorted(scores, reverse=True)


# Columns on request


def test_scores_are_a_probability_for_every_tag(desk: Path, starter_model: Model) -> None:
    written = tagged(desk, Tagger(starter_model, scores=True), ROWS)
    names = [f"score_{tag}" for tag in starter_model.tags]
    assert list(written[0]) == ["synopsis", "warnings", "warning_status", *names]
    for row in written:
        if row["warning_status"] == "ok":
            assert all(0 <= float(row[name]) <= 1 for name in names)
        else:
            assert {row[name] for name in names} == {""}
    exact = starter_model.predict_proba([f"\n{GRIM}"])[0]
    assert [float(written[0][name]) for name in names] == pytest.approx(exact, abs=1e-6)


def test_evidence_names_tags_and_words_of_the_synopsis(desk: Path, default_model: Model) -> None:
    written = tagged(desk, Tagger(default_model, evidence=True), ROWS)
    assert list(written[0]) == ["synopsis", "warnings", "warning_status", "warning_evidence"]
    for row in written:
        entries = [entry.partition(": ") for entry in row["warning_evidence"].split("; ") if entry]
        assert [tag for tag, _, _ in entries] == [tag for tag in row["warnings"].split(";") if tag]
        for _, _, phrases in entries:
            assert phrases
            assert all(phrase in row["synopsis"] for phrase in phrases.split(", "))
    assert "murdered" in written[0]["warning_evidence"]


def test_the_title_counts(desk: Path, starter_model: Model) -> None:
    write_csv(desk / "in.csv", ["title", "synopsis"], [("A Cheating Wife", MILD), ("", MILD)])
    tagger = Tagger(starter_model, scores=True)
    tag_table(str(desk / "in.csv"), str(desk / "out.csv"), tagger)
    titled, untitled = read_csv((desk / "out.csv").read_bytes())
    assert float(titled["score_infidelity"]) > float(untitled["score_infidelity"])


def test_profiles_nest_and_a_threshold_replaces_them(desk: Path, starter_model: Model) -> None:
    found = {
        profile: [
            set(filter(None, row["warnings"].split(";")))
            for row in tagged(desk, Tagger(starter_model, profile=profile), ROWS)
        ]
        for profile in ("strict", "balanced", "cautious")
    }
    for strict, balanced, cautious in zip(*found.values(), strict=True):
        assert strict <= balanced <= cautious
    assert found["strict"] != found["cautious"]
    everything = tagged(desk, Tagger(starter_model, threshold=0.0), ROWS)
    assert len(everything[0]["warnings"].split(";")) == len(starter_model.tags)
    assert everything[1]["warnings"] == ""
    with pytest.raises(ModelError, match="unknown profile 'lax'; choose from balanced"):
        tagged(desk, Tagger(starter_model, profile="lax"), ROWS)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_the_chunk_size_does_not_change_the_output(
    desk: Path, starter_model: Model, kind: str
) -> None:
    source = desk / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"synopsis": ROWS}), source)
    elif kind == "jsonl":
        source.write_text("".join(json.dumps({"synopsis": row}) + "\n" for row in ROWS))
    else:
        write_csv(source, ["synopsis"], [(row,) for row in ROWS], "," if kind == "csv" else "\t")
    tagger = Tagger(starter_model, scores=True, evidence=True)
    tables = []
    for chunk in (1, 2, 4, 1000):
        target = desk / f"out{chunk}.{kind}"
        tag_table(str(source), str(target), tagger, chunk=chunk)
        tables.append(pq.read_table(target) if kind == "parquet" else target.read_bytes())
    assert all(table == tables[0] for table in tables)


# Formats, streams and failures, as a process of its own


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_standard_input_to_standard_output(
    forewarn: Forewarn, starter_folder: Path, kind: str
) -> None:
    mark = {"csv": ",", "tsv": "\t"}.get(kind)
    if mark:
        given_bytes = f'synopsis{mark}id\r\n"{GRIM}"{mark}é "1"\r\n{mark}2\r\n'.encode()
    else:
        given_bytes = json.dumps({"synopsis": GRIM, "id": "é"}).encode() + b'\n{"id": 2}\n'
    args = ("tag", "-", "-o", "-", "--format", kind, "--model", starter_folder)
    ran = forewarn(*args, stdin=given_bytes)
    assert ran.rc == 0, ran.stderr
    assert "2 rows tagged" in ran.stderr
    if mark:
        lines = ran.out.decode().split("\r\n")
        old = given_bytes.decode().split("\r\n")
        assert [line[: len(was)] for line, was in zip(lines, old, strict=True)] == old
        assert lines[2] == f"{mark}2{mark}{mark}empty"
    else:
        first, second = map(json.loads, ran.stdout.splitlines())
        assert (first["id"], first["warning_status"]) == ("é", "ok")
        assert second == {"id": 2, "warnings": "", "warning_status": "empty"}


def test_standard_input_is_csv_unless_said(forewarn: Forewarn, starter_folder: Path) -> None:
    args = ("tag", "-", "-o", "-", "-q", "--model", starter_folder)
    ran = forewarn(*args, stdin=b"synopsis\nshort\n")
    assert (ran.rc, ran.stderr) == (0, "")
    assert ran.stdout == "synopsis,warnings,warning_status\nshort,,too-short\n"


def test_parquet_through_standard_streams(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"n": [1, 2], "synopsis": [GRIM, None]}), tmp_path / "in.parquet")
    data = (tmp_path / "in.parquet").read_bytes()
    args = ("tag", "-", "-o", "-", "--format", "parquet", "--model", starter_folder)
    ran = forewarn(*args, stdin=data)
    assert ran.rc == 0, ran.stderr
    assert pq.read_table(io.BytesIO(ran.out))["warning_status"].to_pylist() == ["ok", "empty"]


def test_packed_tables_and_other_column_names(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    plain = f'name,plot\nA,"{GRIM}"\n'.encode()
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(plain))
    source, target = tmp_path / "in.csv.gz", tmp_path / "out.csv.gz"
    columns = ("--column", "synopsis=plot", "--column", "title=name", "--evidence", "--scores")
    ran = forewarn("tag", source, "-o", target, "--model", starter_folder, *columns)
    assert ran.rc == 0, ran.stderr
    (row,) = read_csv(gzip.decompress(target.read_bytes()))
    assert list(row)[:4] == ["name", "plot", "warnings", "warning_status"]
    assert list(row)[-1] == "warning_evidence"
    assert len(row) == 5 + 36
    assert row["warnings"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("in.csv", b"synopsis,id\na,1\nb\n", "row 2 (line 3)"),
        ("in.csv", b'synopsis,id\n"open,1\nb,2\n', "quotes"),
        ("in.csv", "synopsis\ncaf\xe9\n".encode("latin-1"), "UTF-8"),
        ("in.csv", b"text\na\n", "no column 'synopsis'"),
        ("in.csv", b"synopsis,warnings\na,b\n", "'warnings'"),
        ("in.csv", b"", "is empty"),
        ("in.csv", None, "cannot be read"),
        ("in.jsonl", b'{"synopsis": "a"}\n{"synopsis": \n', "row 2 (line 2)"),
        ("in.parquet", b"PAR1 or so it says", "not a readable Parquet file"),
        ("in.csv.gz", gzip.compress(b"synopsis\n" + b"a\n" * 99)[:-9], "damaged gzip"),
    ],
)
def test_a_table_that_cannot_be_tagged_is_told_in_one_line(
    forewarn: Forewarn,
    starter_folder: Path,
    tmp_path: Path,
    name: str,
    data: bytes | None,
    told: str,
) -> None:
    source = tmp_path / name
    if data is not None:
        source.write_bytes(data)
    target = tmp_path / f"out{''.join(source.suffixes)}"
    target.write_bytes(b"kept as it was")
    there = sorted(tmp_path.iterdir())
    ran = forewarn("tag", source, "-o", target, "--model", starter_folder)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"forewarn: {source}: ")
    assert told in line
    assert target.read_bytes() == b"kept as it was"
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize("target", ["folder.csv", "missing/out.csv", "in.csv/out.csv", "out.tsv"])
def test_a_target_that_cannot_be_written_is_told_in_one_line(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "in.csv").write_text("synopsis\nshort\n")
    (tmp_path / "folder.csv").mkdir()
    ran = forewarn("tag", "in.csv", "-o", target, "--model", starter_folder, cwd=tmp_path)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"forewarn: {target}: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder.csv", "in.csv"]


def test_a_folder_is_no_table(forewarn: Forewarn, starter_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").mkdir()
    out = tmp_path / "out.csv"
    ran = forewarn("tag", tmp_path / "in.csv", "-o", out, "--model", starter_folder)
    assert ran.rc == 2
    assert ran.stderr == f"forewarn: {tmp_path / 'in.csv'}: is a directory; name a file\n"
    assert not out.exists()


def test_nothing_goes_to_standard_output_when_a_late_row_is_malformed(
    forewarn: Forewarn, starter_folder: Path
) -> None:
    data = b"synopsis,id\n" + b"a,1\n" * 3000 + b"b\n"
    ran = forewarn("tag", "-", "-o", "-", "--model", starter_folder, stdin=data)
    assert (ran.rc, ran.out) == (2, b"")
    assert ran.stderr.startswith("forewarn: standard input: row 3001 (line 3002) has 1 cells")
    assert len(ran.stderr.splitlines()) == 1


def test_a_lone_surrogate_in_json_lines_does_no_harm(desk: Path, default_model: Model) -> None:
    source, target = desk / "in.jsonl", desk / "out.jsonl"
    source.write_text(json.dumps({"synopsis": GRIM.replace("brother is", "brother\ud800is")}))
    tagger = Tagger(default_model, evidence=True, threshold=0.0)
    assert tag_table(str(source), str(target), tagger) == 1


def test_formats_must_agree(desk: Path, starter_model: Model) -> None:
    write_csv(desk / "in.csv", ["plot"], [(GRIM,)])
    with pytest.raises(TableError, match=r"the input is csv, so the output must be too"):
        tag_table(str(desk / "in.csv"), str(desk / "no.jsonl"), Tagger(starter_model))
    columns = Columns(synopsis="plot")
    (desk / "table").write_bytes((desk / "in.csv").read_bytes())
    with pytest.raises(TableError, match="unknown kind of table"):
        tag_table(str(desk / "table"), str(desk / "out.csv"), Tagger(starter_model), columns)
    assert tag_table(
        str(desk / "table"), str(desk / "out.csv"), Tagger(starter_model), columns, kind="csv"
    )
