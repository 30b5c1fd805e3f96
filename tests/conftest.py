"""What the tests share: the command line as a real process, and a model trained once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from pipeline.artefact import load_model
from pipeline.model import Model

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "data" / "starter.csv"


@dataclass(frozen=True)
class Ran:
    """What a process left: its exit code and what it wrote."""

    rc: int
    out: bytes
    err: bytes

    @property
    def stdout(self) -> str:
        return self.out.decode()

    @property
    def stderr(self) -> str:
        return self.err.decode()


Forewarn = Callable[..., Ran]


def run_forewarn(*args: object, stdin: bytes = b"", cwd: Path | None = None) -> Ran:
    """Run `forewarn ARGS` as a process of its own."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *map(os.fspath, args)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def start_forewarn(*args: object, stdin: int | None = None) -> subprocess.Popen[str]:
    """Start `forewarn ARGS` in a session of its own, as a terminal does; nobody waits for it."""
    return subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *map(os.fspath, args)],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        text=True,
    )


def until(happened: Callable[[], bool]) -> None:
    """Wait for something to happen, some minutes at most: a gate may be a busy machine."""
    deadline = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def beside(target: Path) -> list[str]:
    """Names of what is hidden in the folder of a target."""
    return sorted(path.name for path in target.parent.iterdir() if path.name.startswith("."))


@pytest.fixture(scope="session")
def forewarn() -> Forewarn:
    """A function that runs the command line: `forewarn("predict", "...", stdin=b"")`."""
    return run_forewarn


@pytest.fixture(scope="session")
def starter_training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """What `forewarn train data/starter.csv` printed, and the folder that it wrote.

    The report is beside the folder: report.html.
    """
    folder = tmp_path_factory.mktemp("starter") / "model"
    report = ("--report", folder.parent / "report.html") if find_spec("vl_convert") else ()
    return run_forewarn("train", STARTER, "-o", folder, "--jobs", "2", *report), folder


@pytest.fixture(scope="session")
def starter_folder(starter_training: tuple[Ran, Path]) -> Path:
    """The folder of the model trained on data/starter.csv."""
    ran, folder = starter_training
    assert ran.rc == 0, ran.stderr
    return folder


@pytest.fixture(scope="session")
def starter_model(starter_folder: Path) -> Model:
    """The model trained on data/starter.csv, loaded."""
    return load_model(starter_folder)


@pytest.fixture(scope="session")
def default_model() -> Model:
    """The model that ships with Forewarn."""
    return load_model("default")
