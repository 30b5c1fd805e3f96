"""Which corpus the notebooks read: one that ships, or a real one whose text is never shown."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.corpus import Corpus, read_corpus
from pipeline.taxonomy import Taxonomy

DATA = Path("..") / "data"
"""What ships: invented texts, free to show."""
REAL = Path(os.environ["FOREWARN_CORPUS"]) if os.environ.get("FOREWARN_CORPUS") else None
"""The folder of a real corpus, or None: its figures may be shown, its texts may not."""


def read(taxonomy: Taxonomy, *invented: str) -> Corpus:
    """The annotated rows of the real corpus, or where there is none, these files of `data/`."""
    files = [REAL / "annotated.jsonl.gz"] if REAL else [DATA / name for name in invented]
    return read_corpus(files, taxonomy)


def shown(text: str) -> str:
    """A title, synopsis or phrase of `read`'s corpus as a notebook may print it."""
    return f"[{len(text.split())} words of a catalogue, not shown]" if REAL else text
