"""Cleaning a synopsis, where its words came from, and whether it can be read."""

import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synopsis import (
    MIN_WORDS,
    Status,
    clean,
    clean_with_offsets,
    excerpts,
    status,
)

FRAGMENTS = [
    *["<b>", "</b>", "<i", "<br/>", "<br>", "<p class='x'>", "<!--", "-->", "<", ">"],
    *["&amp;", "&lt;", "&gt;", "&#60;", "&#x3c;", "&nbsp;", "&eacute;", "&", "amp;", "lt;", "#38;"],
    *["[b]", "[/b]", "[url=x]", "[spoiler]", "[", "]", "(", ")", "(Source: Nowhere Press)"],
    *["[Written by Nobody]", "Source: a friend", "source", ":", ".", "!", "\n", "\r\n", " ", "\t"],
    *["\u0301", "\u0316", "\u200b", "\u00a0", "\u2028", "\x00", "\x1f", "\ud800", "\u3000"],
    *[
        "e",
        "ﬁ",
        "½",
        "’",
        "´",
        "＜",
        "＆",
        "；",
        "Å",
        "가",
        "\u1100",
        "\u1161",
        "ﷺ",
        "word",
        "~",
        "-",
    ],
]
messy = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=10).map(
    "".join
)

calm = settings(deadline=None)
any_text = st.one_of(st.text(), messy)

WORDS = ["harbour", "lantern", "seven", "Otto", "gate"]
NOISE = [
    *[" ", "  ", "\n", "<br>", "<br />", "</p><p>", "&nbsp;", " &#32; ", "\u00a0", "\x00", "\t"],
    *[" <i>", "</i> ", " [b]", "[/b] ", " \u200b", " (Source: Nowhere Press) ", "<!-- cut -->"],
]


class TestCleaning:
    @pytest.mark.parametrize(
        ("given_text", "cleaned"),
        [
            ("", ""),
            (" \n\t ", ""),
            ("Otto waits at the gate.", "Otto waits at the gate."),
            ("  Otto \n\n waits\tthere ", "Otto waits there"),
            ("<p>Otto waits.</p><p>Nobody comes.</p>", "Otto waits. Nobody comes."),
            ("Otto<br>waits", "Otto waits"),
            ("Ot<b>t</b>o w<I>ai</I>ts", "Otto waits"),
            ("[b]Otto[/b] [spoiler]waits[/spoiler]", "Otto waits"),
            ("[url=http://x.invalid/y]Otto[/url] waits", "Otto waits"),
            ("Otto &amp; Ida", "Otto & Ida"),
            ("Otto &amp;amp; Ida", "Otto & Ida"),
            ("&lt;b&gt;Otto&lt;/b&gt; waits", "Otto waits"),
            ("Caf&eacute; &#39;Lune&#x27;", "Café 'Lune'"),
            ("5 < 6 & 7 > 3", "5 < 6 & 7 > 3"),
            ("Otto’s ‘gate’", "Otto's 'gate'"),
            ("Cafe\u0301", "Café"),
            ("ﬁsh", "fish"),
            ("Ｏｔｔｏ", "Otto"),
            ("Ot\u200bto", "Otto"),
            ("Ot\u00adto", "Otto"),
            ("Otto\x00waits", "Otto waits"),
            ("Otto\u00a0waits\u3000there", "Otto waits there"),
            ("Otto\ud800waits", "Otto waits"),
        ],
    )
    def test_markup_and_odd_characters_go(self, given_text, cleaned):
        assert clean(given_text) == cleaned

    @pytest.mark.parametrize(
        "note",
        [
            "(Source: Nowhere Press)",
            "[Source: Nowhere Press, edited]",
            "(source : Nowhere)",
            "[Written by Nobody Rewrite]",
            "(Adapted from the back cover)",
            "(Synopsis from Nowhere)",
            "(Translated by Nobody)",
            "(Edited by Nobody)",
            "Source: Nowhere Press",
            "~ Source: Nowhere Press.",
            "<br><br>(Source: Nowhere Press)",
            "(Source: <a href='http://x.invalid'>Nowhere</a>)",
        ],
    )
    def test_source_notes_go(self, note):
        assert clean(f"Otto waits at the gate.\n\n{note}") == "Otto waits at the gate."

    def test_a_note_in_the_middle_goes(self):
        text = "Otto waits. (Source: Nowhere Press) Nobody comes."
        assert clean(text) == "Otto waits. Nobody comes."

    @pytest.mark.parametrize(
        "kept",
        [
            "The source: a spring below the chapel. Otto drinks from it.",
            "Otto finds the source of the river (and a boat).",
            "Otto reads a letter (written in haste) and leaves.",
            "A diary written by a lighthouse keeper.",
        ],
    )
    def test_the_story_stays(self, kept):
        assert clean(kept) == kept

    @calm
    @given(any_text)
    def test_cleaning_twice_changes_nothing(self, text):
        assert clean(clean(text)) == clean(text)

    @pytest.mark.parametrize(
        "text",
        ["&" + "amp;" * 30, "Otto waits" + ". Source: a" * 30],
        ids=["escaped thirty times", "thirty notes"],
    )
    def test_deeply_nested_text_is_cleaned_at_once(self, text):
        assert clean(clean(text)) == clean(text)

    @calm
    @given(any_text)
    def test_no_control_or_double_space_is_left(self, text):
        cleaned = clean(text)
        assert not re.search(r"[\x00-\x1f\x7f\u00a0\u200b\ufeff]|  ", cleaned)
        assert cleaned == cleaned.strip()


class TestOffsets:
    @calm
    @given(any_text)
    def test_the_text_is_what_clean_returns(self, text):
        assert clean_with_offsets(text).text == clean(text)

    @calm
    @given(any_text)
    def test_every_character_has_a_span_within_the_text(self, text):
        result = clean_with_offsets(text)
        assert len(result.starts) == len(result.ends) == len(result.text)
        for start, end in zip(result.starts, result.ends, strict=True):
            assert 0 <= start < end <= len(text)

    @calm
    @given(any_text)
    def test_spans_never_go_back(self, text):
        result = clean_with_offsets(text)
        for offsets in (result.starts, result.ends):
            assert all(before <= after for before, after in pairwise(offsets))

    @calm
    @given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(NOISE)), min_size=1))
    def test_words_point_at_themselves(self, pieces):
        text, places = "", []
        for word, noise in pieces:
            places.append((len(text), len(text) + len(word)))
            text += word + noise
        result = clean_with_offsets(text)
        found = list(re.finditer(r"\w+", result.text))
        assert [match[0] for match in found] == [word for word, _ in pieces]
        assert [result.span(*match.span()) for match in found] == places

    def test_the_span_of_a_marked_word_holds_its_markup(self):
        text = "The l<b>ant</b>ern"
        result = clean_with_offsets(text)
        start, end = result.span(4, 11)
        assert result.text[4:11] == "lantern"
        assert text[start:end] == "l<b>ant</b>ern"

    def test_an_entity_is_the_span_of_its_character(self):
        text = "Otto &amp; Ida"
        result = clean_with_offsets(text)
        assert text[slice(*result.span(5, 6))] == "&amp;"
        assert text[slice(*result.span(7, 10))] == "Ida"

    def test_an_accent_belongs_to_its_letter(self):
        text = "Cafe\u0301 Lune"
        result = clean_with_offsets(text)
        assert text[slice(*result.span(3, 4))] == "e\u0301"
        assert text[slice(*result.span(5, 9))] == "Lune"

    def test_all_letters_of_a_ligature_share_its_span(self):
        result = clean_with_offsets("a ﬁsh")
        assert result.text == "a fish"
        assert [result.span(i, i + 1) for i in (2, 3)] == [(2, 3), (2, 3)]
        assert result.span(4, 6) == (3, 5)

    def test_plain_text_keeps_its_offsets(self):
        text = "Otto waits at the gate."
        result = clean_with_offsets(text)
        assert result.starts == tuple(range(len(text)))
        assert result.ends == tuple(range(1, len(text) + 1))


class TestSpeed:
    LENGTH = 20_000

    @pytest.mark.parametrize(
        "piece",
        [
            *[
                " ",
                "<",
                "<a ",
                "<!--",
                "[",
                "[b=",
                "(",
                "( ",
                "(source ",
                "(written by ",
                "&",
                "&a",
            ],
            *["&amp;", "source: ", ". source: a", "a\u0300\u0316", "\u0300\u0316", "~", "ﷺ", "<b>"],
        ],
    )
    def test_long_repetitions_finish(self, piece):
        text = piece * (self.LENGTH // len(piece))
        began = time.perf_counter()
        assert clean_with_offsets(text).text == clean(text)
        assert time.perf_counter() - began < 8

    @pytest.mark.parametrize("start", ["<a", "(source:", "[url=", "&"])
    def test_an_opening_before_much_space_finishes(self, start):
        text = start + " " * self.LENGTH + "end"
        began = time.perf_counter()
        assert clean(text).endswith("end")
        assert time.perf_counter() - began < 2

    @pytest.mark.parametrize("piece", ["\n", "\r\n", "~\n", ".\n"])
    @pytest.mark.parametrize("end", ["", "source", "source: x"])
    def test_many_line_breaks_finish(self, piece, end):
        began = time.perf_counter()
        clean(piece * 10_000 + end)
        assert time.perf_counter() - began < 1.5


class TestStatus:
    @pytest.mark.parametrize("text", ["", "   ", "<br><br>", "...!", "1234 - 5678", "(Source: X)"])
    def test_nothing_to_read_is_empty(self, text):
        assert status(clean(text)) is Status.EMPTY

    @pytest.mark.parametrize(
        "text", ["Otto waits.", "To be added soon.", "A keeper and his last lamp"[:19]]
    )
    def test_a_few_words_are_too_short(self, text):
        assert status(clean(text)) is Status.TOO_SHORT

    def test_six_words_are_enough(self):
        assert status("The keeper waits at the gate.") is Status.OK
        assert status("Keeper waits at the gate.") is Status.TOO_SHORT

    @pytest.mark.parametrize(
        "text",
        [
            "El guardián de la torre espera cada noche a un barco que nunca llega al puerto.",
            "Der alte Wärter hütet den Turm, bis eines Nachts ein fremdes Schiff im Hafen liegt.",
            "Le vieux gardien du phare attend chaque nuit un bateau qui ne revient jamais au port.",
            "灯台守の老人は、毎晩、帰らない船を待ち続けている。",
            "Старый смотритель маяка каждую ночь ждёт корабль, который не вернётся.",
        ],
        ids=["Spanish", "German", "French", "Japanese", "Russian"],
    )
    def test_other_languages_are_told_apart(self, text):
        assert status(clean(text)) is Status.NOT_ENGLISH

    @pytest.mark.parametrize(
        "text",
        [
            "The old keeper waits every night for a ship that never comes home to the harbour.",
            "Otto's sister drowned. Years later, her voice calls from the lighthouse radio.",
            "In Kyōto, the lantern-maker Ryōhei Saitō mends what the festival crowds have broken.",
            "Lighthouse keepers, smugglers, ghosts: seven linked tales about stormy northern seas.",
        ],
    )
    def test_english_is_ok(self, text):
        assert status(clean(text)) is Status.OK

    @calm
    @given(any_text)
    def test_every_text_has_a_status(self, text):
        assert status(clean(text)) in Status


class TestExcerpts:
    STORY = (
        "The Ferry\nA widow buys the last ferry of the lake. Nobody has crossed in years! "
        "Then a stranger asks to be taken over at night. By morning both of them are gone."
    )

    def test_they_are_runs_of_whole_sentences_with_or_without_the_title(self):
        random = np.random.default_rng(0)
        found = [text for _ in range(50) for text in excerpts([self.STORY], random)]
        assert len(set(found)) > 5
        sentences = re.split(r"(?<=[.!?]) ", self.STORY.partition("\n")[2])
        for text in found:
            title, _, run = text.partition("\n")
            assert title in ("", "The Ferry")
            assert run in self.STORY
            assert run != self.STORY.partition("\n")[2]
            assert any(run.startswith(sentence) for sentence in sentences)
            assert len(run.split()) >= MIN_WORDS

    def test_one_sentence_has_none(self):
        text = "T\nA widow buys the last ferry of the lake and never looks back at the shore."
        assert excerpts([text, "", "\n"], np.random.default_rng(0)) == []

    def test_equal_seeds_give_equal_excerpts(self):
        first, second = (excerpts([self.STORY] * 9, np.random.default_rng(3)) for _ in range(2))
        assert first == second
