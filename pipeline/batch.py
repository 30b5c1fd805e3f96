"""A batch: many documents at once, their words as numbers in arrays.

What a feature is, `features.py` says; this module finds the same ones without a loop over words.
All words of a batch are one stream. A word form is stemmed once and known by a number from then
on, and so is a pair of them. Documents with letters whose lower case depends on their neighbours
are left to `features.analyze`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from threading import Lock
from typing import overload

import numpy as np
import numpy.typing as npt

from pipeline.features import NEGATED, REACH, TURNS, analyze, negates, stem
from pipeline.synopsis import Counts, Status, clearly_english, count_each, statuses
from pipeline.vocabulary import Vocabulary

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint64]

# No byte of UTF-8 is one of these.
_PARTING, _ODD = b"\xfe", b"\xff"
_NEUTRAL, _LETTER, _JOINER, _MARK, _STRANGE = range(5)
"""Kinds of bytes. A joiner between two letters is part of their word, as in `features`."""
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_MAX_FORMS = 150_000
_MAX_BYTES = 1 << 23
"""With so many forms, or bytes of them, a fresh table is begun, so that memory stays flat."""
_NONE = -1
_SLOT_BITS = 9
_SHORT = 16
_FEED, _SPACE = b"\n "
_PAIR = 2
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""Masks of the first bytes of a word of 64 bits, by how many."""


def _kind(byte: int) -> int:
    if byte == _ODD[0]:
        return _STRANGE
    if byte == _PARTING[0]:
        return _NEUTRAL
    if byte >= 0x80 or chr(byte).isalnum():
        return _LETTER
    return _JOINER if chr(byte) in "'*" else _MARK if chr(byte) in ".,;:!?" else _NEUTRAL


_KINDS = bytes(map(_kind, range(256)))


def _folded(text: str) -> bytes:
    """A text in which every byte outside ASCII is part of a letter or digit in lower case.

    Other characters outside ASCII are spaces. `_ODD` stands for one whose lower case is more
    than a letter, or depends on its neighbours.
    """
    if text.isascii():
        return text.encode()
    return _FOREIGN.sub(lambda match: _fold(match[0]), text).encode("utf-8", "surrogateescape")


@lru_cache(maxsize=20_000)
def _fold(character: str) -> str:
    if not character.isalnum():
        return " "
    lower = character.lower()
    simple = len(lower) == 1 and lower.isalnum() and character != "Σ"
    return lower if simple else _ODD.decode("utf-8", "surrogateescape")


class Pairs:
    """Numbers of pairs of 64-bit keys: a hash table with open addressing in arrays.

    See Knuth 1998, "The Art of Computer Programming", vol. 3, section 6.4.
    """

    def __init__(self) -> None:
        self._count = 0
        self._lay_out(1 << 12)

    def _lay_out(self, size: int) -> None:
        self._first, self._second = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self._number = np.full(size, _NONE, np.int32)
        self._shift = np.uint64(64 - (size.bit_length() - 1))

    def add(self, first: KeyArray, second: KeyArray, numbers: npt.NDArray[np.int32]) -> None:
        """Number pairs that are all different and not in the table, from 0 on."""
        self._count += len(first)
        if 4 * self._count > len(self._number):
            held = np.flatnonzero(self._number != _NONE)
            first = np.concatenate([self._first[held], first])
            second = np.concatenate([self._second[held], second])
            numbers = np.concatenate([self._number[held], numbers])
            self._lay_out(1 << (4 * self._count).bit_length())
        slots = self._slots(first, second)
        while len(slots):
            free = np.flatnonzero(self._number[slots] == _NONE)
            placed = free[np.unique(slots[free], return_index=True)[1]]
            self._first[slots[placed]] = first[placed]
            self._second[slots[placed]] = second[placed]
            self._number[slots[placed]] = numbers[placed]
            left = np.delete(np.arange(len(slots)), placed)
            first, second, numbers = first[left], second[left], numbers[left]
            slots = (slots[left] + 1) & (len(self._number) - 1)

    def find(self, first: KeyArray, second: KeyArray) -> npt.NDArray[np.int32]:
        """The number of each pair; `_NONE` where it has none."""
        slots = self._slots(first, second)
        numbers, searched = self._look(slots, first, second)
        while len(searched):
            slots[searched] = (slots[searched] + 1) & (len(self._number) - 1)
            numbers[searched], on = self._look(slots[searched], first[searched], second[searched])
            searched = searched[on]
        return numbers

    def _look(
        self, slots: IntArray, first: KeyArray, second: KeyArray
    ) -> tuple[npt.NDArray[np.int32], IntArray]:
        """The numbers in the slots, and the places whose slot is taken by another pair."""
        # All slots are in range; 'clip' saves looking.
        numbers = self._number.take(slots, mode="clip")
        other = self._first.take(slots, mode="clip")
        other ^= first
        differs = self._second.take(slots, mode="clip")
        differs ^= second
        other |= differs
        return numbers, np.flatnonzero((other != 0) & (numbers != _NONE))

    def _slots(self, first: KeyArray, second: KeyArray) -> IntArray:
        # Multiplication spreads a key over the upper bits; the shift brings them down again.
        mixed = first * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
        mixed += second
        mixed *= np.uint64(0xD6E8FEB86659FD93)
        return (mixed >> self._shift).view(np.int64)


class Numbering:
    """Numbers of byte strings without NUL, from 0 on, in the order in which they are met.

    A string is given by where it is in a text that has `_SHORT` more bytes at its end. Those of up
    to so many bytes are known by them as two numbers, longer ones by a dictionary.
    """

    def __init__(self) -> None:
        self._short = Pairs()
        self._long: dict[bytes, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, text: bytes, starts: IntArray, stops: IntArray) -> npt.NDArray[np.int32]:
        """The number of each string; `_NONE` where it has none."""
        first, second, long = self._keys(text, starts, stops)
        found = self._short.find(first, second)
        found[long] = [self._long.get(string, _NONE) for string in _cut(text, starts, stops, long)]
        return found

    def learn(
        self, text: bytes, starts: IntArray, stops: IntArray
    ) -> tuple[npt.NDArray[np.int32], list[bytes]]:
        """The number of each string, and those strings that got theirs just now, in order."""
        first, second, long = self._keys(text, starts, stops)
        found = self._short.find(first, second)
        found[long] = _NONE
        rest = np.flatnonzero(found == _NONE)
        strings = _cut(text, starts, stops, rest)
        new = list(dict.fromkeys(s for s in strings if len(s) <= _SHORT or s not in self._long))
        self._add(new)
        short = stops[rest] - starts[rest] <= _SHORT
        found[rest[short]] = self._short.find(first[rest[short]], second[rest[short]])
        found[rest[~short]] = [self._long[string] for string in strings if len(string) > _SHORT]
        return found, new

    def _add(self, new: list[bytes]) -> None:
        short = [n for n, string in enumerate(new) if len(string) <= _SHORT]
        padded = b"".join([new[n].ljust(_SHORT, b"\0") for n in short])
        keys = np.frombuffer(padded, "<u8").reshape(-1, 2)
        numbers = np.array(short, np.int32) + np.int32(self._count)
        self._short.add(keys[:, 0], keys[:, 1], numbers)
        self._long |= {s: n for n, s in enumerate(new, self._count) if len(s) > _SHORT}
        self._count += len(new)

    def _keys(
        self, text: bytes, starts: IntArray, stops: IntArray
    ) -> tuple[KeyArray, KeyArray, IntArray]:
        """(strings,) their first and second eight bytes, and which ones are longer than that."""
        lengths = stops - starts
        eight = np.ndarray(len(text) - 7, "<u8", text, strides=(1,))
        first = eight[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]
        second = np.zeros(len(starts), np.uint64)
        longer = np.flatnonzero(lengths > 8)
        second[longer] = (
            eight[starts[longer] + 8] & _FIRST_BYTES[np.minimum(lengths[longer], 16) - 8]
        )
        return first, second, longer[lengths[longer] > _SHORT]


def _cut(text: bytes, starts: IntArray, stops: IntArray, chosen: IntArray) -> list[bytes]:
    places = zip(starts[chosen].tolist(), stops[chosen].tolist(), strict=True)
    return [text[start:stop] for start, stop in places]


class Forms:
    """The word forms met so far, each with what no neighbour can change: a table that grows.

    Attributes:
        stems: the stem of each form.
        counts: (3, forms) what it adds to the `Counts` of a text.
        negates: (forms,) whether it denies the words after it.
        turns: (forms,) whether it ends what a negator denies.
    """

    def __init__(self) -> None:
        self.stems: list[str] = []
        self.counts = np.zeros((len(Counts._fields), 0))
        self.negates = self.turns = np.zeros(0, bool)
        self._numbering = Numbering()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether so many forms are known that a fresh table should be begun."""
        return len(self.stems) > _MAX_FORMS or self._bytes > _MAX_BYTES

    def numbers(self, text: bytes, starts: IntArray, stops: IntArray) -> npt.NDArray[np.int32]:
        """The number of each word of a text, given where it is; unknown forms are learnt.

        The text ends with 16 bytes that are in no word.
        """
        found, new = self._numbering.learn(text, starts, stops)
        if new:
            words = [form.decode() for form in new]
            self.stems += stem(words, often=False)
            self.counts = np.concatenate([self.counts, count_each(words)], axis=1)
            self.negates = np.append(self.negates, [negates(word) for word in words])
            self.turns = np.append(self.turns, [word in TURNS for word in words])
            self._bytes += sum(map(len, new))
        return found


_forms = Forms()
_learning = Lock()
"""Held while a thread looks forms up and learns some."""


def _numbered(
    text: bytes, starts: IntArray, stops: IntArray
) -> tuple[Forms, npt.NDArray[np.int32]]:
    """The table of forms that batches share, and the numbers of the words of a text in it.

    A fresh table is begun when it has grown too large, and when learning was interrupted.
    """
    global _forms  # noqa: PLW0603 (a cache)
    with _learning:
        if _forms.full:
            _forms = Forms()
        try:
            return _forms, _forms.numbers(text, starts, stops)
        except BaseException:
            _forms = Forms()
            raise


@dataclass(frozen=True)
class Words:
    """The words of a batch in the order of the text.

    Attributes:
        forms: the table that numbers them.
        form: (words,) number of each word.
        field: (words,) which field it is in: twice the row, and one more in a synopsis.
        place: (words,) where it begins in the batch.
        marks: (marks,) where punctuation marks stand in the batch, rising.
        odd: rows that only `features.analyze` can read; they have words here all the same.
    """

    forms: Forms
    form: npt.NDArray[np.int32]
    field: IntArray
    place: IntArray
    marks: IntArray
    odd: frozenset[int]

    @classmethod
    def of(cls, fields: Sequence[str]) -> Words:
        """Read fields: the title and the synopsis of each row in turn."""
        folded = list(map(_folded, fields))
        ends = np.cumsum(np.fromiter(map(len, folded), np.int64, len(folded)) + 1)
        data = b"".join([_PARTING, _PARTING.join(folded), _PARTING * (1 + _SHORT)])
        kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
        inside = kinds == _LETTER
        joiners = np.flatnonzero(kinds == _JOINER)
        inside[joiners[inside[joiners - 1] & inside[joiners + 1]]] = True
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        starts, stops = edges[0::2], edges[1::2]
        forms, form = _numbered(data.lower(), starts, stops)
        first = np.searchsorted(starts, ends)
        strange = np.flatnonzero(kinds == _STRANGE)
        return cls(
            forms=forms,
            form=form,
            field=np.repeat(np.arange(len(fields)), np.diff(first, prepend=0)),
            place=starts,
            marks=np.flatnonzero(kinds == _MARK),
            odd=frozenset((np.searchsorted(ends, strange) // 2).tolist()),
        )

    def select(self, rows: IntArray, count: int) -> Words:
        """The words of some rows, rising, of a batch of `count`."""
        position = np.full(count, -1)
        position[rows] = np.arange(len(rows))
        kept = position[self.field >> 1] >= 0
        return replace(
            self,
            form=self.form[kept],
            field=2 * position[self.field[kept] >> 1] + (self.field[kept] & 1),
            place=self.place[kept],
            odd=frozenset(position[sorted(self.odd)].tolist()) - {-1},
        )

    @cached_property
    def denied(self) -> IntArray:
        """The words that a negator denies, as `features` defines it."""
        negators = np.flatnonzero(self.forms.negates[self.form])
        ended = np.zeros(len(negators), bool)
        marks = np.searchsorted(self.marks, self.place[negators])
        reached = []
        for step in range(1, REACH + 1):
            word = np.minimum(negators + step, len(self.form) - 1)
            ended |= (
                (negators + step > word)
                | (self.field[word] != self.field[negators])
                | (np.searchsorted(self.marks, self.place[word]) != marks)
                | self.forms.turns[self.form[word]]
            )
            reached.append(word[~ended])
        return np.concatenate(reached)


@dataclass(frozen=True)
class Batch(Sequence[str]):
    """Cleaned documents, a sequence of them as strings, that keeps their words once read.

    `titles` and `synopses` are cleaned texts, `read` their words where they are known.
    """

    titles: Sequence[str]
    synopses: Sequence[str]
    read: Words | None = None

    @classmethod
    def of(cls, documents: Sequence[str]) -> Batch:
        """A batch of documents (title, newline, synopsis); itself if they are one already."""
        if isinstance(documents, Batch):
            return documents
        parts = [document.partition("\n") for document in documents]
        return cls([part[0] for part in parts], [part[2] for part in parts])

    def __len__(self) -> int:
        return len(self.titles)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        return f"{self.titles[row]}\n{self.synopses[row]}"

    @cached_property
    def words(self) -> Words:
        """The words of all documents."""
        if self.read:
            return self.read
        return Words.of(
            [text for row in zip(self.titles, self.synopses, strict=True) for text in row]
        )

    def select(self, rows: IntArray) -> Batch:
        """The documents of some rows, rising; their words need not be read again."""
        if len(rows) == len(self):
            return self
        titles, synopses = ([texts[row] for row in rows] for texts in (self.titles, self.synopses))
        return Batch(titles, synopses, self.words.select(rows, len(self)))

    def statuses(self) -> list[Status]:
        """The status of each synopsis, as `synopsis.status` gives it."""
        words = self.words
        counts = [
            np.bincount(words.field, column[words.form], 2 * len(self))[1::2]
            for column in words.forms.counts
        ]
        clear = clearly_english(np.array(counts))
        clear[list(words.odd)] = False
        found = [Status.OK] * len(self)
        rest = np.flatnonzero(~clear).tolist()
        for row, state in zip(rest, statuses([self.synopses[row] for row in rest]), strict=True):
            found[row] = state
        return found


class FeatureTable:
    """Where the words and pairs of a vocabulary have their columns, by number.

    An atom is a stem, denied or not, that is a word of the vocabulary or half of one of its
    pairs.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._atoms = Numbering()
        text = vocabulary.lines + bytes(_SHORT)
        view = np.frombuffer(vocabulary.lines, np.uint8)
        stops = np.flatnonzero(view == _FEED)
        starts = np.append(0, stops + 1)[:-1]
        spaces = np.flatnonzero(view == _SPACE)
        lines = np.searchsorted(stops, spaces)
        parts = np.bincount(lines, minlength=len(stops)) + 1
        words, pairs = np.flatnonzero(parts == 1), np.flatnonzero(parts == _PAIR)
        between = spaces[parts[lines] == _PAIR]
        atom = self._atoms.learn(text, starts[words], stops[words])[0]
        first = self._atoms.learn(text, starts[pairs], between)[0].astype(np.uint64)
        second = self._atoms.learn(text, between + 1, stops[pairs])[0].astype(np.uint64)
        # The last is that of `_NONE`.
        self._word_column = np.full(len(self._atoms) + 1, _NONE, np.int32)
        self._word_column[atom] = words
        self._pairs = Pairs()
        self._pairs.add(first, second, pairs.astype(np.int32))
        # (forms, 2) atoms of each form as it is, and denied.
        self._known: tuple[Forms | None, npt.NDArray[np.int32]] = None, np.zeros((0, 2), np.int32)

    def rows(self, batch: Batch) -> tuple[IntArray, npt.NDArray[np.int32]]:
        """The batch's known features, as the index arrays of a sparse matrix of its documents.

        Returns:
            (rows + 1,) where each row begins, and (features,) the columns in it, each once.
        """
        words = batch.words
        atom = self._atoms_of(words)
        same_field = words.field[1:] == words.field[:-1]
        known = atom != _NONE
        paired = np.flatnonzero(same_field & known[1:] & known[:-1])
        # A word and the pair that it begins are side by side, so the rows are in order.
        found = np.full((len(atom), 2), _NONE, np.int32)
        found[:, 0] = self._word_column[atom]
        keys = atom.astype(np.uint64)
        found[paired, 1] = self._pairs.find(keys[paired], keys[paired + 1])
        place = np.flatnonzero(found.ravel() != _NONE)
        row, column = (words.field >> 1)[place >> 1], found.ravel()[place]
        if words.odd:
            row, column = self._with_odd(batch, row, column)
        kept = _first_of_each(row, column, len(batch))
        starts = np.searchsorted(row[kept], np.arange(len(batch) + 1))
        return starts, column[kept]

    def _with_odd(
        self, batch: Batch, row: IntArray, column: npt.NDArray[np.int32]
    ) -> tuple[IntArray, npt.NDArray[np.int32]]:
        """(features,) rows and columns with those of odd rows as `features.analyze` has them."""
        odd = sorted(batch.words.odd)
        others = ~np.isin(row, odd)
        rows, columns = [row[others]], [column[others]]
        columns_of = self._vocabulary.columns
        for place in odd:
            read = [columns_of[name] for name in analyze(batch[place]) if name in columns_of]
            rows.append(np.full(len(read), place))
            columns.append(np.array(read, np.int32))
        row, column = np.concatenate(rows), np.concatenate(columns)
        order = np.argsort(row, kind="stable")
        return row[order], column[order]

    def _atoms_of(self, words: Words) -> npt.NDArray[np.int32]:
        """(words,) atom of each word, denied ones as such."""
        forms, known = self._known
        if forms is not words.forms:
            known = known[:0]
        new = [name.encode() for name in words.forms.stems[len(known) :]]
        if new:
            denied = [NEGATED.encode() + name for name in new]
            learnt = [self._find(names) for names in (new, denied)]
            known = np.concatenate([known, np.array(learnt).T])
        # In one step, for other threads.
        self._known = words.forms, known
        atom: npt.NDArray[np.int32] = known[words.form, 0]
        atom[words.denied] = known[words.form[words.denied], 1]
        return atom

    def _find(self, atoms: list[bytes]) -> npt.NDArray[np.int32]:
        stops = np.cumsum(np.fromiter(map(len, atoms), np.int64, len(atoms)))
        starts = np.append(0, stops)[:-1]
        return self._atoms.find(b"".join(atoms) + bytes(_SHORT), starts, stops)


def _first_of_each(row: IntArray, column: npt.NDArray[np.int32], rows: int) -> IntArray:
    """Rising places with every different (row, column) once; quicker than sorting them all.

    Each row has a few hundred slots. Of the places that share one, the last writes itself down,
    and those of the same column give way to it. What is left is sorted.
    """
    slots = row << _SLOT_BITS
    slots += (column.view(np.uint32) * np.uint32(0x9E3779B9)) >> np.uint32(32 - _SLOT_BITS)
    holder = np.empty(rows << _SLOT_BITS, np.int32)
    places = np.arange(len(row), dtype=np.int32)
    holder[slots] = places
    held = holder[slots]
    kept = held == places
    lost = np.flatnonzero(~kept)
    other = lost[(column[held[lost]] != column[lost])]
    kept[other[np.unique(row[other] << 32 | column[other], return_index=True)[1]]] = True
    return np.flatnonzero(kept)
