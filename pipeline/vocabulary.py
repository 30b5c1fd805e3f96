"""A vocabulary: the names of a model's features, and the columns of some without an index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

_LOOKS = 2
"""So often a vocabulary is looked through before all of it is indexed: enough for one synopsis."""
_BITS = 16
_EIGHT = 8


class Vocabulary(Sequence[str]):
    """Feature names in column order, kept as lines of UTF-8 until they are asked for.

    Equal to any sequence of the same names. `lines` are the names, each with a line feed behind it.

    Raises:
        UnicodeDecodeError: the lines are not UTF-8.
    """

    def __init__(self, lines: bytes) -> None:
        lines.decode()
        # What has no line feed behind it is no name.
        self.lines = lines[: lines.rfind(b"\n") + 1]
        self._looks = 0

    @classmethod
    def of(cls, names: Sequence[str]) -> Vocabulary:
        """A vocabulary of some names; itself if they are one. No name has a line break."""
        if isinstance(names, Vocabulary):
            return names
        return cls("".join(f"{name}\n" for name in names).encode())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self.lines.decode().split("\n")[:-1])

    @cached_property
    def columns(self) -> dict[str, int]:
        """The column of each name."""
        return dict(zip(self.names, range(len(self)), strict=True))

    def __len__(self) -> int:
        return self.lines.count(b"\n")

    @overload
    def __getitem__(self, column: int) -> str: ...
    @overload
    def __getitem__(self, column: slice) -> tuple[str, ...]: ...
    def __getitem__(self, column: int | slice) -> str | tuple[str, ...]:
        return self.names[column]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.names == tuple(other)

    def __hash__(self) -> int:
        return hash(self.names)

    def find(self, names: Iterable[str]) -> dict[str, int]:
        """The columns of those names that are in the vocabulary.

        An index of all takes ten times as long as one look through the lines, which is what a
        process that reads one synopsis needs.
        """
        if self._looks < _LOOKS:
            self._looks += 1
            return self._look_for(set(names))
        columns = self.columns
        return {name: columns[name] for name in names if name in columns}

    def _look_for(self, names: set[str]) -> dict[str, int]:
        wanted = {name.encode(): name for name in names}
        starts, ends, marks = _marked(self.lines)
        sought = np.zeros(1 << _BITS, bool)
        sought[_marked(b"".join(name + b"\n" for name in wanted))[2]] = True
        found = {}
        for column in np.flatnonzero(sought[marks]).tolist():
            line = self.lines[starts[column] : ends[column]]
            if line in wanted:
                found[wanted[line]] = column
        return found


def _marked(
    lines: bytes,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """(lines,) where each line starts and ends, and a number that is equal for equal lines.

    It is made of the first and the last eight bytes: few lines have the same.
    """
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    padded = b"\n" * _EIGHT + lines + b"\n" * _EIGHT
    eight = np.ndarray(len(lines) + _EIGHT + 1, "<u8", padded, strides=(1,))
    missing = np.uint64(8) * np.maximum(_EIGHT - (ends - starts), 0).astype(np.uint64)
    some = missing < 64
    shift = np.where(some, missing, np.uint64(0))
    first = np.where(some, eight[starts + _EIGHT] << shift, np.uint64(0))
    last = np.where(some, eight[ends] >> shift, np.uint64(0))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + last
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return starts, ends, mixed >> np.uint64(64 - _BITS)
