"""The taxonomy: which tags there are, what they mean, and which tag implies which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import release
from pipeline.errors import TaxonomyError

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_REQUIRED = ("id", "label", "group", "definition")
_TEXTS = ("id", "label", "group", "definition", "exclude", "origin", "example")
_LISTS = ("broader", "aliases")


@dataclass(frozen=True)
class Tag:
    """One content warning.

    `broader` names the tags that this one implies; `aliases` are catalogues' spellings of it.
    """

    id: str
    label: str
    group: str
    definition: str
    broader: tuple[str, ...] = ()
    exclude: str = ""
    aliases: tuple[str, ...] = ()
    origin: str = ""
    example: str = ""


@dataclass(frozen=True)
class Contrast:
    """How two tags that people confuse differ."""

    tags: tuple[str, str]
    text: str


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of tags; the order is the column order of every label matrix."""

    tags: tuple[Tag, ...]
    contrasts: tuple[Contrast, ...] = field(default=())

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Tag ids in column order."""
        return tuple(tag.id for tag in self.tags)

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each tag id."""
        return {tag_id: column for column, tag_id in enumerate(self.ids)}

    @cached_property
    def groups(self) -> dict[str, tuple[Tag, ...]]:
        """Tags by group, groups in order of first appearance."""
        groups: dict[str, list[Tag]] = {}
        for tag in self.tags:
            groups.setdefault(tag.group, []).append(tag)
        return {name: tuple(tags) for name, tags in groups.items()}

    @cached_property
    def _names(self) -> dict[str, str]:
        return {
            spelling(name): tag.id
            for tag in self.tags
            for name in (*tag.aliases, tag.label, tag.id)
        }

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, tag_id: str) -> Tag:
        return self.tags[self.index[tag_id]]

    def resolve(self, name: str) -> str | None:
        """The id of the tag with this id, label or alias, in any case and spelling; else None."""
        wanted = spelling(name)
        if "*" not in wanted:
            return self._names.get(wanted)
        # Some catalogues hide a letter of a word behind an asterisk.
        pattern = re.compile(re.escape(wanted).replace(r"\*", "."))
        return next((tag for known, tag in self._names.items() if pattern.fullmatch(known)), None)

    def ancestors(self, tag_id: str) -> tuple[str, ...]:
        """All tags that `tag_id` implies, nearest first, itself excluded."""
        found: list[str] = []
        queue = list(self[tag_id].broader)
        while queue:
            parent = queue.pop(0)
            if parent not in found:
                found.append(parent)
                queue.extend(self[parent].broader)
        return tuple(found)

    def narrower(self, tag_id: str) -> tuple[str, ...]:
        """The tags directly below `tag_id`, in column order."""
        return tuple(tag.id for tag in self.tags if tag_id in tag.broader)

    def closure(self, tag_ids: Iterable[str]) -> set[str]:
        """`tag_ids` and everything that they imply."""
        closed = set(tag_ids)
        for tag_id in tuple(closed):
            closed.update(self.ancestors(tag_id))
        return closed

    def implications(self, tag_ids: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """(narrow, broad) columns of a matrix whose columns are `tag_ids`, narrowest first."""
        column = {tag_id: place for place, tag_id in enumerate(tag_ids)}
        return tuple(
            (column[tag_id], column[broad])
            for tag_id in sorted(tag_ids, key=lambda tag_id: -len(self.ancestors(tag_id)))
            for broad in self.ancestors(tag_id)
            if broad in column
        )

    def contrast(self, first: str, second: str) -> str | None:
        """The text on how two tags differ, in either order, or None where none is written."""
        for contrast in self.contrasts:
            if set(contrast.tags) == {first, second}:
                return contrast.text
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back: the snapshot that a model carries."""
        return {
            "tag": [asdict(tag) for tag in self.tags],
            "versus": [asdict(contrast) for contrast in self.contrasts],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "taxonomy") -> Taxonomy:
        """Build and check a taxonomy from parsed TOML or JSON.

        Raises:
            TaxonomyError: a field is missing or of the wrong type, an id or alias is used
                twice, a broader tag is unknown, or tags imply one another in a circle.
        """
        entries = data.get("tag")
        if not isinstance(entries, list) or not entries:
            raise TaxonomyError(f"{source}: no [[tag]] tables; write at least one")
        if not isinstance(data.get("versus", []), list):
            raise TaxonomyError(f"{source}: write versus as [[versus]] tables")
        taxonomy = cls(
            tags=tuple(_read_tag(entry, n, source) for n, entry in enumerate(entries, 1)),
            contrasts=tuple(_read_contrast(entry, source) for entry in data.get("versus", [])),
        )
        _check(taxonomy, source)
        return taxonomy


def spelling(name: str) -> str:
    """`name` as aliases are compared: case-folded; spaces, '-' and '_' alike.

    >>> spelling("Self_Harm") == spelling("self harm")
    True
    """
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def load_taxonomy(path: str | Path | None = None) -> Taxonomy:
    """Read a taxonomy from a TOML file; the shipped one where no path is given.

    Raises:
        TaxonomyError: the file cannot be read, is not TOML, or contradicts itself.
    """
    import tomllib

    file = Path(path) if path is not None else release.taxonomy_path()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaxonomyError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TaxonomyError(f"{file}: not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise TaxonomyError(f"{file}: not valid TOML: {error}") from error
    return Taxonomy.from_dict(data, str(file))


def _read_tag(entry: object, number: int, source: str) -> Tag:
    if not isinstance(entry, dict):
        raise TaxonomyError(f"{source}: tag {number} is not a table; write it as [[tag]]")
    name = entry.get("id") or f"number {number}"
    for key in _REQUIRED:
        if not entry.get(key):
            raise TaxonomyError(f"{source}: tag {name} has no {key}; add one")
    for key in entry:
        if key not in _TEXTS + _LISTS:
            raise TaxonomyError(
                f"{source}: tag {name} has an unknown field {key!r}; "
                f"known ones are {', '.join(_TEXTS + _LISTS)}"
            )
    for key in _TEXTS:
        if not isinstance(entry.get(key, ""), str):
            raise TaxonomyError(f"{source}: tag {name}: {key} must be a text in quotes")
    for key in _LISTS:
        value = entry.get(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise TaxonomyError(f"{source}: tag {name}: {key} must be a list of texts")
    if not _ID.fullmatch(entry["id"]):
        raise TaxonomyError(
            f"{source}: tag id {entry['id']!r} must be lower-case letters, digits and '-'"
        )
    values: dict[str, Any] = {key: entry.get(key, "") for key in _TEXTS}
    values |= {key: tuple(entry.get(key, ())) for key in _LISTS}
    return Tag(**values)


def _read_contrast(entry: object, source: str) -> Contrast:
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise TaxonomyError(f"{source}: each [[versus]] needs tags = [a, b] and a text")
    pair = entry.get("tags")
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise TaxonomyError(f"{source}: each [[versus]] needs exactly two tags, not {pair!r}")
    return Contrast((str(pair[0]), str(pair[1])), entry["text"])


def _check(taxonomy: Taxonomy, source: str) -> None:
    owners: dict[str, str] = {}
    for tag in taxonomy.tags:
        if tag.id in owners.values():
            raise TaxonomyError(f"{source}: tag id {tag.id!r} is used twice; rename one")
        for name in {spelling(name) for name in (tag.id, tag.label, *tag.aliases)}:
            if name in owners:
                raise TaxonomyError(
                    f"{source}: alias {name!r} belongs to both {owners[name]} and {tag.id}; "
                    "remove one"
                )
            owners[name] = tag.id
    for tag in taxonomy.tags:
        for parent in tag.broader:
            if parent not in taxonomy.index:
                raise TaxonomyError(
                    f"{source}: tag {tag.id}: broader tag {parent!r} is unknown; "
                    "add a [[tag]] for it or correct the id"
                )
    for tag in taxonomy.tags:
        if tag.id in taxonomy.ancestors(tag.id):
            raise TaxonomyError(f"{source}: tag {tag.id} is broader than itself; break the circle")
    for contrast in taxonomy.contrasts:
        for tag_id in contrast.tags:
            if tag_id not in taxonomy.index:
                raise TaxonomyError(f"{source}: [[versus]] names an unknown tag {tag_id!r}")
