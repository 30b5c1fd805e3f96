"""Features of a document, and the words of the text that each stands for."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features import analyze, occurrences

WORDS = [
    *["the", "keepers", "burning", "lamp", "no", "never", "didn't", "without", "s*x", "m*rdered"],
    *[
        "don't",
        "o'clock",
        "1999",
        "Österreich",
        "İzmir",
        "灯台",
        "snake_case",
        "-",
        ",",
        ".",
        "*",
        "'",
    ],
]
line = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n")),
)

calm = settings(deadline=None)


def names(field):
    return [occurrence.name for occurrence in occurrences(field)]


def texts(field):
    return [[field[slice(*span)] for span in o.spans] for o in occurrences(field)]


class TestNames:
    @calm
    @given(line, line)
    def test_a_document_has_the_features_of_both_fields(self, title, synopsis):
        assert analyze(f"{title}\n{synopsis}") == names(title) + names(synopsis)

    def test_words_come_first_then_pairs(self):
        assert names("Old lamp burns") == ["old", "lamp", "burn", "old lamp", "lamp burn"]

    def test_endings_do_not_matter(self):
        assert analyze("\nkeeper waits") == analyze("\nkeepers waiting")

    def test_case_does_not_matter(self):
        assert analyze("LAMP\nOld Keeper") == analyze("lamp\nold keeper")

    def test_no_pair_spans_title_and_synopsis(self):
        assert analyze("Lamp\nKeeper") == ["lamp", "keeper"]

    @pytest.mark.parametrize("document", ["", "\n", "\n ... \n", "!\n?"])
    def test_no_words_give_no_features(self, document):
        assert analyze(document) == []

    def test_a_title_may_be_missing(self):
        assert analyze("\nold lamp") == ["old", "lamp", "old lamp"]

    @pytest.mark.parametrize(
        ("masked", "plain"),
        [("m*rder", "murder"), ("S*X", "sex"), ("sl*ve", "slave"), ("t*rture", "torture")],
    )
    def test_masked_words_count_as_plain_ones(self, masked, plain):
        assert names(f"a {masked} story") == names(f"a {plain} story")


class TestSpans:
    def test_words_and_pairs_point_at_their_words(self):
        assert texts("Old lamps, burning.") == [
            ["Old"],
            ["lamps"],
            ["burning"],
            ["Old", "lamps"],
            ["lamps", "burning"],
        ]

    def test_a_masked_word_points_at_its_mask(self):
        assert texts("a m*rder")[1] == ["m*rder"]

    def test_a_repeated_word_has_each_of_its_places(self):
        field = "lamp by lamp"
        assert [o.spans for o in occurrences(field) if o.name == "lamp"] == [((0, 4),), ((8, 12),)]

    @calm
    @given(line)
    def test_spans_hold_whole_words(self, field):
        for span in (span for o in occurrences(field) for span in o.spans):
            start, end = span
            assert 0 <= start < end <= len(field)
            assert re.fullmatch(r"[^\W_]+(?:['*][^\W_]+)*", field[start:end])
            assert not field[start - 1 : start].isalnum()
            assert not field[end : end + 1].isalnum()

    @calm
    @given(line)
    def test_a_word_alone_has_the_name_that_it_has_in_the_line(self, field):
        for occurrence in occurrences(field):
            if len(occurrence.spans) == 1:
                assert names(field[slice(*occurrence.spans[0])]) == [occurrence.name]

    @calm
    @given(line)
    def test_a_pair_is_made_of_neighbours(self, field):
        found = occurrences(field)
        words = [o.spans[0] for o in found if len(o.spans) == 1]
        pairs = [o.spans for o in found if len(o.spans) == 2]
        assert pairs == list(pairwise(words))
        assert len(found) == len(words) + len(pairs)
