"""A synopsis as catalogues write it: cleaned, with its offsets kept, and judged fit to read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MIN_WORDS = 6
"""Fewer words than this say too little to suggest anything from."""


class Status(StrEnum):
    """Whether a synopsis can be read, and if not, why not."""

    OK = "ok"
    TOO_SHORT = "too-short"
    NOT_ENGLISH = "not-english"
    EMPTY = "empty"


@dataclass(frozen=True)
class CleanText:
    """Cleaned text that remembers where each of its characters came from.

    `starts[i]` and `ends[i]` delimit, in the text as given, what became character `i`.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the given text that became `text[start:end]`."""
        return self.starts[start], self.ends[end - 1]


def _space(match: re.Match[str]) -> str:
    at_edge = match.start() == 0 or match.end() == len(match.string)
    return "" if at_edge else " "


_INLINE = "a|abbr|b|big|cite|em|font|i|mark|s|small|span|strong|sub|sup|u|url|spoiler"


_APOSTROPHES = dict.fromkeys(map(ord, "‘’‛ʼ＇`´"), "'")


def _unescape(entity: str) -> str:
    from html import unescape

    return unescape(entity)


@lru_cache(maxsize=4096)
def _plain(cluster: str) -> str:
    normal = unicodedata.normalize("NFKC", cluster).translate(_APOSTROPHES)
    return "".join(_visible(character) for character in normal)


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category in {"Cc", "Cs", "Co", "Cn"} and not character.isspace() else character


@dataclass(frozen=True)
class _Step:
    """Replaces what `pattern` finds, in texts that `needed` does not rule out at a glance."""

    expression: str
    replacement: Callable[[re.Match[str]], str]
    needed: Callable[[str], bool]
    flags: int = 0

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled when a text first needs it: most never do."""
        return re.compile(self.expression, self.flags)


# No pattern can backtrack over more than it matched.
_STEPS = (
    _Step(r"&(?:amp;)+", lambda match: "&", lambda text: "&amp;" in text),
    _Step(
        r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});",
        lambda match: _unescape(match[0]),
        lambda text: "&" in text,
    ),
    _Step(
        rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>",
        lambda match: "",
        lambda text: "<" in text,
        re.IGNORECASE,
    ),
    _Step(
        r"</?[a-zA-Z][^<>]*>|<!--[^<>]*-->",
        lambda match: " ",
        lambda text: "<" in text,
    ),
    _Step(
        rf"\[/?(?:{_INLINE}|img|quote|list|center)(?:=[^\[\]]*)?\]",
        lambda match: "",
        lambda text: "[" in text,
        re.IGNORECASE,
    ),
    # A base character with its combining marks, or any character outside ASCII.
    _Step(
        r"[\x00-\x7f][\u0300-\u036f]+|[^\x00-\x7f][\u0300-\u036f]*|[\x00-\x08\x0e-\x1f\x7f]",
        lambda match: _plain(match[0]),
        lambda text: not (text.isascii() and text.isprintable()),
    ),
    _Step(
        r"[(\[]\s*(?:source|written\s+by|adapted\s+from|synopsis\s+(?:by|from)|summary\s+from"
        r"|translated\s+by|edited\s+by)\b[^()\[\]]{0,200}[)\]]",
        lambda match: " ",
        lambda text: "(" in text or "[" in text,
        re.IGNORECASE,
    ),
    _Step(
        r"(?:(?:(?<=[.!?\"'\n])|^)[\s~-]{0,20}\bsource\s?:\s*[^\n.!?]{1,40}\.?\s*)+\Z",
        lambda match: "",
        lambda text: "source" in text[-100:].casefold(),
        re.IGNORECASE,
    ),
    # No white space but ' ' is printable.
    _Step(
        r"[^\S ]\s*| \s+|\A\s+|\s+\Z",
        _space,
        lambda text: "  " in text or text[:1] == " " or text[-1:] == " " or not text.isprintable(),
    ),
)
_MAX_PASSES = 12


def clean(text: str) -> str:
    """`text` without markup, entities, source notes, odd Unicode and spare white space.

    Cleaning is idempotent. Compatibility characters become plain ones (Unicode NFKC), curly
    apostrophes straight, control and invisible characters spaces or nothing.
    """
    for _ in range(_MAX_PASSES):
        before = text
        for step in _STEPS:
            if step.needed(text):
                text = step.pattern.sub(step.replacement, text)
        if text == before:
            break
    return text


# No byte of UTF-8 is this one.
_PARTING = b"\xfe"
_PLAIN, _BRACKET, _CAUSE, _SPACE, _EDGE = range(5)


def _kind(byte: int) -> int:
    if byte == _PARTING[0]:
        return _EDGE
    if byte == 0x20:
        return _SPACE
    if chr(byte) == "(":
        return _BRACKET
    return _CAUSE if byte < 0x20 or byte >= 0x7F or chr(byte) in "&<[" else _PLAIN


_KINDS = bytes(map(_kind, range(256)))


# Frequent characters that cleaning leaves as they are, three bytes each.
_SETTLED_MARKS = tuple(mark.encode() for mark in "—–“”")

# What the steps that take source notes away need, at the least.
_SOURCE = re.compile(rb"source")
_NOTE = re.compile(rb"\(\s*(?:written|adapted|synopsis|summary|translated|edited)\b")


def clean_all(texts: Sequence[str]) -> list[str]:
    """`clean` of each text; those without a cause to clean are told from the rest all at once."""
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    data = b"".join([_PARTING, _PARTING.join(raw), _PARTING])
    for mark in _SETTLED_MARKS:
        data = data.replace(mark, b"---")
    kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
    space, wide = kinds == _SPACE, kinds >= _SPACE
    causes = [
        np.flatnonzero(kinds == _CAUSE),
        np.flatnonzero(space[:-1] & wide[1:]),
        np.flatnonzero(wide[:-1] & space[1:]) + 1,
    ]
    lower = data.lower()
    noted = [match.start() for match in _SOURCE.finditer(lower)]
    brackets = np.flatnonzero(kinds == _BRACKET).tolist()
    noted += [place for place in brackets if _NOTE.match(lower, place)]
    ends = np.cumsum(np.fromiter(map(len, raw), np.int64, len(raw)) + 1)
    rows = np.searchsorted(ends, np.concatenate([*causes, np.array(noted, np.int64)]))
    cleaned = list(texts)
    for row in np.unique(rows).tolist():
        quick = _clean_characters(texts[row])
        cleaned[row] = clean(texts[row]) if quick is None else quick
    return cleaned


_SOURCE_NOTE = _STEPS[6]
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_REFUSED = "&"


def _clean_characters(text: str) -> str | None:
    """`clean(text)` where single characters and white space are all that there is to mend."""
    plain = text if text.isascii() else _FOREIGN.sub(lambda match: _settled(match[0]), text)
    spaced = plain
    if "  " in plain or plain[:1] == " " or plain[-1:] == " " or not plain.isprintable():
        spaced = " ".join(plain.split())
        if not spaced.isprintable():
            return None
    if "&" in spaced or "<" in spaced or "[" in spaced:
        return None
    if "(" in spaced and (spaced is not plain or _has_source_note(spaced)):
        return None
    return None if "source" in spaced[-100:].casefold() else spaced


@lru_cache(maxsize=20_000)
def _settled(character: str) -> str:
    """What `clean` leaves of a character without regard to its neighbours, or `_REFUSED`.

    A combining mark, and a character that becomes one, is refused.
    """
    plain = _plain(character)
    stable = all(_plain(c) == c and not "\u0300" <= c <= "\u036f" for c in plain)
    return plain if stable and not "\u0300" <= character <= "\u036f" else _REFUSED


def _has_source_note(text: str) -> bool:
    place = text.find("(")
    while place >= 0 and not _SOURCE_NOTE.pattern.match(text, place):
        place = text.find("(", place + 1)
    return place >= 0


def clean_with_offsets(text: str) -> CleanText:
    """As `clean`, keeping for each character the span of `text` that it came from."""
    result = CleanText(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    for _ in range(_MAX_PASSES):
        before = result.text
        for step in _STEPS:
            if step.needed(result.text):
                result = _rewrite(result, step)
        if result.text == before:
            break
    return result


def _rewrite(source: CleanText, step: _Step) -> CleanText:
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0
    for match in step.pattern.finditer(source.text):
        begin, stop = match.span()
        new = step.replacement(match)
        if begin == stop or new == match[0]:
            continue
        pieces += (source.text[position:begin], new)
        starts += source.starts[position:begin]
        ends += source.ends[position:begin]
        starts += [source.starts[begin]] * len(new)
        ends += [source.ends[stop - 1]] * len(new)
        position = stop
    if not pieces:
        return source
    pieces.append(source.text[position:])
    starts += source.starts[position:]
    ends += source.ends[position:]
    return CleanText("".join(pieces), tuple(starts), tuple(ends))


# Function words that make up a fifth or more of any English blurb (43,000 of them: at least 17 %)
# and that other languages in Latin script share few of.
_FUNCTION_WORDS = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "in",
        "a",
        "is",
        "that",
        "for",
        "it",
        "with",
        "as",
        "was",
        "on",
        "are",
        "by",
        "be",
        "at",
        "from",
        "his",
        "her",
        "he",
        "she",
        "they",
        "their",
        "this",
        "have",
        "has",
        "had",
        "who",
        "not",
        "but",
        "or",
        "an",
        "when",
        "what",
        "which",
        "one",
        "all",
        "there",
        "you",
        "been",
        "will",
        "more",
        "if",
        "out",
        "so",
        "up",
        "into",
        "them",
        "only",
        "can",
        "than",
        "its",
        "him",
        "about",
        "after",
        "before",
        "i",
        "my",
        "me",
        "we",
        "our",
        "your",
        "no",
        "do",
        "does",
        "did",
        "some",
        "would",
        "could",
        "must",
        "where",
        "while",
        "how",
        "then",
        "now",
        "over",
        "just",
        "even",
        "between",
        "through",
        "during",
        "against",
        "until",
        "because",
        "each",
        "both",
        "being",
        "these",
        "those",
        "were",
        "also",
        "very",
        "too",
        "yet",
        "still",
        "once",
        "nobody",
        "nothing",
        "never",
        "every",
        "any",
        "himself",
        "herself",
    ]
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_ENGLISH_SHARE = 0.2


class Counts(NamedTuple):
    """Words and function words of a lower-case text, and its Latin letters less the others."""

    words: int
    function_words: int
    latin_surplus: int


def count(lowered: str) -> Counts:
    """Count the words of a lower-case text; the counts of its parts, cut between words, add up."""
    words = _WORD.findall(lowered)
    letters = "".join(words)
    latin = len(letters) if letters.isascii() else sum(c < "\u0250" for c in letters)
    function_words = sum(map(_FUNCTION_WORDS.__contains__, words))
    return Counts(len(words), function_words, 2 * latin - len(letters))


def count_each(words: list[str]) -> npt.NDArray[np.float64]:
    """(3, words) `count` of each of many words in lower case."""
    counts = [
        (1, word in _FUNCTION_WORDS, len(word))
        if word.isascii() and word.isalpha()
        else count(word)
        for word in words
    ]
    return np.array(counts, np.float64).reshape(-1, len(Counts._fields)).T


def status(cleaned: str) -> Status:
    """Whether a cleaned synopsis can be read: not empty, in English, and long enough."""
    return statuses([cleaned])[0]


def statuses(cleaned: Sequence[str]) -> list[Status]:
    """`status` of each cleaned synopsis."""
    found = [_status_by_counts(text) for text in cleaned]
    doubtful = [row for row, state in enumerate(found) if state is None]
    if doubtful:
        # Loaded for the doubtful few alone.
        from pipeline.language import are_english

        for row, english in zip(
            doubtful, are_english(cleaned[row] for row in doubtful), strict=True
        ):
            found[row] = Status.OK if english else Status.NOT_ENGLISH
    return [state for state in found if state]


def _status_by_counts(cleaned: str) -> Status | None:
    """The status of a synopsis; None if its counts leave its language in doubt."""
    counts = count(cleaned.lower())
    if not counts.words:
        return Status.EMPTY
    if counts.latin_surplus < 0:
        return Status.NOT_ENGLISH
    if counts.words < MIN_WORDS:
        return Status.TOO_SHORT
    return Status.OK if counts.function_words / counts.words >= _ENGLISH_SHARE else None


def clearly_english(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(n,) whether the counts alone, (3, n) as in `Counts`, make a text `Status.OK`."""
    words, function_words, latin_surplus = counts
    share = function_words / np.maximum(words, 1)
    return np.asarray((words >= MIN_WORDS) & (latin_surplus >= 0) & (share >= _ENGLISH_SHARE))


_SENTENCE_END = re.compile(r"(?<=[.!?…\"”])\s+(?=[A-Z\"“'(])")


def excerpts(documents: Sequence[str], random: np.random.Generator) -> list[str]:
    """One or two runs of one to three sentences of each document that has several sentences.

    Every other one keeps the title. Runs of fewer than `MIN_WORDS` words are left out.
    """
    found = []
    for document in documents:
        title, _, synopsis = document.partition("\n")
        sentences = _SENTENCE_END.split(synopsis)
        for _ in range(min(len(sentences) - 1, 4) // 2 + (len(sentences) == 2)):
            size = int(random.integers(1, min(4, len(sentences))))
            first = int(random.integers(0, len(sentences) - size + 1))
            run = " ".join(sentences[first : first + size])
            if len(run.split()) >= MIN_WORDS:
                found.append(f"{title if random.random() < 0.5 else ''}\n{run}")
    return found
