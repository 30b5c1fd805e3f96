"""Results come in the order of their items, from processes that never outlive their purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Forewarn, start_forewarn, until
from test_tagging import AFFAIR, GRIM, MILD, ROWS

from pipeline.artefact import load_model, save_model
from pipeline.draft import draft_paths
from pipeline.errors import ForewarnError, InterruptedRunError, ModelError
from pipeline.model import Model
from pipeline.tagging import Tagger, cores, tag_table
from pipeline.workers import in_order


def slow_first(item: int) -> int:
    time.sleep(0.3 if item == 0 else 0)
    return item * item


def choke(item: int) -> int:
    if item == 3:
        raise ModelError("a task that cannot be done")
    return item


def die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def surroundings(_: int) -> tuple[int, str]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def children(parent: int | None = None) -> list[psutil.Process]:
    """Processes of this one, or of another, that do tasks."""
    found = psutil.Process(parent).children(recursive=True)
    return [process for process in found if "spawn_main" in " ".join(process.cmdline())]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(jobs: int) -> None:
    assert list(in_order(slow_first, range(20), jobs)) == [n * n for n in range(20)]
    assert list(in_order(slow_first, [], jobs)) == []
    assert children() == []


def test_items_are_read_only_a_few_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    results = in_order(slow_first, items(), 2)
    assert [next(results) for _ in range(10)] == [n * n for n in range(10)]
    assert len(taken) < 20
    results.close()
    assert children() == []


def test_the_work_is_done_elsewhere_and_in_one_thread_each() -> None:
    found = set(in_order(surroundings, range(40), 2))
    assert 1 <= len(found) <= 2
    assert os.getpid() not in {process for process, _ in found}
    assert {threads for _, threads in found} == {"1"}


def test_what_a_task_raises_is_raised_here() -> None:
    results = in_order(choke, range(9), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ModelError, match="a task that cannot be done"):
        next(results)
    assert children() == []


def test_a_killed_worker_is_told_of() -> None:
    with pytest.raises(InterruptedRunError, match="a worker process was killed"):
        list(in_order(die, range(9), 2))
    assert children() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(number: signal.Signals) -> None:
    code = (
        "import time\nfrom pipeline.workers import in_order\n"
        "for _ in in_order(time.sleep, [0, 0, 60, 60, 60], 2): print('begun', flush=True)"
    )
    ran = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert ran.stdout
    assert ran.stdout.readline() == "begun\n"
    family = psutil.Process(ran.pid).children(recursive=True)
    assert len(family) >= 2
    os.kill(ran.pid, number)
    ran.communicate(timeout=240)
    _, left = psutil.wait_procs(family, timeout=240)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


# Tables


@pytest.mark.slow
@pytest.mark.parametrize("model", ["default", "accurate", "auto"])
def test_several_processes_write_what_one_does(tmp_path: Path, model: str) -> None:
    if model != "default":
        pytest.importorskip("onnxruntime", reason="needs forewarn[neural]")
    source = tmp_path / "in.csv"
    pyarrow.csv.write_csv(pa.table({"synopsis": ROWS * 2, "n": range(len(ROWS) * 2)}), source)
    outputs = []
    for jobs in (1, 2):
        target = tmp_path / f"out{jobs}.csv"
        tagger = Tagger(load_model(model), scores=True, evidence=model != "accurate")
        assert tag_table(str(source), str(target), tagger, chunk=4, jobs=jobs) == len(ROWS) * 2
        outputs.append(target.read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_several_processes_write_every_format_as_one_does(
    starter_model: Model, tmp_path: Path, ending: str
) -> None:
    source = tmp_path / f"in{ending}"
    with pa.output_stream(source) as sink:
        if ending == ".parquet":
            pq.write_table(pa.table({"synopsis": ROWS * 3}), sink)
        elif ending.startswith(".jsonl"):
            sink.write("".join(f'{{"synopsis": "{row}"}}\n' for row in ROWS * 3).encode())
        else:
            mark = "\t" if "tsv" in ending else ","
            sink.write("".join(f'"{row}"{mark}x\n' for row in ["synopsis", *ROWS * 3]).encode())
    outputs, told = [], []
    for jobs in (1, 2):
        target, read = tmp_path / f"out{jobs}{ending}", []
        tagger = Tagger(starter_model, scores=True)
        tag_table(str(source), str(target), tagger, chunk=4, jobs=jobs, read=read.append)
        outputs.append(target.read_bytes())
        told.append(sum(read))
    assert outputs[0] == outputs[1]
    assert told == [source.stat().st_size] * 2


@pytest.mark.slow
def test_a_model_that_was_never_saved_is_shared_too(starter_model: Model, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    pyarrow.csv.write_csv(pa.table({"synopsis": [GRIM, AFFAIR, MILD]}), source)
    for name, model in (("a", starter_model), ("b", replace(starter_model, folder=None))):
        tagger = Tagger(model, scores=True)
        tag_table(str(source), str(tmp_path / f"{name}.csv"), tagger, chunk=1, jobs=2)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_one_process_uses_the_model_that_it_has(
    monkeypatch: pytest.MonkeyPatch, starter_model: Model, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("synopsis\nshort\n")
    tagger = Tagger(starter_model)
    monkeypatch.setattr("pipeline.artefact.load_model", None)
    assert tag_table(str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), tagger) == 1


@pytest.mark.slow
def test_a_model_replaced_during_a_run_is_noticed(starter_model: Model, tmp_path: Path) -> None:
    save_model(starter_model, tmp_path / "model")
    source = tmp_path / "in.csv"
    source.write_text("synopsis\n" + "short\n" * 9)
    held = load_model(tmp_path / "model")
    other = replace(starter_model, bias=starter_model.bias + 1)

    def swap(_: int) -> None:
        save_model(other, tmp_path / "model")

    with pytest.raises(ForewarnError, match="was replaced during the run"):
        tag_table(str(source), str(tmp_path / "o.csv"), Tagger(held), chunk=2, jobs=2, read=swap)
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.slow
def test_a_run_that_lost_a_worker_says_so_and_goes_on(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    pyarrow.csv.write_csv(pa.table({"synopsis": [GRIM, AFFAIR, MILD] * 13_000}), source)
    args = ("tag", source, "-o", target, "--model", starter_folder, "--jobs", "2")
    ran = start_forewarn(*args)
    part, _ = draft_paths(target)
    until(lambda: part.exists() and part.stat().st_size > 1_500_000)
    os.kill(children(ran.pid)[0].pid, signal.SIGKILL)
    _, told = ran.communicate(timeout=240)
    assert ran.returncode == 2
    (line,) = told.splitlines()
    assert line.startswith("forewarn: a worker process was killed, perhaps for want of memory")
    assert "--resume" in line
    assert not target.exists()
    resumed = forewarn(*args, "--resume")
    assert resumed.rc == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    assert "39,000 rows tagged" in resumed.stderr


def test_jobs_are_a_number_of_processes_or_all_cores(forewarn: Forewarn, tmp_path: Path) -> None:
    assert cores() >= 1
    (tmp_path / "in.csv").write_text(f'synopsis\n"{GRIM}"\n')
    for jobs, code in (("-1", 0), ("0", 2), ("-2", 2)):
        ran = forewarn("tag", "in.csv", "-o", "out.csv", "--jobs", jobs, cwd=tmp_path)
        assert ran.rc == code, ran.stderr
