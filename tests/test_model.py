"""A model: suggestions for a synopsis, broader tags included, with words that account for them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decision import PROFILES, Thresholds
from pipeline.errors import ModelError
from pipeline.model import Evidence, Model, to_document
from pipeline.taxonomy import Taxonomy

GRIM = (
    "When her brother is murdered, a retired detective follows the killer into a city at war, "
    "where soldiers torture their prisoners and the dead lie in the streets."
)
AFFAIR = (
    "Her husband works nights. Slowly she begins an affair with the neighbour, and the wife who "
    "swore never to cheat finds that she can no longer stop."
)
ZOMBIES = (
    "A plague turns the villagers into zombies that devour the living. Trapped in a ghost-ridden "
    "hospital, six nurses fight the monsters as the blood runs down the walls."
)
GAMBLER = (
    "He owes the casino everything. One last night of poker, one last bet against the yakuza boss, "
    "and the gambler will either walk away rich or lose his fingers."
)
WAR = (
    "In the second winter of the invasion a young soldier is sent to the front. The army is "
    "starving, the bombs fall each night, and the war will not end."
)
DRUGS = (
    "A chemist addicted to the heroin that he sells tries to leave the cartel. The dealers on his "
    "street, and the drug itself, do not let him go."
)
ILL = (
    "Diagnosed with cancer at thirty, a violinist leaves the hospital for a last tour. Her illness "
    "is incurable, and she means to play until the end."
)
MILD = (
    "Three cousins restore an old ferry and carry their first passengers across the bay in spring."
)
BLURBS = [GRIM, AFFAIR, ZOMBIES, GAMBLER, WAR, DRUGS, ILL]
MARKED_UP = (
    "<p>He&rsquo;s  back 👩\u200d🚀🔪:\r\n<b>the&nbsp;killer</b> who <i>mur&shy;dered</i> her "
    "brother &amp; sister&hellip;</p> She hunts him through a cafe\u0301 at war.\n\n(Source: Ivo)"
)
WORDS = st.sampled_from(
    ["the", "of", "and", "her", "wife", "husband", "affair", "killer", "murdered", "blood", "war"]
) | st.sampled_from(
    [
        "soldier",
        "drug",
        "casino",
        "not",
        "never",
        "spring",
        "<b>",
        "&amp;",
        "👻",
        "é",
        "cheating",
        "—",
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=5), max_size=40).map(" ".join)


def tags_of(model: Model, synopsis: str, **options: object) -> list[str]:
    return [warning.tag for warning in model.suggest(synopsis, **options).warnings]


def log_odds(model: Model, tag: str, synopsis: str) -> float:
    (scores,) = model.predict_proba([to_document("", synopsis)])
    p = np.clip(scores[model.tags.index(tag)], 1e-12, 1 - 1e-12)
    return float(np.log(p / (1 - p)))


# Tags and their order


@settings(deadline=None, max_examples=150)
@given(synopses=st.lists(TEXTS, min_size=1, max_size=5))
def test_no_broader_tag_is_less_probable_than_a_narrower_one(
    starter_model: Model, synopses: list[str]
) -> None:
    probabilities = starter_model.predict_proba(synopses)
    assert probabilities.shape == (len(synopses), len(starter_model.tags))
    assert np.all((probabilities >= 0) & (probabilities <= 1))
    column = starter_model.tags.index
    for tag in starter_model.tags:
        for broad in starter_model.taxonomy.ancestors(tag):
            assert np.all(probabilities[:, column(broad)] >= probabilities[:, column(tag)])


@settings(deadline=None, max_examples=100)
@given(synopsis=st.sampled_from(BLURBS) | TEXTS, threshold=st.none() | st.floats(0, 1))
def test_a_suggested_tag_brings_its_broader_ones_along(
    starter_model: Model, synopsis: str, threshold: float | None
) -> None:
    for profile in PROFILES:
        tags = tags_of(starter_model, synopsis, profile=profile, threshold=threshold)
        assert set(tags) == starter_model.taxonomy.closure(tags)


def test_a_broader_tag_comes_along_even_when_its_own_threshold_is_higher() -> None:
    entries = [{"id": x, "label": x, "group": "g", "definition": x} for x in ("broad", "narrow")]
    entries[1]["broader"] = ["broad"]
    cut = {profile: np.array([0.9, 0.3]) for profile in PROFILES}
    model = Model(
        Taxonomy.from_dict({"tag": entries}),
        ("broad", "narrow"),
        ("storm",),
        np.ones(1, np.float32),
        np.array([[0.0, 1.0]], np.float16),
        np.array([-2.0, -1.0]),
        Thresholds(cut, {}),
    )
    assert model.predict_proba(["\nstorm"]) == pytest.approx(np.array([[0.5, 0.5]]))
    assert model.decide(np.array([[0.5, 0.5], [0.5, 0.2], [0.95, 0.2]])).tolist() == [
        [True, True],
        [False, False],
        [True, False],
    ]


def test_warnings_come_by_falling_probability(default_model: Model) -> None:
    for blurb in BLURBS:
        found = default_model.suggest(blurb, all_tags=True).warnings
        scores = [warning.probability for warning in found]
        assert scores == sorted(scores, reverse=True)
        assert sorted(warning.tag for warning in found) == sorted(default_model.tags)
        for warning in found:
            assert warning.label == default_model.taxonomy[warning.tag].label


def test_profiles_nest_and_a_threshold_replaces_them(starter_model: Model) -> None:
    sizes = set()
    for blurb in [*BLURBS, MILD]:
        strict, balanced, cautious = (
            set(tags_of(starter_model, blurb, profile=profile))
            for profile in ("strict", "balanced", "cautious")
        )
        assert strict <= balanced <= cautious
        sizes.add((len(strict) < len(balanced), len(balanced) < len(cautious)))
        everything = starter_model.suggest(blurb, all_tags=True).warnings
        likely = [warning.tag for warning in everything if warning.probability >= 0.2]
        assert tags_of(starter_model, blurb, threshold=0.2) == likely
    assert (True, True) in sizes
    with pytest.raises(ModelError, match="unknown profile 'lax'"):
        starter_model.suggest(GRIM, profile="lax")


def test_all_tags_does_not_change_the_figures(starter_model: Model) -> None:
    everything = starter_model.suggest(GRIM, all_tags=True).warnings
    suggested = starter_model.suggest(GRIM).warnings
    assert suggested
    assert set(suggested) < set(everything)


# Texts that cannot be judged


@pytest.mark.parametrize(
    ("synopsis", "status"),
    [
        ("", "empty"),
        (" \n\t<p></p>&nbsp;", "empty"),
        ("… !!! 🔪", "empty"),
        ("Murder on the ferry.", "too-short"),
        ("Una mujer regresa a su pueblo y descubre que su padre fue asesinado.", "not-english"),
        ("連続殺人犯を追う刑事の物語。彼は家族を失った。", "not-english"),
    ],
)
def test_what_cannot_be_read_gets_no_warnings_but_a_reason(
    default_model: Model, synopsis: str, status: str
) -> None:
    found = default_model.suggest(synopsis, "Murder", threshold=0.0, all_tags=True)
    assert found.to_dict() == {"status": status, "warnings": []}


def test_no_documents_give_no_rows(starter_model: Model) -> None:
    assert starter_model.predict_proba([]).shape == (0, len(starter_model.tags))


def test_a_document_of_unknown_words_gets_the_base_rates(starter_model: Model) -> None:
    unknown, empty = starter_model.predict_proba(["\nqwxyzzy plughfoo", ""])
    assert np.array_equal(unknown, empty)


# Evidence


def check_evidence(evidence: Evidence, synopsis: str, title: str) -> None:
    given_text = {"synopsis": synopsis, "title": title}[evidence.field]
    assert 0 <= evidence.start < evidence.end <= len(given_text)
    assert given_text[evidence.start : evidence.end] == evidence.text
    assert evidence.weight > 0


@settings(deadline=None, max_examples=150)
@given(synopsis=TEXTS.map(lambda text: f"{GRIM} {text}") | TEXTS, title=TEXTS)
def test_evidence_is_found_where_it_says(starter_model: Model, synopsis: str, title: str) -> None:
    for warning in starter_model.suggest(synopsis, title, all_tags=True).warnings:
        for evidence in warning.evidence:
            check_evidence(evidence, synopsis, title)
        weights = [evidence.weight for evidence in warning.evidence]
        assert weights == sorted(weights, reverse=True)
        assert len(weights) <= 4


def test_evidence_is_found_in_text_with_markup(default_model: Model) -> None:
    found = default_model.suggest(MARKED_UP, "The Killer&#39;s War")
    by_tag = {warning.tag: warning for warning in found.warnings}
    assert "murder" in by_tag
    for warning in found.warnings:
        assert warning.evidence
        for evidence in warning.evidence:
            check_evidence(evidence, MARKED_UP, "The Killer&#39;s War")
    phrases = [evidence.text for evidence in by_tag["murder"].evidence]
    assert any("mur&shy;dered" in phrase for phrase in phrases)
    assert {e.field for w in found.warnings for e in w.evidence} == {"title", "synopsis"}


def test_evidence_can_be_left_out(default_model: Model) -> None:
    full, bare = default_model.suggest(GRIM), default_model.suggest(GRIM, evidence=False)
    assert all(not warning.evidence for warning in bare.warnings)
    assert [(w.tag, w.probability) for w in bare.warnings] == [
        (w.tag, w.probability) for w in full.warnings
    ]


def test_weights_and_bias_add_up_to_the_log_odds() -> None:
    entry = {"id": "storm", "label": "Storm", "group": "sea", "definition": "Bad weather."}
    model = Model(
        Taxonomy.from_dict({"tag": [entry]}),
        ("storm",),
        ("cold sea", "gale", "sea"),
        np.ones(3, np.float32),
        np.array([[3.0], [2.0], [1.0]], np.float16),
        np.array([-1.0]),
        Thresholds({profile: np.array([0.5]) for profile in PROFILES}, {}),
    )
    (warning,) = model.suggest("There is a gale, and then it is by the cold sea.").warnings
    added = sum(evidence.weight for evidence in warning.evidence)
    assert [evidence.text for evidence in warning.evidence] == ["cold sea", "gale"]
    assert added == pytest.approx(6 / np.sqrt(3), abs=1e-3)
    assert np.log(warning.probability / (1 - warning.probability)) == pytest.approx(added - 1, 1e-3)


def test_deleting_the_evidence_costs_more_than_deleting_as_many_other_words(
    default_model: Model,
) -> None:
    random = np.random.default_rng(0)
    without_evidence, without_others = [], []
    for blurb in BLURBS:
        words = blurb.split(" ")
        for warning in default_model.suggest(blurb).warnings:
            named = {w for evidence in warning.evidence for w in evidence.text.split()}
            places = [n for n, word in enumerate(words) if named & {word, word.strip(".,")}]
            others = sorted(set(range(len(words))) - set(places))
            assert places
            before = log_odds(default_model, warning.tag, blurb)
            for _ in range(3):
                count = min(len(places), len(others))
                dropped = set(random.choice(others, count, replace=False).tolist())
                kept = " ".join(word for n, word in enumerate(words) if n not in dropped)
                without_others.append(before - log_odds(default_model, warning.tag, kept))
            kept = " ".join(words[n] for n in others)
            without_evidence.append(before - log_odds(default_model, warning.tag, kept))
    assert len(without_evidence) >= 10
    assert np.mean(without_evidence) > np.mean(without_others) + 2
    assert np.mean(np.array(without_evidence) > 0) > 0.9


def test_a_suggestion_is_plain_data(default_model: Model) -> None:
    data = default_model.suggest(GRIM, "A War").to_dict()
    assert json.loads(json.dumps(data, allow_nan=False))["status"] == "ok"
    for warning in data["warnings"]:
        assert set(warning) == {"tag", "label", "probability", "evidence"}
        assert isinstance(warning["probability"], float)
        for evidence in warning["evidence"]:
            assert set(evidence) == {"text", "start", "end", "weight", "field"}
            assert isinstance(evidence["weight"], float)


# The model that ships


def test_the_default_model_knows_the_shipped_taxonomy_and_is_small(default_model: Model) -> None:
    from pipeline.artefact import find_model
    from pipeline.taxonomy import load_taxonomy

    assert default_model.tags == load_taxonomy().ids
    assert sum(file.stat().st_size for file in find_model("default").iterdir()) <= 10 * 2**20


@pytest.mark.parametrize(
    ("blurb", "tags"),
    [
        (GRIM, {"murder", "death", "violence", "war", "torture"}),
        (AFFAIR, {"infidelity"}),
        (ZOMBIES, {"horror"}),
        (GAMBLER, {"gambling"}),
        (WAR, {"war"}),
        (DRUGS, {"drugs"}),
        (ILL, {"illness"}),
    ],
    ids=["grim", "affair", "zombies", "gambler", "war", "drugs", "ill"],
)
def test_the_default_model_suggests_the_obvious(
    default_model: Model, blurb: str, tags: set[str]
) -> None:
    assert tags <= set(tags_of(default_model, blurb))


def test_the_default_model_leaves_a_mild_blurb_alone(default_model: Model) -> None:
    assert tags_of(default_model, MILD, profile="strict") == []
    assert tags_of(default_model, MILD) == []
