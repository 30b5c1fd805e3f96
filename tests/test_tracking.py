"""Run records in MLflow, where it is installed; tested on a store in local files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline import tracking
from pipeline.errors import RecordError
from pipeline.record import RunRecord, read_record


@pytest.fixture(scope="module")
def record(starter_folder: Path) -> RunRecord:
    return read_record(starter_folder / "run.json")


def test_parameters_are_flat_short_text(record: RunRecord) -> None:
    told = tracking.parameters(record)
    assert told["seed"] == "0"
    assert told["data.rows"] == "769"
    assert told["data.files.starter.csv"] == record.data["files"]["starter.csv"]
    assert told["environment.libraries.numpy"]
    assert all(len(value) <= 500 for value in told.values())


def test_metrics_are_numbers_by_profile_and_tag(record: RunRecord) -> None:
    told = tracking.metrics(record)
    assert told["strict/micro_f1"] == record.metrics["strict"]["micro_f1"]
    assert told["tag/murder/support"] > 0
    assert all(isinstance(value, float) for value in told.values())


def train(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`forewarn train` on a few rows, with an environment of its own."""
    places = ("harbour", "valley", "palace", "forest", "station", "island", "desert", "market")
    people = ("sailor", "widow", "baker", "singer", "judge", "nurse", "farmer", "tailor")
    rows = "".join(
        f"{place} at War,Soldiers burn the {place} while one {person} hides in it.,war\n"
        f"{person} at Rest,Every spring this {person} paints the old {place} in blue.,\n"
        for place, person in zip(places, people, strict=True)
    )
    (tmp_path / "few.csv").write_text(f"title,synopsis,tags\n{rows}")
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "train", str(tmp_path / "few.csv"), "-o",
         str(tmp_path / "model"), "--jobs", "1", "--min-positives", "2"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        check=False,
    )  # fmt: skip


def test_without_a_store_nothing_is_said(tmp_path: Path) -> None:
    ran = train(tmp_path, MLFLOW_TRACKING_URI="")
    assert ran.returncode == 0, ran.stderr
    assert "MLflow" not in ran.stderr + ran.stdout


def test_a_store_without_mlflow_is_a_note_and_the_model_stays(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.STORE, tmp_path.as_uri())
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert tracking.configured()
    with pytest.raises(RecordError, match=r"pip install 'forewarn\[mlflow\]'"):
        tracking.track(record, tmp_path)


def test_a_run_goes_to_a_local_store(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs forewarn[mlflow]")
    store = (tmp_path / "store").as_uri()
    # MLflow asks to be told that files, its older kind of store, are meant.
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_ALLOW_FILE_STORE": "true"}
    ran = train(tmp_path, **env)
    assert ran.returncode == 0, ran.stderr
    assert "not logged" not in ran.stderr
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("forewarn")
    (run,) = client.search_runs([experiment.experiment_id])
    kept = json.loads((tmp_path / "model" / "run.json").read_text())
    assert run.info.run_name == "model"
    assert run.info.status == "FINISHED"
    assert run.data.params["min_positives"] == "2"
    assert run.data.params["data.files.few.csv"] == kept["data"]["files"]["few.csv"]
    assert run.data.metrics["balanced/micro_f1"] == kept["metrics"]["balanced"]["micro_f1"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "run.json",
        "README.md",
    }


def test_a_store_that_fails_does_not_cost_the_model(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs forewarn[mlflow]")
    ran = train(tmp_path, MLFLOW_TRACKING_URI="nonsense://x")
    assert ran.returncode == 0
    assert (tmp_path / "model" / "config.json").is_file()
    assert "note: not logged to MLflow (nonsense://x)" in ran.stderr
    assert "Traceback" not in ran.stderr
