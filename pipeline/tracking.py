"""Run records sent to MLflow, where it is installed and MLFLOW_TRACKING_URI names a store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import RecordError
from pipeline.record import FILE, RunRecord

STORE = "MLFLOW_TRACKING_URI"
EXPERIMENT = "forewarn"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another."""
_LONGEST_VALUE = 500


def configured() -> bool:
    """Whether the environment names a store."""
    return bool(os.environ.get(STORE))


def track(record: RunRecord, folder: Path) -> str:
    """Log a run's parameters, metrics, record and model card; returns MLflow's id of the run.

    Raises:
        RecordError: MLflow is missing or its store refuses. The model is not touched.
    """
    # Forewarn sends nothing that nobody asked for; MLflow would report its use to its makers.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
    except ImportError as error:
        raise RecordError(
            f"{STORE} is set but MLflow is missing; install it with: pip install 'forewarn[mlflow]'"
        ) from error
    try:
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
            mlflow.set_experiment(EXPERIMENT)
        with mlflow.start_run(run_name=folder.resolve().name) as run:
            mlflow.log_params(parameters(record))
            mlflow.log_metrics(metrics(record))
            mlflow.set_tags(
                {"forewarn.version": record.environment["forewarn"], "started": record.started}
            )
            for name in (FILE, "README.md"):
                mlflow.log_artifact(str(folder / name))
            return str(run.info.run_id)
    # A store can fail in as many ways as there are stores.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"not logged to MLflow ({os.environ[STORE]}): {reason}") from error


def parameters(record: RunRecord) -> dict[str, str]:
    """Configuration, data and environment as flat text, each value short enough for MLflow."""
    nested = {
        "command": record.command,
        **record.configuration,
        "data": record.data,
        "environment": record.environment,
        "left_out": record.left_out,
    }
    return {name: str(value)[:_LONGEST_VALUE] for name, value in _flat(nested)}


def metrics(record: RunRecord) -> dict[str, float]:
    """Figures by profile, and by tag for the balanced profile: `balanced/micro_f1`,
    `tag/gore/f1`."""
    found = {"seconds": float(record.seconds)}
    for profile, score in record.metrics.items():
        found |= {
            f"{profile}/{name}": float(value)
            for name, value in score.items()
            if isinstance(value, int | float)
        }
    for tag in record.metrics["balanced"]["tags"]:
        for name in ("support", "precision", "recall", "f1", "average_precision"):
            found[f"tag/{tag['tag']}/{name}"] = float(tag[name])
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{_key(name)}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{_key(name)}", ";".join(map(str, value))
        else:
            yield f"{prefix}{_key(name)}", value


def _key(name: str) -> str:
    """A name in the letters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in str(name))[:200]
