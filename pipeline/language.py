"""Whether a text is in English, asked of py3langid.

py3langid unpacks its model in every process anew, which takes a third of a second and 80 MB. Here
that is done once: the arrays are kept in the user's cache folder, and mapped to memory from there.
"""

from __future__ import annotations

import mmap
import os
import shutil
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

Arrays = dict[str, npt.NDArray[Any]]

# 'pcm' is Nigerian Pidgin, for which lists of English names and titles are often taken.
_ENGLISH = frozenset({"en", "pcm"})
_ABANDONED = 600
"""Seconds after which a process that writes the folder is taken to have died."""
_NAMES = ("ptc", "pc", "classes", "nextmove", "row", "output")


def are_english(texts: Iterable[str]) -> list[bool]:
    """Whether py3langid takes each text for English, by its default model."""
    identifier = _identifier()
    found = [identifier.classify(text)[0] in _ENGLISH for text in texts]
    if hasattr(mmap, "MADV_DONTNEED"):
        # What was touched, some 50 MB in the end, need not count as this process's memory.
        for view in (identifier.nb_ptc.base, identifier.tk_nextmove.obj.base):
            if isinstance(view, mmap.mmap):
                view.madvise(mmap.MADV_DONTNEED)
    return found


def cache_folder() -> Path:
    """Where the unpacked model is kept; it may be deleted at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("forewarn", appauthor=False) / f"py3langid-{version('py3langid')}"


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import LanguageIdentifier

    folder = cache_folder()
    arrays = _mapped(folder)
    if arrays is None:
        arrays = _unpacked()
        _keep(arrays, folder)
    return LanguageIdentifier(
        arrays["ptc"],
        arrays["pc"],
        arrays["classes"].tolist(),
        # A view gives Python's numbers, one at a time, much faster than an array does.
        memoryview(arrays["nextmove"]),  # type: ignore[arg-type]
        memoryview(arrays["output"]),  # type: ignore[arg-type]
        tk_row=arrays["row"].tolist(),
    )


def _mapped(folder: Path) -> Arrays | None:
    """The arrays in a folder, mapped to memory; None if they are not all there and fit."""
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES}
        states, labels = len(arrays["row"]), len(arrays["classes"])
        rows = len(arrays["nextmove"]) // 256
        fit = (
            arrays["ptc"].shape == (arrays["output"].max() + 1, labels)
            and arrays["pc"].shape == (labels,)
            and arrays["output"].shape == (states,)
            and arrays["row"].max() < rows
        )
    except Exception:
        # Whatever is wrong with a file, the model is unpacked anew.
        return None
    return arrays if fit else None


def _unpacked() -> Arrays:
    from py3langid.langid import MODEL_DIR, MODEL_FILE
    from py3langid.modelio import load_model

    arrays = map(np.asarray, load_model(MODEL_DIR / MODEL_FILE))
    ptc, pc, classes, nextmove, row, output = arrays
    return dict(
        zip(_NAMES, (ptc, pc, classes, nextmove, row, output.astype(np.int32)), strict=True)
    )


def _keep(arrays: Arrays, folder: Path) -> None:
    """Write arrays to a folder that appears whole; where that cannot be, go without."""
    # The folder in which the arrays are made ready is also the lock: one process writes.
    workshop = folder.with_name(f".{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if workshop.exists() and time.time() - workshop.stat().st_mtime > _ABANDONED:
            shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir()
    except OSError:
        return
    try:
        ready = workshop / "ready"
        ready.mkdir()
        for name, array in arrays.items():
            with (ready / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists() and _mapped(folder) is None:
            folder.replace(workshop / "damaged")
        ready.replace(folder)
    except OSError:
        # The disk is full, or another process was faster.
        pass
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
