"""The page of a report: complete, closed to the network, and safe with any text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Forewarn, Ran
from harbour import harbour_corpus, harbour_model, harbour_predictions, hostile

pytest.importorskip("jinja2", reason="needs forewarn[report]")
pytest.importorskip("vl_convert", reason="needs forewarn[report]")

from pipeline import report
from pipeline.comparison import compare
from pipeline.errors import TableError
from pipeline.model import Model
from pipeline.predictions import predict_corpus

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}'\"&]]>\u2028"
VOID = {"meta", "input", "br", "img", "link"}


class Outline(HTMLParser):
    """Elements with their attributes, the texts, and whether everything is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and tag not in {"path", "rect", "circle", "line"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"path", "rect", "circle", "line"}:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def evaluation_page(corpus=None, **changes) -> str:  # type: ignore[no-untyped-def]
    corpus = corpus or harbour_corpus()
    model = replace(harbour_model(taxonomy=corpus.taxonomy), **changes)
    return report.evaluation_report(model, "harbour", predict_corpus(model, corpus), "balanced")


def comparison_page(corpus=None) -> str:  # type: ignore[no-untyped-def]
    corpus = corpus or harbour_corpus()
    models = (
        harbour_model(taxonomy=corpus.taxonomy),
        harbour_model(storm=1.0, taxonomy=corpus.taxonomy),
    )
    both = predict_corpus(models[0], corpus), predict_corpus(models[1], corpus)
    found = compare(("old", "new"), both, "balanced", resamples=20)
    return report.comparison_report(found, models, corpus)


PAGES = {"evaluation": evaluation_page, "comparison": comparison_page}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_loads_nothing_and_runs_one_known_script(page) -> None:  # type: ignore[no-untyped-def]
    html = page()
    outline = Outline(html)
    policy = next(m["content"] for m in outline.all("meta") if "http-equiv" in m) or ""
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not {name for _, attributes in outline.elements for name in attributes} & {
        "src",
        "srcset",
        "action",
    }
    for attributes in outline.all("a"):
        assert str(attributes["href"]).startswith("#")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert "@import" not in html and "url(" not in html


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_links_lead_somewhere_and_names_are_given_once(page) -> None:  # type: ignore[no-untyped-def]
    outline = Outline(page())
    ids = [a["id"] for _, a in outline.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in outline.all("a"):
        assert str(attributes["href"])[1:] in ids
    for _, attributes in outline.elements:
        if labelled := attributes.get("aria-labelledby"):
            assert labelled in ids


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_hostile_text_shows_as_text(page) -> None:  # type: ignore[no-untyped-def]
    kind, hostile_page = Outline(page()), page(hostile(EVIL))
    outline = Outline(hostile_page)
    assert len(outline.all("script")) == 1
    assert not outline.all("img")
    # The same elements as without it, bar a few: those of notes and of evidence.
    extra = {tag for tag, _ in outline.elements} - {tag for tag, _ in kind.elements}
    assert extra <= {"ul", "li", "h3"}
    assert "{{ 7*7 }}" in hostile_page
    assert any(EVIL.replace("\u2028", "") in text.replace("\u2028", "") for text in outline.texts)
    assert not any(name.startswith("on") for _, a in outline.elements for name in a)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_tables_have_captions_and_heads_and_buttons(page) -> None:  # type: ignore[no-untyped-def]
    html = page()
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        assert "<caption" in table
        assert 'scope="col"' in table and 'scope="row"' in table
        if "sortable" in table:
            assert table.count("<button") >= 7


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_says_not_to_publish_it_and_promises_nothing(page) -> None:  # type: ignore[no-untyped-def]
    flowing = " ".join(page().split())
    assert "Do not publish it unless those texts are yours to publish" in flowing
    assert "no promise that a work is safe" in flowing


def test_texts_are_behind_the_switch() -> None:
    html = evaluation_page()
    assert 'role="switch" id="show-texts"' in html
    hidden = re.findall(r'<div class="spoiler[^>]*>.*?</div>', html, re.DOTALL)
    assert any("applause went on" in part for part in hidden)
    seen = re.sub(r'<div class="spoiler[^>]*>.*?</div>', "", html, flags=re.DOTALL)
    for title, synopsis in zip(harbour_corpus().titles, harbour_corpus().synopses, strict=True):
        assert title not in seen and synopsis not in seen
    assert re.search(r"\.spoiler \{ display: none; \}", html)


def test_evidence_is_marked_in_the_text() -> None:
    assert "The <mark>storm</mark> of applause" in evaluation_page()


def test_each_tag_has_figures_a_curve_and_a_sheet() -> None:
    html = evaluation_page()
    for tag in ("storm", "wreck", "bees"):
        assert html.count(f'<a href="#tag-{tag}">') >= 2
        assert f'<details class="sheet" id="tag-{tag}">' in html
    assert "<td>0.40</td><td>0.67</td>" in html  # precision and recall of storms
    assert "balanced: precision 0.40 at recall 0.67" in html


def test_a_page_warns_of_files_that_the_model_learnt_from() -> None:
    assert "too good" not in evaluation_page()
    seen = {"data": {"mine.csv": "ab" * 32}}
    assert "The model was trained on harbour.csv: its figures there are too good" in (
        evaluation_page(provenance=seen)
    )


def test_a_threshold_has_figures_of_its_own() -> None:
    found = harbour_predictions(threshold=0.2)
    html = report.evaluation_report(harbour_model(), "harbour", found, "threshold 0.2")
    assert 'value="threshold 0.2" autocomplete="off" checked' in html


def test_a_model_that_knows_no_word_of_the_corpus_makes_a_page() -> None:
    bare = evaluation_page(
        vocabulary=("whale",),
        idf=np.ones(1, dtype=np.float32),
        weights=np.ones((1, 3), dtype=np.float16),
        provenance={},
    )
    assert "<li>None.</li>" in bare


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    report.save("<p>\ud800 é", str(target))
    assert target.read_text(encoding="utf-8") == "<p>? é"
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    for wrong in ("-", str(tmp_path), str(tmp_path / "none" / "a.html")):
        with pytest.raises(TableError, match="no report can be written"):
            report.check_target(wrong)


# The command line


def test_training_writes_a_report_of_the_works_held_out(
    starter_training: tuple[Ran, Path], starter_model: Model
) -> None:
    _, folder = starter_training
    html = (folder.parent / "report.html").read_text(encoding="utf-8")
    Outline(html)
    assert len(html) < 1_500_000
    held_out = starter_model.provenance["held_out"]["balanced"]
    assert f'<div class="value">{held_out["micro_f1"]:.2f}</div>' in html
    assert "Every figure is out of fold" in html
    for tag in starter_model.tags:
        assert f'id="tag-{tag}"' in html


def test_evaluate_writes_a_report_beside_its_figures(
    forewarn: Forewarn, starter_folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "mine.csv"
    corpus.write_text(
        "title,synopsis,tags\n"
        '<b>One</b>,"A soldier comes home from the war & finds <script>x</script> his wife gone.",'
        "war\n"
        'Two,"A baker opens a small shop and learns the names of her neighbours.",\n',
        encoding="utf-8",
    )
    target = tmp_path / "r.html"
    ran = forewarn("evaluate", starter_folder, corpus, "--report", target, "--json")
    assert ran.rc == 0, ran.stderr
    assert '"micro_f1"' in ran.stdout
    Outline(target.read_text(encoding="utf-8"))


def test_a_report_that_cannot_be_written_stops_before_the_work(
    forewarn: Forewarn, tmp_path: Path
) -> None:
    ran = forewarn("evaluate", "default", "none.csv", "--report", tmp_path / "no" / "r.html")
    assert ran.rc == 2
    assert "name a file in a folder that is" in ran.stderr


def test_without_the_extra_one_line_names_the_remedy(tmp_path: Path) -> None:
    import subprocess
    import sys

    from conftest import ROOT

    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from pipeline.cli import main\n"
        f"main(['evaluate', 'default', 'x.csv', '--report', {str(tmp_path / 'r.html')!r}])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ran.returncode == 2
    assert "pip install 'forewarn[report]'" in ran.stderr
    assert "Traceback" not in ran.stderr
