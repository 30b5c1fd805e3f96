"""A run that is cut off goes on from where it was, and its output is that of an undisturbed run."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, STARTER, Forewarn, alive, beside, start_forewarn, until

from pipeline import draft
from pipeline.draft import Draft, draft_paths, open_draft
from pipeline.errors import InterruptedRunError, TableError
from pipeline.table import Cells, Columns, Row, extend

TERMS = {"model": "a", "--threshold": None, "--column": ("synopsis", "title")}
KILLS = int(os.environ.get("FOREWARN_KILLS", "2"))
"""How often each kind of run is killed: a few times in the gate, fifty for a release."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every append of these tests' own process is a checkpoint."""
    monkeypatch.setattr(draft, "_PAUSE", 0)
    monkeypatch.setattr(draft, "_SHARE", 0)


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes 30,000 invented rows to a file of an ending."""
    desk = tmp_path_factory.mktemp("catalogue")
    with STARTER.open(encoding="utf-8", newline="") as file:
        texts = [(row["title"], row["synopsis"]) for row in csv.DictReader(file)]
    rows = [(n, *texts[n % len(texts)]) for n in range(30_000)]
    names = ("id", "title", "synopsis")
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))

    def write(ending: str) -> Path:
        path = desk / f"in{ending}"
        if ending == ".parquet":
            pq.write_table(table, path, row_group_size=9000)
            return path
        with pa.output_stream(path) as sink:
            if ending.startswith(".jsonl"):
                sink.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
            else:
                pyarrow.csv.write_csv(table, sink)
        return path

    return write


class CutOffError(Exception):
    """Stands for whatever ends a run."""


@contextmanager
def cut_off(target: Path, resume: bool = False) -> Iterator[Draft]:
    """A draft whose run is cut off at the end of the block."""
    with pytest.raises(CutOffError), open_draft(str(target), TERMS, resume) as opened:
        yield opened
        raise CutOffError


# What is kept


def test_a_draft_becomes_its_target_when_it_is_published(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with open_draft(str(target), TERMS) as opened:
        opened.append(b"a", None)
        opened.append(b"b", 1)
        assert target.read_text() == "old"
        opened.publish()
    assert target.read_text() == "ab"
    assert beside(target) == []


def test_an_interrupted_run_goes_on_after_its_last_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with cut_off(target) as opened:
        opened.append(b"head,", None)
        opened.append(b"one,", {"rows": 1})
    assert not target.exists()
    assert beside(target) == [".out.csv.journal", ".out.csv.part"]
    assert draft_paths(target)[0].stat().st_mode & 0o777 == 0o600
    with cut_off(target, resume=True) as opened:
        assert opened.place == {"rows": 1}
        opened.append(b"two,", {"rows": 2})
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place == {"rows": 2}
        opened.append(b"three", {"rows": 3})
        opened.publish()
    assert target.read_bytes() == b"head,one,two,three"
    assert beside(target) == []


def test_bytes_that_no_line_counts_are_dropped(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    part, journal = draft_paths(target)
    with cut_off(target) as opened:
        opened.append(b"one,", 1)
        opened.append(b"two,", 2)
    with part.open("ab") as file:
        file.write(b"half of th")
    with journal.open("ab") as file:
        file.write(b'{"length": 9, "pla')
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place == 2
        opened.append(b"three", 3)
        opened.publish()
    assert target.read_bytes() == b"one,two,three"


def test_an_interruption_within_a_write_neither_loses_nor_doubles_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"

    class Interrupted:
        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            self._file.write(data)
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    with pytest.raises(KeyboardInterrupt), open_draft(str(target), TERMS) as opened:
        opened.append(b"one,", 1)
        monkeypatch.setattr(opened, "_part", Interrupted(opened._part))
        opened.append(b"two,", 2)
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place == 1
        opened.append(b"two", 2)
        opened.publish()
    assert target.read_bytes() == b"one,two"


def test_a_line_whose_bytes_are_gone_does_not_count(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with cut_off(target) as opened:
        opened.append(b"one,", 1)
        opened.append(b"two,", 2)
    os.truncate(draft_paths(target)[0], 6)
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place == 1
        opened.append(b"2", 2)
        opened.publish()
    assert target.read_bytes() == b"one,2"
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place is None


def test_a_run_killed_after_publishing_has_nothing_left_to_do(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with cut_off(target) as opened:
        opened.append(b"all", 1)
        opened.publish()
    assert target.read_bytes() == b"all"
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert (opened.whole, opened.place) == (True, 1)
        opened.publish()
    assert target.read_bytes() == b"all"
    assert beside(target) == []


def test_without_resume_a_run_starts_afresh_and_says_so(tmp_path: Path) -> None:
    target, notes = tmp_path / "out.csv", []
    with cut_off(target) as opened:
        opened.append(b"one,", 1)
    with open_draft(str(target), TERMS, note=notes.append) as opened:
        assert opened.place is None
        opened.append(b"uno", 1)
        opened.publish()
    assert target.read_bytes() == b"uno"
    (note,) = notes
    assert note.startswith(f"{target}: ")
    assert "--resume" in note


def test_what_was_left_by_another_run_is_refused_by_name(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with cut_off(target) as opened:
        opened.append(b"one,", 1)
    before = beside(target)
    for changed in ({**TERMS, "--threshold": 0.5}, {"--threshold": None, "model": "b"}):
        with (
            pytest.raises(TableError, match=r"another (--threshold|model); .*without --resume"),
            open_draft(str(target), changed, resume=True),
        ):
            pass
    assert beside(target) == before
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place == 1


@pytest.mark.parametrize("journal", [b"", b"{", b'{"model": "a"', b"\xff\n"])
def test_a_run_killed_as_it_began_left_nothing(tmp_path: Path, journal: bytes) -> None:
    target = tmp_path / "out.csv"
    draft_paths(target)[1].write_bytes(journal)
    with open_draft(str(target), TERMS, resume=True) as opened:
        assert opened.place is None
        opened.append(b"new", 1)
        opened.publish()
    assert target.read_bytes() == b"new"


def test_two_runs_do_not_write_one_target(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with open_draft(str(target), TERMS) as first:
        first.append(b"first", 1)
        with pytest.raises(TableError, match="another run is writing it"):
            open_draft(str(target), TERMS).__enter__()
        first.publish()
    assert target.read_bytes() == b"first"


def test_a_fault_of_the_input_leaves_nothing_and_one_of_the_machine_all(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    for fault, kept in ((TableError("row 2"), 0), (InterruptedRunError("full"), 2)):
        with pytest.raises(TableError) as caught, open_draft(str(target), TERMS) as opened:
            opened.append(b"one,", 1)
            raise fault
        assert len(beside(target)) == kept
        assert len(getattr(caught.value, "__notes__", [])) == kept / 2


# A table


class Marks:
    """A stand-in for a tagger that is cut off at a row."""

    names, numbers = ("mark",), frozenset[str]()

    def __init__(self, stop: str | None = None) -> None:
        self.stop, self.seen = stop, 0

    def __call__(self, rows: list[Row]) -> Cells:
        if any(synopsis == self.stop for _, synopsis in rows):
            raise KeyboardInterrupt
        self.seen += len(rows)
        return {"mark": [f"«{synopsis}»" for _, synopsis in rows]}


def marked(source: Path, target: Path, marks: Marks, resume: bool = False) -> int:
    kind = source.name.removesuffix(".gz").rpartition(".")[2]
    return extend(str(source), str(target), kind, marks, Columns(), 3, terms=TERMS, resume=resume)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("stop", ["0", "4", "11", "19"])
def test_a_continued_table_is_that_of_an_undisturbed_run(
    tmp_path: Path, ending: str, stop: str
) -> None:
    source, target, whole = (tmp_path / f"{name}{ending}" for name in ("in", "out", "whole"))
    texts = [f"{n}" if n != 5 else 'a "quoted"\nline\r\n\r\n' for n in range(20)]
    with pa.output_stream(source) as sink:
        if ending == ".parquet":
            kinds = pa.array(["film", "série", None, "film"] * 5).dictionary_encode()
            pq.write_table(pa.table({"synopsis": texts, "kind": kinds}), sink, row_group_size=6)
        elif ending.startswith(".jsonl"):
            sink.write("".join(json.dumps({"synopsis": t}) + "\n\n" for t in texts).encode())
        else:
            sink.write(b"\xef\xbb\xbfsynopsis\r\n\r\n")
            sink.write("".join('"{}"\r\n'.format(t.replace('"', '""')) for t in texts).encode())
    assert marked(source, whole, Marks()) == 20
    with pytest.raises(KeyboardInterrupt):
        marked(source, target, Marks(stop))
    assert not target.exists()
    rest = Marks()
    assert marked(source, target, rest, resume=True) == 20
    assert target.read_bytes() == whole.read_bytes()
    assert rest.seen == {"0": 20, "4": 17, "11": 11, "19": 2}[stop]
    assert beside(target) == []


def test_rows_that_lack_the_synopsis_are_remembered(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"synopsis": "1"}\n' + '{"id": 0}\n' * 5 + '{"synopsis": "stop"}\n')
    with pytest.raises(KeyboardInterrupt):
        marked(source, target, Marks("stop"))
    source_time = source.stat().st_mtime_ns
    source.write_text('{"synopsis": "1"}\n' + '{"id": 0}\n' * 5 + '{"synopsi_": "stop"}\n')
    os.utime(source, ns=(source_time, source_time))
    assert marked(source, target, Marks(), resume=True) == 7


def test_a_source_that_changed_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("synopsis\n" + "a\n" * 9 + "stop\n")
    with pytest.raises(KeyboardInterrupt):
        marked(source, target, Marks("stop"))
    os.utime(source, ns=(0, 0))
    with pytest.raises(TableError, match=r"another input .*; run it without --resume"):
        marked(source, target, Marks(), resume=True)


# Real processes


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv", ".jsonl.gz", ".parquet"])
def test_killed_at_random_moments_and_continued_the_output_is_that_of_an_undisturbed_run(
    starter_folder: Path,
    catalogue: Callable[[str], Path],
    tmp_path: Path,
    ending: str,
) -> None:
    source, whole, target = (
        catalogue(ending),
        tmp_path / f"whole{ending}",
        tmp_path / f"out{ending}",
    )
    args = ("tag", source, "--model", starter_folder, "--scores")
    begun = time.monotonic()
    assert start_forewarn(*args, "-o", whole).wait(240) == 0
    lasts = time.monotonic() - begun
    chance, kills, went_on = random.Random(ending), 0, 0
    while kills < KILLS or not went_on:
        ran = start_forewarn(*args, "-o", target, "--resume", "--jobs", chance.choice("12"))
        try:
            _, told = ran.communicate(timeout=chance.random() * lasts)
        except subprocess.TimeoutExpired:
            ran.kill()
            _, told = ran.communicate()
            kills += 1
        else:
            assert ran.returncode == 0, told
            assert target.read_bytes() == whole.read_bytes()
            target.unlink()
        went_on += "going on after" in told
    assert start_forewarn(*args, "-o", target, "--resume").wait(240) == 0
    assert target.read_bytes() == whole.read_bytes()
    assert beside(target) == []
    print(f"{ending}: {kills} kills, {went_on} runs went on from a checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_run_ends_at_once_and_says_how_to_go_on(
    forewarn: Forewarn,
    starter_folder: Path,
    catalogue: Callable[[str], Path],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    jobs: str,
) -> None:
    source, target = catalogue(".csv"), tmp_path / "out.csv"
    args = ("tag", source, "-o", target, "--model", starter_folder, "--jobs", jobs)
    ran = start_forewarn(*args)
    part, _ = draft_paths(target)
    until(lambda: part.exists() and part.stat().st_size > 1_500_000)
    family = [psutil.Process(ran.pid), *psutil.Process(ran.pid).children(recursive=True)]
    assert len(family) > int(jobs) - (jobs == "1")
    # Ctrl-C reaches every process of a terminal; SIGTERM is sent to one.
    (os.killpg if number is signal.SIGINT else os.kill)(ran.pid, number)
    _, told = ran.communicate(timeout=240)
    assert ran.returncode == code
    (line,) = told.splitlines()
    assert line.startswith("forewarn: ")
    assert "--resume" in line
    until(lambda: not any(alive(process) for process in family))
    assert not target.exists()
    resumed = forewarn(*args, "--resume")
    assert resumed.rc == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    assert "30,000 rows tagged" in resumed.stderr
    assert beside(target) == []


EXTEND = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_draft import Marks, Path, draft, marked
draft._PAUSE = draft._SHARE = 0
print(marked(Path({source!r}), Path({target!r}), Marks(), resume=True))
"""


def test_a_run_that_a_full_disk_cut_off_goes_on_when_there_is_space(tmp_path: Path) -> None:
    source, target, whole = (tmp_path / f"{name}.csv" for name in ("in", "out", "whole"))
    source.write_text("synopsis\n" + "".join(f"{n} {'long ' * 50}\n" for n in range(600)))
    names = {"root": ROOT, "tests": ROOT / "tests", "source": source, "target": target}
    code = EXTEND.format(**{name: str(path) for name, path in names.items()})
    # A limit on the size of a file, in blocks of 512 bytes, stands for the disk.
    ran = subprocess.run(
        ["sh", "-c", 'ulimit -f 300; exec "$@"', "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"InterruptedRunError: {target}: cannot be written (File too large)" in ran.stderr
    assert not target.exists()
    rest = Marks()
    assert marked(source, target, rest, resume=True) == 600
    assert rest.seen < 600
    assert marked(source, whole, Marks()) == 600
    assert target.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("args", "stdin"),
    [(("tag", "-", "-o", "out.csv"), b"synopsis\na\n"), (("tag", "in.csv", "-o", "-"), b"")],
)
def test_a_stream_cannot_be_continued(
    forewarn: Forewarn, tmp_path: Path, args: tuple[str, ...], stdin: bytes
) -> None:
    (tmp_path / "in.csv").write_text("synopsis\na\n")
    ran = forewarn(*args, "--resume", stdin=stdin, cwd=tmp_path)
    assert (ran.rc, ran.out) == (2, b"")
    (line,) = ran.stderr.splitlines()
    assert "--resume needs files" in line


@pytest.mark.slow
def test_another_model_or_option_cannot_continue_a_run(
    forewarn: Forewarn, starter_folder: Path, catalogue: Callable[[str], Path], tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    args = ("tag", catalogue(".csv"), "-o", target, "--resume")
    ran = start_forewarn(*args, "--model", starter_folder)
    _, journal = draft_paths(target)
    until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
    ran.kill()
    ran.communicate()
    for options, named in (
        (("--model", "default"), "model"),
        (("--model", starter_folder, "--profile", "strict"), "--profile"),
    ):
        refused = forewarn(*args, *options)
        assert refused.rc == 2
        assert refused.stderr == (
            f"forewarn: {target}: cannot go on, the interrupted run had another {named}; "
            "run it without --resume to start afresh\n"
        )
    assert forewarn(*args, "--model", starter_folder).rc == 0
