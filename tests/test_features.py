"""Features of a document, and the words of the text that each stands for."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features import NEGATED, analyze, occurrences, word_spans

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


def denied(field):
    return [
        name.removeprefix(NEGATED)
        for name in names(field)
        if name.startswith(NEGATED) and " " not in name
    ]


class TestDenial:
    @pytest.mark.parametrize("negator", ["no", "Not", "nobody", "never", "didn't", "WITHOUT"])
    def test_a_negator_denies_the_four_words_after_it(self, negator):
        field = f"lamp {negator} keeper of old lamp burn"
        assert denied(field) == ["keeper", "of", "old", "lamp"]

    @pytest.mark.parametrize("turn", [", the", ". The", "; the", "! The"])
    def test_a_mark_ends_it(self, turn):
        assert denied(f"no keeper{turn} lamp burns") == ["keeper"]

    @pytest.mark.parametrize("turn", ["but", "except", "although", "though"])
    def test_a_turn_ends_it(self, turn):
        assert denied(f"no keeper {turn} lamp burns") == ["keeper"]

    def test_the_negator_itself_is_not_denied(self):
        assert names("no lamp")[0] == "no"

    def test_it_does_not_reach_from_the_title_into_the_synopsis(self):
        assert analyze("Never\nlamp") == ["never", "lamp"]

    def test_a_denied_word_is_another_feature(self):
        assert set(names("nobody dies")) & set(names("somebody dies")) == set()


class TestSpans:
    @calm
    @given(line)
    def test_the_spans_of_words_are_those_of_the_single_features(self, field):
        assert word_spans(field) == [o.spans[0] for o in occurrences(field) if len(o.spans) == 1]

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
                alone = names(field[slice(*occurrence.spans[0])])
                assert alone == [occurrence.name.removeprefix(NEGATED)]

    @calm
    @given(line)
    def test_a_pair_is_made_of_neighbours(self, field):
        found = occurrences(field)
        words = [o.spans[0] for o in found if len(o.spans) == 1]
        pairs = [o.spans for o in found if len(o.spans) == 2]
        assert pairs == list(pairwise(words))
        assert len(found) == len(words) + len(pairs)
