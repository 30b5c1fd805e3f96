"""A vocabulary: names in order, and the columns of some of them, looked for or indexed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model import Model
from pipeline.vocabulary import Vocabulary

NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), max_size=20)
VOCABULARIES = st.lists(NAMES | st.sampled_from(["lamp", "lam", "old lamp", "¬lamp"]), unique=True)


@settings(deadline=None)
@given(VOCABULARIES, st.lists(NAMES))
def test_names_have_the_columns_of_their_places(names: list[str], others: list[str]) -> None:
    vocabulary = Vocabulary.of(names)
    expected = {name: names.index(name) for name in names}
    asked = {*names, *others}
    for _ in range(5):
        assert vocabulary.find(asked) == {n: c for n, c in expected.items() if n in asked}
    assert vocabulary.columns == expected


@settings(deadline=None)
@given(VOCABULARIES)
def test_it_is_a_sequence_of_its_names(names: list[str]) -> None:
    vocabulary = Vocabulary.of(names)
    assert vocabulary == tuple(names)
    assert tuple(names) == vocabulary
    assert len(vocabulary) == len(names)
    assert [vocabulary[place] for place in range(len(names))] == names
    assert vocabulary[:2] == tuple(names[:2])
    assert Vocabulary.of(vocabulary) is vocabulary
    assert hash(vocabulary) == hash(tuple(names))


def test_names_that_share_both_ends_are_told_apart() -> None:
    names = [f"12345678{middle}12345678" for middle in ("", "a", "b", "ab", "12345678")]
    vocabulary = Vocabulary.of(names)
    assert vocabulary.find(names[1:4]) == {names[1]: 1, names[2]: 2, names[3]: 3}


def test_every_feature_of_a_model_is_found(default_model: Model) -> None:
    names = tuple(default_model.vocabulary)
    part = names[::7]
    vocabulary = Vocabulary.of(names)
    assert vocabulary.find(part) == {name: 7 * place for place, name in enumerate(part)}


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        Vocabulary(b"lamp\nl\xe9on\n")
