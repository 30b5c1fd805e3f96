"""Tagging and training on a Dask cluster: an extra, `pip install 'forewarn[dask]'`."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import joblib
from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, as_completed, get_worker
from distributed.comm import resolve_address

import pipeline
from pipeline import artefact, table
from pipeline.draft import FolderDraft, open_folder_draft
from pipeline.errors import ClusterError, ForewarnError, TableError
from pipeline.table import Columns
from pipeline.tagging import Recipe, Tagger, model_folder, tag_table, terms_of

WAIT = 20
"""Seconds to wait for the scheduler, and again for it to have a worker."""
_ATTEMPTS = ".attempts"
_MAGIC = frozenset("*?[")


def tag_partitions(
    source: str,
    target: str,
    tagger: Tagger,
    scheduler: str | Client,
    columns: Columns | None = None,
    read: Callable[[int], None] = lambda _: None,
    resume: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> int:
    """Tag a folder of tables on a Dask cluster; returns the number of rows.

    Each file is tagged as `tag_table` does it, by one worker at a time, and counts when it is
    whole: a worker that dies takes its unfinished file with it, and another begins that anew. So
    no row is lost and none doubled. The model is sent to the workers; the tables are not: all
    workers must see the folders under the same paths, and have the same version of Forewarn.

    Args:
        source: a folder of tables, or a pattern such as 'titles/*.parquet' ('**' for folders
            below). Names that begin with '.' or '_' are passed over.
        target: the folder to be made, with a file for each under the same name. It appears whole.
        tagger: the model and what to add.
        scheduler: the scheduler's address, such as 'tcp://10.0.0.1:8786', or a client of it.
        columns: names of the synopsis and title columns.
        read: told the size in bytes of each file that is finished.
        resume: keep the files that an interrupted run of the same model and options finished.
        note: told what becomes of what such a run left.

    Raises:
        ClusterError: the scheduler or its workers cannot be used.
        TableError: there are no tables, one of them cannot be tagged, or see `open_folder_draft`.
    """
    sources = partitions(source)
    columns = columns or Columns()
    with model_folder(tagger.model) as folder, connect(scheduler) as client:
        recipe = Recipe.of(tagger, folder)
        with (
            open_folder_draft(target, terms_of(recipe, columns), resume, note) as draft,
            _model_on_workers(client, folder) as plugin,
        ):
            _forget_changed(draft, sources)
            if draft.finished:
                note(f"{target}: going on after {len(draft.finished):,} files")
            (draft.folder / _ATTEMPTS).mkdir(exist_ok=True)
            futures = {}
            for name, path in sources.items():
                if name in draft.finished:
                    read(path.stat().st_size)
                    continue
                args = (str(path), str(draft.folder.absolute()), name, plugin, recipe, columns)
                key = f"forewarn-{uuid.uuid4().hex}"
                futures[client.submit(_tag_part, *args, key=key)] = name
            try:
                for future in as_completed(futures, loop=client.loop):
                    name = futures[future]
                    draft.finish(name, _result(future, name))
                    read(sources[name].stat().st_size)
            finally:
                client.cancel(list(futures), force=True)
            shutil.rmtree(draft.folder / _ATTEMPTS, ignore_errors=True)
            return sum(mark["rows"] for mark in draft.finished.values())


class _LastingClient(Client):  # type: ignore[misc]
    """A client whose data outlive the workers that have it: the scheduler can hand it out again.

    Plainly scattered data is lost with its worker, and joblib's run with it.
    """

    async def scatter(self, data: Any, **_: Any) -> Future:
        """A future of the data, as joblib asks for it."""
        return self.submit(_itself, data, pure=False)


def _itself(data: Any) -> Any:
    return data


@contextmanager
def training_on(scheduler: str | Client) -> Iterator[None]:
    """Within the block, `training.train` fits its tags on a Dask cluster, through joblib.

    What a worker that dies was fitting is fitted by another one.

    Raises:
        ClusterError: the scheduler or its workers cannot be used, or all went away.
    """
    address = scheduler.scheduler.address if isinstance(scheduler, Client) else scheduler
    with (
        connect(address, _LastingClient) as client,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}),
        joblib.parallel_config("dask", client=client),
    ):
        try:
            yield
        except (CancelledError, KilledWorker, OSError) as error:
            raise ClusterError(
                f"{address}: its workers went away with their data; run it again"
            ) from error


def partitions(source: str) -> dict[str, Path]:
    """The tables of a folder or of a pattern, by their names below it, in order.

    Raises:
        TableError: there are none, or one is of an unknown kind.
    """
    fixed, pattern = Path(source), "**/*"
    if _MAGIC & set(source):
        while _MAGIC & set(str(fixed)):
            fixed = fixed.parent
        pattern = str(Path(source).relative_to(fixed))
    found = fixed.glob(pattern) if fixed.is_dir() else ()
    names = {str(path.relative_to(fixed)): path.absolute() for path in found if path.is_file()}
    tables = {
        name: names[name]
        for name in sorted(names)
        if not any(part.startswith((".", "_")) for part in Path(name).parts)
    }
    if not tables:
        raise TableError(f"{source}: no tables there; name a folder of them, or a pattern")
    for path in tables.values():
        table.format_of(str(path))
    return tables


@contextmanager
def connect(scheduler: str | Client, kind: type[Client] = Client) -> Iterator[Client]:
    """A client of a scheduler that has a worker of this version.

    Raises:
        ClusterError: there is no scheduler, no worker, or one of another version.
    """
    client = scheduler if isinstance(scheduler, Client) else _client(scheduler, kind)
    try:
        _check_workers(client)
        yield client
    finally:
        if client is not scheduler:
            client.close()


def _client(scheduler: str, kind: type[Client]) -> Client:
    try:
        resolve_address(scheduler)
        return kind(scheduler, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(f"{scheduler}: no Dask scheduler answers there") from error


def _check_workers(client: Client) -> None:
    address = client.scheduler.address
    try:
        if not client.ncores():
            # An adaptive cluster starts a worker when there is something to do.
            client.submit(_version, pure=False).result(WAIT)
        found = set(client.run(_version).values())
    except TimeoutError as error:
        raise ClusterError(f"{address}: has no worker; start some with: dask worker") from error
    except (ImportError, AttributeError) as error:
        found = {f"none ({error})"}
    if found != {pipeline.__version__}:
        raise ClusterError(
            f"{address}: its workers need Forewarn {pipeline.__version__}, they have "
            f"{', '.join(sorted(found))}"
        )


def _version() -> str:
    return pipeline.__version__


class _ModelFiles(WorkerPlugin):  # type: ignore[misc]
    """The files of a model, which each worker writes to its disk as it joins."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name, self._files = name, files
        self.folder = Path()

    def setup(self, worker: Worker) -> None:
        """Write the files."""
        self.folder = Path(tempfile.mkdtemp(prefix="forewarn-", dir=worker.local_directory))
        for name, data in self._files.items():
            (self.folder / name).write_bytes(data)

    def teardown(self, worker: Worker) -> None:
        """Remove them."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _model_on_workers(client: Client, folder: Path) -> Iterator[str]:
    """The name of a plugin by which every worker, those to come too, has the model."""
    name = f"forewarn-{uuid.uuid4().hex}"
    files = {path.name: path.read_bytes() for path in artefact.model_files(folder)}
    client.register_plugin(_ModelFiles(name, files), name=name)
    try:
        yield name
    finally:
        client.unregister_worker_plugin(name)


def _tag_part(
    source: str, folder: str, name: str, plugin: str, recipe: Recipe, columns: Columns
) -> dict[str, Any]:
    """Tag one file on a worker; its output appears whole, however often this is tried."""
    files = get_worker().plugins[plugin]
    tagger = replace(recipe, folder=files.folder).tagger()
    attempt = Path(folder) / _ATTEMPTS / uuid.uuid4().hex
    attempt.mkdir()
    try:
        mark = table.fingerprint(source)
        made, target = attempt / Path(name).name, Path(folder) / name
        rows = tag_table(source, str(made), tagger, columns)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return {"rows": rows, "source": mark}


def _result(future: Future, name: str) -> dict[str, Any]:
    try:
        return dict(future.result())
    except ForewarnError:
        raise
    except KilledWorker as error:
        raise ClusterError(
            f"{name}: several workers died over it, perhaps for want of memory; "
            "make the file smaller or the workers larger"
        ) from error
    except (CancelledError, OSError) as error:
        raise ClusterError(f"{name}: was not finished ({error}); is the cluster up?") from error


def _forget_changed(draft: FolderDraft, sources: dict[str, Path]) -> None:
    """Drop what was finished of files that changed or are gone by now."""
    for name, mark in list(draft.finished.items()):
        made = draft.folder / name
        there = name in sources and made.is_file()
        if not there or mark["source"] != table.fingerprint(str(sources[name])):
            made.unlink(missing_ok=True)
            del draft.finished[name]
