"""A real Dask scheduler and real workers give what one machine gives, whoever dies meanwhile."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, STARTER, Forewarn, beside, start_forewarn, until
from test_tagging import GRIM, ROWS, write_csv

import pipeline
from pipeline.errors import ClusterError, TableError
from pipeline.model import Model
from pipeline.tagging import Tagger, tag_table

pytest.importorskip("distributed", reason="needs forewarn[dask]")
from distributed import Client, LocalCluster

from pipeline.cluster import partitions, tag_partitions, training_on

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler and two workers, each a process of its own, over loopback."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as started:
        yield started


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as opened:
        opened.wait_for_workers(2, timeout=240)
        yield opened


def write_parts(desk: Path, count: int, rows: int) -> tuple[Path, Path]:
    """A folder of tables, each of so many rows with an id of their own, and one to be made."""
    with STARTER.open(encoding="utf-8", newline="") as file:
        texts = [row["synopsis"] for row in csv.DictReader(file)]
    (desk / "in").mkdir()
    for part in range(count):
        cells = [(texts[n % len(texts)], f"{part}-{n}") for n in range(rows)]
        write_csv(desk / "in" / f"part-{part}.csv", ["synopsis", "id"], cells)
    return desk / "in", desk / "out"


def assert_tagged_as_on_one_machine(source: Path, target: Path, tagger: Tagger) -> None:
    """Every table of a folder has its output, equal to that of `tag_table`, and nothing else is."""
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == names
    for name in names:
        alone = target.parent / f"alone-{Path(name).name}"
        tag_table(str(source / name), str(alone), tagger)
        assert (target / name).read_bytes() == alone.read_bytes()
    assert beside(target) == []


# Tagging


def test_a_folder_of_tables_is_tagged_as_on_one_machine(
    client: Client, starter_model: Model, tmp_path: Path
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "year=2020").mkdir(parents=True)
    write_csv(source / "a.csv", ["synopsis", "n"], [(row, str(n)) for n, row in enumerate(ROWS)])
    write_csv(source / "year=2020" / "b.csv", ["synopsis"], [(GRIM,)])
    write_csv(source / "none.csv", ["synopsis"], [])
    pq.write_table(pa.table({"synopsis": ROWS * 3}), source / "c.parquet")
    (source / "d.jsonl.gz").write_bytes(b'{"synopsis": "too short"}\n')
    tagger, read = Tagger(starter_model, scores=True, evidence=True), []
    rows = tag_partitions(str(source), str(target), tagger, client, read=read.append)
    assert rows == len(ROWS) * 4 + 2
    assert sum(read) == sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert_tagged_as_on_one_machine(source, target, tagger)


def test_a_worker_killed_in_the_middle_of_a_job_loses_no_row_and_doubles_none(
    cluster: LocalCluster, client: Client, starter_model: Model, tmp_path: Path
) -> None:
    source, target = write_parts(tmp_path, 4, 4000)
    tagger, rows_tagged = Tagger(starter_model), []
    address = cluster.scheduler_address
    job = threading.Thread(
        target=lambda: rows_tagged.append(tag_partitions(str(source), str(target), tagger, address))
    )
    before = client.run(os.getpid)
    job.start()
    attempts = tmp_path / ".out.part" / ".attempts"
    until(lambda: any(attempts.glob("*/.*.part")))
    # The worker that is writing that output now.
    busy = next(worker for worker, keys in client.processing().items() if keys)
    os.kill(before[busy], signal.SIGKILL)
    job.join(240)
    assert rows_tagged == [16_000]
    assert before[busy] not in client.run(os.getpid).values()
    assert_tagged_as_on_one_machine(source, target, tagger)
    ids = [row["id"] for path in target.iterdir() for row in csv.DictReader(path.open())]
    assert sorted(ids) == sorted(f"{part}-{n}" for part in range(4) for n in range(4000))


def test_a_malformed_table_is_named_and_the_others_need_not_be_tagged_again(
    client: Client, starter_model: Model, tmp_path: Path
) -> None:
    source, target = write_parts(tmp_path, 4, 1)
    (source / "part-4.csv").write_text("synopsis,id\na,1\nb\n")
    tagger, notes = Tagger(starter_model), []
    with pytest.raises(TableError, match=r"part-4\.csv: row 2 \(line 3\) has 1 cells") as caught:
        tag_partitions(str(source), str(target), tagger, client)
    assert not target.exists()
    assert any("--resume" in note for note in getattr(caught.value, "__notes__", []))
    write_csv(source / "part-4.csv", ["synopsis"], [(GRIM,)])
    write_csv(source / "part-0.csv", ["synopsis"], [(GRIM,), ("changed meanwhile",)])
    rows = tag_partitions(str(source), str(target), tagger, client, resume=True, note=notes.append)
    assert rows == 6
    assert "going on after" in notes[0]
    assert_tagged_as_on_one_machine(source, target, tagger)


def test_the_command_line_tags_on_a_cluster_and_ctrl_c_ends_it(
    cluster: LocalCluster, forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    source, target = write_parts(tmp_path, 8, 3000)
    args = ("tag", f"{source}/*.csv", "-o", target, "--model", starter_folder)
    args = (*args, "--dask", cluster.scheduler_address)
    ran = start_forewarn(*args)
    journal = tmp_path / ".out.journal"
    until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
    os.kill(ran.pid, signal.SIGINT)
    _, told = ran.communicate(timeout=240)
    assert ran.returncode == 130, told
    assert "--resume" in told.splitlines()[-1]
    assert not target.exists()
    done = forewarn(*args, "--resume")
    assert done.rc == 0, done.stderr
    assert "24,000 rows tagged" in done.stderr
    assert len(list(target.iterdir())) == 8
    again = forewarn(*args)
    assert again.rc == 2
    assert again.stderr == f"forewarn: {target}: is there already; choose another folder\n"


# Training


def test_a_model_trained_on_a_cluster_that_loses_a_worker_is_the_same_model(
    cluster: LocalCluster, client: Client, starter_folder: Path, tmp_path: Path
) -> None:
    ran = start_forewarn(
        "train", STARTER, "-o", tmp_path / "model", "--dask", cluster.scheduler_address
    )
    before = client.run(os.getpid)
    until(lambda: any("fit" in key for keys in client.processing().values() for key in keys))
    busy = next(worker for worker, keys in client.processing().items() if keys)
    os.kill(before[busy], signal.SIGKILL)
    _, told = ran.communicate(timeout=240)
    assert ran.returncode == 0, told
    for name in ("weights.npy", "idf.npy", "bias.npy", "vocabulary.txt"):
        assert (tmp_path / "model" / name).read_bytes() == (starter_folder / name).read_bytes()


# What is refused


def test_a_scheduler_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, starter_model: Model, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.cluster.WAIT", 1)
    write_csv(tmp_path / "a.csv", ["synopsis"], [(GRIM,)])
    for address in ("tcp://127.0.0.1:9", "nonsense://somewhere"):
        with pytest.raises(ClusterError, match=f"{address}: no Dask scheduler answers"):
            tag_partitions(str(tmp_path), str(tmp_path / "out"), Tagger(starter_model), address)


def test_workers_of_another_version_and_none_at_all_are_refused(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "__version__", "9.9")
        with pytest.raises(ClusterError, match=r"its workers need Forewarn 9\.9, they have 0"):
            training_on(client).__enter__()
    monkeypatch.setattr("pipeline.cluster.WAIT", 1)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ClusterError, match="has no worker; start some with: dask worker"),
    ):
        training_on(empty.scheduler_address).__enter__()


def test_partitions_are_the_tables_of_a_folder_or_a_pattern(tmp_path: Path) -> None:
    for name in ("a.csv", "x=1/b.csv", "x=2/c.csv", "_SUCCESS", ".hidden.csv", "_x/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(partitions(str(tmp_path))) == ["a.csv", "x=1/b.csv", "x=2/c.csv"]
    assert list(partitions(f"{tmp_path}/*.csv")) == ["a.csv"]
    assert list(partitions(f"{tmp_path}/x=*/*.csv")) == ["x=1/b.csv", "x=2/c.csv"]
    assert partitions(f"{tmp_path}/x=1") == {"b.csv": tmp_path / "x=1" / "b.csv"}
    for nothing in (f"{tmp_path}/y", f"{tmp_path}/*.parquet", f"{tmp_path}/a.csv"):
        with pytest.raises(TableError, match="no tables there"):
            partitions(nothing)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TableError, match=r"notes\.txt: unknown kind of table"):
        partitions(str(tmp_path))


@pytest.mark.parametrize(
    "options", [("--jobs", "2"), ("--format", "csv")], ids=lambda options: options[0]
)
def test_options_of_one_machine_are_refused(
    forewarn: Forewarn, tmp_path: Path, options: tuple[str, ...]
) -> None:
    ran = forewarn("tag", tmp_path, "-o", tmp_path / "out", "--dask", "tcp://h:1", *options)
    assert ran.rc == 2
    assert "--dask takes folders of files" in ran.stderr


def test_without_the_extra_its_install_is_told() -> None:
    code = "import sys; sys.modules['distributed'] = None; from pipeline.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "tag", "in", "-o", "out", "--dask", "tcp://h:1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 2
    assert "pip install 'forewarn[dask]'" in ran.stderr
