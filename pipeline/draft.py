"""Output that is kept beside its target until it is whole, and from which a run can go on."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import ForewarnError, InterruptedRunError, TableError

try:
    import fcntl
except ImportError:  # Windows: two runs with one target are not told apart there.
    fcntl = None  # type: ignore[assignment]

Terms = dict[str, Any]
"""What a run and its continuation must have in common: plain data for JSON, by name."""
_PAUSE, _SHARE = 0.1, 20
"""A checkpoint waits this many seconds, and this many times as long as the last one took."""
_BLOCK = 1 << 20
_KEPT = "what is finished is kept: run it again with --resume to go on"


@contextmanager
def open_target(target: str, pack: bool = True, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary stream whose content appears at `target` when the block ends well, else never.

    Standard output is filled when the block ends, from a temporary file. What goes to a name in
    `.gz` is packed, unless `pack` is false: then it is packed already. `scratch` names the
    temporary file of a run that no other can disturb, so that its continuation finds it.
    """
    if target == "-":
        with tempfile.TemporaryFile() as spool:
            yield cast(IO[bytes], spool)
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout.buffer, _BLOCK)
            sys.stdout.buffer.flush()
        return
    path = _checked(target)
    with _write_errors(target):
        mode = _mode(path)
        if scratch is None:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
            os.close(handle)
            scratch = Path(name)
        scratch.unlink(missing_ok=True)
        scratch.touch(0o600)
        try:
            with scratch.open("wb") as raw:
                if pack and target.lower().endswith(".gz"):
                    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                        yield cast(IO[bytes], packed)
                else:
                    yield raw
                _sync(raw)
            scratch.chmod(mode)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


class Draft:
    """The finished part of an output and, where its run can be continued, its journal.

    The part is `.NAME.part` beside the target NAME. The journal `.NAME.journal` has the terms of
    the run on its first line, and on each further one a place in the source and the length of the
    part up to there. Bytes are on the disk before the line that counts them is.

    Attributes:
        place: what `append` was last told, in this run or the one that it continues, or None.
        length: bytes of the part up to there.
        kept: the place of the last checkpoint, where a continuation begins, or None.
        whole: whether the interrupted run had published its output already.
    """

    def __init__(
        self,
        target: str,
        part: IO[bytes],
        journal: IO[bytes] | None = None,
        place: Any = None,
        length: int = 0,
        whole: bool = False,
    ) -> None:
        self._target, self._part, self._journal = target, part, journal
        self._settled = (place, length)
        self.kept, self.whole = place, whole
        self._due = time.monotonic() + _PAUSE

    @property
    def place(self) -> Any:  # noqa: D102 (above)
        return self._settled[0]

    @property
    def length(self) -> int:  # noqa: D102 (above)
        return self._settled[1]

    def append(self, data: bytes, place: Any) -> None:
        """Add bytes to the part; `place` (plain data for JSON) says what they go up to."""
        with _write_errors(self._target):
            self._part.write(data)
        # Both at once: Ctrl-C may come between any two steps.
        self._settled = (place, self.length + len(data))
        if time.monotonic() >= self._due:
            self.checkpoint()

    def checkpoint(self, done: bool = False) -> None:
        """Bring the part to the disk, and then a line that says so."""
        if self._journal is None or (self.place == self.kept and not done):
            return
        begun = time.monotonic()
        with _write_errors(self._target):
            _sync(self._part)
            line = {"length": self.length, "place": self.place, "done": done}
            self._journal.write(json.dumps(line).encode() + b"\n")
            _sync(self._journal)
        self.kept = self.place
        now = time.monotonic()
        self._due = now + max(_PAUSE, _SHARE * (now - begun))

    def publish(self, assemble: Callable[[IO[bytes], IO[bytes]], None] | None = None) -> None:
        """Make the target of the part: as it is, or as `assemble(part, sink)` writes it."""
        if self.whole:
            return
        self.checkpoint(done=True)
        if self._journal is None or assemble:
            self._part.seek(0)
            scratch = None
            if self._journal is not None:
                path = Path(self._target)
                scratch = path.with_name(f".{path.name}.whole")
            with open_target(self._target, assemble is not None, scratch) as sink:
                (assemble or shutil.copyfileobj)(self._part, sink)
            return
        path = Path(self._target)
        with _write_errors(self._target):
            self._part.close()
            part, _ = draft_paths(path)
            part.chmod(_mode(path))
            part.replace(path)


def draft_paths(target: Path) -> tuple[Path, Path]:
    """Where the finished part of a target and its journal are kept."""
    return target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.journal")


@contextmanager
def open_draft(
    target: str,
    terms: Terms | None = None,
    resume: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Draft]:
    """A draft of `target`, which stays as it is until `Draft.publish`.

    Args:
        target: a path, or '-' for standard output.
        terms: what a continuation must have in common with this run; None if there can be none.
        resume: begin with what an interrupted run of the same terms left, if one did.
        note: told what becomes of such leftovers.

    When the block is interrupted (Ctrl-C, no space, a killed worker), the finished part is kept,
    and a note on the exception says so. When the input is at fault, nothing is kept.

    Raises:
        TableError: the target cannot be written, another run is writing it, or what an
            interrupted run left is of other terms.
    """
    path = None if target == "-" else _checked(target)
    if path is None or terms is None:
        with _write_errors(target):
            spool = tempfile.TemporaryFile(dir=path and path.parent)  # noqa: SIM115
        with spool:
            yield Draft(target, cast(IO[bytes], spool))
        return
    with _write_errors(target):
        journal = _locked(draft_paths(path)[1], target)
    with journal:
        draft = _begin(path, journal, terms, resume, note)
        try:
            yield draft
        except BaseException as error:
            kept = _keep(draft, error)
            with suppress(OSError):
                draft._part.close()
            if not kept:
                _remove(*draft_paths(path))
            raise
        draft._part.close()
        _remove(*draft_paths(path))


class FolderDraft:
    """The finished files of a folder that is not whole, and the journal that lists them.

    The files are in the hidden folder `.NAME.part` beside the target NAME; the journal is as
    that of a `Draft`, with a line a file.

    Attributes:
        folder: where the files are put, under their names in the target.
        finished: the mark of each file that is whole, by its name.
    """

    def __init__(self, folder: Path, journal: IO[bytes], finished: dict[str, Any]) -> None:
        self.folder, self._journal, self.finished = folder, journal, finished

    def finish(self, name: str, mark: Any) -> None:
        """Count a file as whole; `mark` (plain data for JSON) is what its continuation checks."""
        self._journal.write(json.dumps({"name": name, "mark": mark}).encode() + b"\n")
        _sync(self._journal)
        self.finished[name] = mark


@contextmanager
def open_folder_draft(
    target: str, terms: Terms, resume: bool = False, note: Callable[[str], None] = lambda _: None
) -> Iterator[FolderDraft]:
    """A draft of a folder, which becomes `target` when the block ends well; see `open_draft`.

    Whatever ends the block otherwise, the finished files are kept.

    Raises:
        TableError: as `open_draft`; also when there is something at the target.
    """
    path = Path(target)
    part_path, journal_path = draft_paths(path)
    with _write_errors(target):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise TableError(f"{target}: is there already; choose another folder")
        journal = _locked(journal_path, target)
    with journal:
        found = _read_journal(journal)
        if resume and found:
            _check_terms(path, found[0][0], json.loads(json.dumps(terms)))
            journal.truncate(found[-1][1])
        else:
            _say_replaced(path, found, note)
            with _write_errors(target):
                _write_terms(journal, terms)
                _remove(part_path)
                found = []
        with _write_errors(target):
            part_path.mkdir(exist_ok=True)
        finished = {line["name"]: line["mark"] for line, _ in found[1:]}
        draft = FolderDraft(part_path, journal, finished)
        try:
            yield draft
        except BaseException as error:
            if not draft.finished:
                _remove(*draft_paths(path))
            else:
                error.add_note(_KEPT)
            raise
        with _write_errors(target):
            part_path.replace(path)
        _remove(*draft_paths(path))


def _say_replaced(path: Path, found: list[tuple[Terms, int]], note: Callable[[str], None]) -> None:
    if len(found) > 1:
        note(f"{path}: what an interrupted run had finished is replaced (--resume continues it)")


def _begin(
    path: Path, journal: IO[bytes], terms: Terms, resume: bool, note: Callable[[str], None]
) -> Draft:
    """A draft that continues the run of a journal, or one that begins with nothing."""
    found = _read_journal(journal)
    if resume and found:
        _check_terms(path, found[0][0], json.loads(json.dumps(terms)))
    else:
        _say_replaced(path, found, note)
    with _write_errors(str(path)):
        part_path, _ = draft_paths(path)
        if resume and len(found) > 1:
            continued = _continued(path, journal, found)
            if continued:
                return continued
        _write_terms(journal, terms)
        # For the owner's eyes, as the target may be; it gets the target's rights in the end.
        _remove(part_path)
        part_path.touch(0o600)
        return Draft(str(path), part_path.open("r+b"), journal)


def _write_terms(journal: IO[bytes], terms: Terms) -> None:
    """Make a journal that of a run that begins."""
    journal.truncate(0)
    journal.write(json.dumps(terms).encode() + b"\n")
    _sync(journal)


def _continued(path: Path, journal: IO[bytes], found: list[tuple[Terms, int]]) -> Draft | None:
    """The draft up to the last line of a journal for which all bytes are there."""
    part_path, _ = draft_paths(path)
    size = part_path.stat().st_size if part_path.exists() else -1
    whole = size < 0 and found[-1][0]["done"]
    while len(found) > 1 and found[-1][0]["length"] > size and not whole:
        found.pop()
    if len(found) == 1:
        return None
    last, end = found[-1]
    journal.truncate(end)
    part = cast(IO[bytes], io.BytesIO()) if whole else part_path.open("r+b")
    part.truncate(last["length"])
    part.seek(last["length"])
    return Draft(str(path), part, journal, last["place"], last["length"], whole)


def _read_journal(journal: IO[bytes]) -> list[tuple[Terms, int]]:
    """The lines of a journal, each with its end in bytes; a line that was cut off is left out."""
    found: list[tuple[Terms, int]] = []
    end = journal.seek(0)
    for line in journal:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(entry, dict):
            break
        end += len(line)
        found.append((entry, end))
    return found


def _check_terms(path: Path, old: Terms, new: Terms) -> None:
    for name in {**new, **old}:
        if old.get(name) != new.get(name):
            raise TableError(
                f"{path}: cannot go on, the interrupted run had another {name}; "
                "run it without --resume to start afresh"
            )


def _keep(draft: Draft, error: BaseException) -> bool:
    """Whether what is finished is of use, after it was made safe and the exception says so."""
    if isinstance(error, ForewarnError) and not isinstance(error, InterruptedRunError):
        return False
    with suppress(TableError):
        draft.checkpoint()
    if draft.kept is None:
        return False
    error.add_note(_KEPT)
    return True


def _locked(journal: Path, target: str) -> IO[bytes]:
    """A journal opened for this run alone."""
    while True:
        file = journal.open("a+b")
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if journal.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except BlockingIOError:
            file.close()
            raise TableError(
                f"{target}: another run is writing it; wait for it or end it"
            ) from None
        except FileNotFoundError:
            pass
        # The run that held it ended meanwhile and took its journal away.
        file.close()


def _remove(*leftovers: Path) -> None:
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _checked(target: str) -> Path:
    path = Path(target)
    if path.is_dir():
        raise TableError(f"{target}: is a directory; name a file")
    return path


def _mode(path: Path) -> int:
    """The rights of an existing file, which stay, or the usual ones of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


@contextmanager
def _write_errors(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InterruptedRunError(
            f"{target}: cannot be written ({error.strerror or error})"
        ) from error
