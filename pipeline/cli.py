"""The command line: it parses, calls one function, and prints."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline import __version__
from pipeline.errors import ForewarnError, TableError

if TYPE_CHECKING:
    from pipeline.model import Suggestion
    from pipeline.taxonomy import Tag, Taxonomy
    from pipeline.training import TrainingRun

_PROFILES = ("balanced", "cautious", "strict")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class _Group(click.Group):
    """Turns what ends a command into one line and an exit code of its own."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except ForewarnError as error:
            _ended(str(error), error, 2)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(141)
        except MemoryError as error:
            _ended("out of memory", error, 2)
        except OSError as error:
            _ended(str(error), error, 2)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _terminable():
                return super().invoke(ctx)
        except _Terminated as error:
            _ended("terminated", error, 128 + signal.SIGTERM)
        except KeyboardInterrupt as error:
            _ended("interrupted", error, 128 + signal.SIGINT)


def _ended(told: str, error: BaseException, code: int) -> NoReturn:
    told = "; ".join([told, *getattr(error, "__notes__", ())])
    click.echo(f"forewarn: {' '.join(told.split())}", err=True)
    sys.exit(code)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the command, so that it leaves nothing half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="forewarn")
def main() -> None:
    """Suggest content-warning tags from a synopsis: offline, with the words that made it think so.

    \b
    Examples:
      forewarn predict "After her husband is murdered, a widow hunts the men who did it."
      forewarn tag titles.csv -o tagged.csv
      forewarn train my-labels.csv -o models/mine
      forewarn tags ntr --versus infidelity

    A suggestion is made from the synopsis alone and promises nothing about the work.
    """


_model_option = click.option(
    "--model",
    default="default",
    show_default=True,
    metavar="DIR|NAME",
    help="default, accurate (slower, better), auto (reads with accurate's network only what its "
    "words leave unsure), or a folder that `forewarn train` or `finetune` wrote.",
)
_profile_option = click.option(
    "--profile",
    type=click.Choice(_PROFILES),
    default="balanced",
    show_default=True,
    help="balanced: best F1; cautious: misses little; strict: few false alarms.",
)
_threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Suggest every tag of probability P or more, instead of a profile.",
)
_taxonomy_option = click.option(
    "--tags", "tags_file", type=click.Path(), metavar="FILE", help="Your own taxonomy (TOML)."
)
_column_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=YOURS",
    help="Your name of a column, e.g. --column synopsis=description. Repeatable.",
)

_dask_option = click.option(
    "--dask",
    metavar="SCHEDULER",
    help="Work on the Dask cluster of this scheduler, e.g. tcp://10.0.0.1:8786.",
)


def _jobs_option(default: int, told: str) -> Callable[[Any], Any]:
    def check(_: click.Context, __: click.Parameter, jobs: int) -> int:
        if jobs == 0:
            raise click.BadParameter("give a number of processes, or -1 for one a core.")
        return jobs

    return click.option(
        "--jobs",
        default=default,
        show_default=True,
        type=click.IntRange(-1),
        callback=check,
        metavar="N",
        help=told,
    )


@main.command()
@click.argument("synopsis", required=False)
@click.option("--title", default="", help="The work's title, if known.")
@click.option("--file", "file", metavar="F", help="Read the synopsis from a file, '-' for stdin.")
@_model_option
@_profile_option
@_threshold_option
@click.option("--all", "all_tags", is_flag=True, help="Show every tag with its probability.")
@click.option("--no-evidence", is_flag=True, help="Do not show the words: they can spoil.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(
    synopsis: str | None,
    title: str,
    file: str | None,
    model: str,
    profile: str,
    threshold: float | None,
    all_tags: bool,
    no_evidence: bool,
    as_json: bool,
) -> None:
    """Suggest warnings for one SYNOPSIS ('-' reads it from standard input).

    \b
    Example:
      forewarn predict "A detective hunts a serial killer." --title "Cold Ground" --json
    """
    from pipeline.artefact import load_model

    text = _read_synopsis(synopsis, file)
    suggestion = load_model(model).suggest(
        text,
        _unbroken(title),
        profile=profile,
        threshold=threshold,
        all_tags=all_tags,
        evidence=not no_evidence,
    )
    if as_json:
        click.echo(json.dumps(suggestion.to_dict(), ensure_ascii=False))
    else:
        click.echo(_suggestion_text(suggestion, not no_evidence))


@main.command()
@click.argument("source", metavar="IN")
@click.option("-o", "--output", "target", required=True, metavar="OUT", help="'-' for stdout.")
@_model_option
@_profile_option
@_threshold_option
@click.option("--scores", is_flag=True, help="Add a column score_<tag> for each tag.")
@click.option("--evidence", is_flag=True, help="Add a column of the phrases (they can spoil).")
@_column_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(("csv", "tsv", "jsonl", "parquet")),
    help="The format, where the file names do not tell (for '-': csv).",
)
@_jobs_option(1, "Processes that tag at the same time; -1 for one a core. Same output.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same command.")
@_dask_option
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
def tag(
    source: str,
    target: str,
    model: str,
    profile: str,
    threshold: float | None,
    scores: bool,
    evidence: bool,
    columns: tuple[str, ...],
    kind: str | None,
    jobs: int,
    resume: bool,
    dask: str | None,
    quiet: bool,
) -> None:
    """Tag a table: IN with the columns `warnings` and `warning_status` added.

    CSV, TSV, JSON Lines and Parquet, each also as .gz. All rows and columns stay as they are and
    in order; OUT appears whole or not at all. A run that is cut off keeps what it had finished
    beside OUT, hidden, for --resume.

    \b
    Examples:
      forewarn tag titles.csv -o tagged.csv --scores
      forewarn tag titles.csv -o tagged.csv --model accurate --jobs -1 --resume
      forewarn tag titles/ -o tagged/ --dask tcp://10.0.0.1:8786
      zcat titles.jsonl.gz | forewarn tag - -o - --format jsonl > tagged.jsonl
    """
    from pipeline.artefact import load_model
    from pipeline.table import Columns
    from pipeline.tagging import Tagger, tag_table

    names = _columns(columns, {"synopsis", "title"})
    tagger = Tagger(load_model(model), profile, threshold, scores, evidence)
    if dask is not None:
        if kind or jobs != 1 or "-" in {source, target}:
            raise click.UsageError("--dask takes folders of files, and no --format or --jobs")
        cluster = _cluster()
        size = sum(path.stat().st_size for path in cluster.partitions(source).values())
        with _byte_progress(size, quiet) as read:
            rows = cluster.tag_partitions(
                source, target, tagger, dask, Columns(**names), read, resume, _note
            )
    else:
        path = Path(source)
        with _byte_progress(path.stat().st_size if path.is_file() else 0, quiet) as read:
            rows = tag_table(
                source,
                target,
                tagger,
                Columns(**names),
                kind,
                read=read,
                jobs=jobs,
                resume=resume,
                note=_note,
            )
    if not quiet:
        click.echo(f"{rows:,} rows tagged -> {target}", err=True)


@main.command()
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@click.option("-o", "--output", required=True, metavar="DIR", help="Where the model goes.")
@_taxonomy_option
@_column_option
@click.option(
    "--texts",
    multiple=True,
    metavar="FILE",
    help="Where rows of a CORPUS that have an id but no synopsis find their text.",
)
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal models.")
@_jobs_option(-1, "Processes; -1 for one a core.")
@_dask_option
@click.option(
    "--folds", default=5, show_default=True, type=click.IntRange(2), help="Held-out folds."
)
@click.option(
    "--min-positives",
    default=10,
    show_default=True,
    type=click.IntRange(2),
    help="A tag that fewer works have is left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the held-out figures as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def train(
    corpora: tuple[str, ...],
    output: str,
    tags_file: str | None,
    columns: tuple[str, ...],
    texts: tuple[str, ...],
    seed: int,
    jobs: int,
    dask: str | None,
    folds: int,
    min_positives: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a model on tables with the columns synopsis and tags (and title, maybe, catalogue,
    group, id where you have them), and report how well it does on works that it had not seen.

    Tags are joined by ';'. A column `maybe` says that the rows were read for every tag, these
    aside; a column `catalogue` says that rows carry what their catalogue says, no more.

    \b
    Example:
      forewarn train my-labels.csv data/starter.csv -o models/mine
    """
    from pipeline import artefact, card, training
    from pipeline.corpus import COLUMNS, read_corpus
    from pipeline.taxonomy import load_taxonomy

    artefact.check_target(output)
    corpus = read_corpus(corpora, load_taxonomy(tags_file), _columns(columns, set(COLUMNS)), texts)
    _remarks(corpus.notes)
    where = nullcontext() if dask is None else _cluster().training_on(dask)
    with where, _count_progress("Training", quiet) as progress:
        run = training.train(corpus, seed, jobs, folds, min_positives, progress=progress)
    artefact.save_model(run.model, output, card.model_card(run, Path(output).name))
    if as_json:
        click.echo(json.dumps(run.model.provenance, ensure_ascii=False))
        return
    _echo_run(run, output, min_positives)


@main.command()
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@click.option("-o", "--output", required=True, metavar="DIR", help="Where the model goes.")
@_taxonomy_option
@_column_option
@click.option("--texts", multiple=True, metavar="FILE", help="As for `forewarn train`.")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="A BERT to start from, as sentence-transformers stores it. [default: MiniLM]",
)
@click.option(
    "--teacher",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="A larger transformer that is fine-tuned first, and then taught from. Wants a GPU.",
)
@click.option(
    "--unlabelled",
    multiple=True,
    metavar="FILE",
    help="More synopses, for a teacher to label. Repeatable.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Passes over the texts. [default: 3; 8 with a teacher]",
)
@click.option(
    "--min-positives",
    default=10,
    show_default=True,
    type=click.IntRange(2),
    help="A tag that fewer works have is left out.",
)
@click.option("--seed", default=0, show_default=True, help="Of the split and both parts.")
@_jobs_option(-1, "Processes for the linear part; -1 for one a core.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def finetune(
    corpora: tuple[str, ...],
    output: str,
    tags_file: str | None,
    columns: tuple[str, ...],
    texts: tuple[str, ...],
    weights: str | None,
    teacher: str | None,
    unlabelled: tuple[str, ...],
    epochs: int | None,
    min_positives: int,
    seed: int,
    jobs: int,
    quiet: bool,
) -> None:
    """Train an accurate model: a linear part and a small transformer, fine-tuned on CORPUS.

    Takes corpora as `forewarn train` does. About an hour for 30,000 synopses on two cores. Needs
    more libraries: pip install 'forewarn[finetune]'. The model itself needs only
    'forewarn[neural]'.

    \b
    Example:
      forewarn finetune my-labels.csv data/starter.csv -o models/mine-accurate
    """
    from tempfile import TemporaryDirectory

    from pipeline import artefact, card
    from pipeline.corpus import COLUMNS, read_corpus
    from pipeline.taxonomy import load_taxonomy

    finetuning = _finetuning()
    artefact.check_target(output)
    if unlabelled and not teacher:
        raise click.UsageError("--unlabelled needs a --teacher who labels them")
    names = _columns(columns, set(COLUMNS))
    corpus = read_corpus(corpora, load_taxonomy(tags_file), names, texts, unlabelled)
    _remarks(corpus.notes)
    folders = [Path(folder) if folder else None for folder in (weights, teacher)]
    with TemporaryDirectory() as scratch, _count_progress("Fine-tuning", quiet) as progress:
        run = finetuning.train_accurate(
            corpus, Path(scratch), *folders, seed, jobs, epochs, min_positives, progress
        )
        artefact.save_model(run.model, output, card.model_card(run, Path(output).name))
    _echo_run(run, output, min_positives)


@main.command()
@click.argument("model", metavar="MODEL")
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@_profile_option
@_threshold_option
@_column_option
@click.option("--texts", multiple=True, metavar="FILE", help="As for `forewarn train`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    model: str,
    corpora: tuple[str, ...],
    profile: str,
    threshold: float | None,
    columns: tuple[str, ...],
    texts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score MODEL (a folder or a released name) on labelled corpora, on observed cells only.

    The corpora must be works that the model was not trained on for the figures to mean anything.

    \b
    Example:
      forewarn evaluate default my-labels.csv --json
    """
    from pipeline import card
    from pipeline.artefact import load_model
    from pipeline.corpus import COLUMNS, read_corpus
    from pipeline.evaluation import evaluate_model

    loaded = load_model(model)
    corpus = read_corpus(corpora, loaded.taxonomy, _columns(columns, set(COLUMNS)), texts)
    _remarks(corpus.notes)
    score = evaluate_model(loaded, corpus, profile, threshold)
    if as_json:
        click.echo(json.dumps(score.to_dict(), ensure_ascii=False))
    else:
        click.echo(card.headline(score) + "\n\n" + card.aligned(card.tag_rows(score)))


@main.command()
@click.argument("model", metavar="MODEL")
@click.argument("file", metavar="FILE")
@click.option(
    "--format", "kind", type=click.Choice(("joblib",)), default="joblib", show_default=True
)
def export(model: str, file: str, kind: str) -> None:
    """Write MODEL to FILE as a stock scikit-learn pipeline.

    Its input are strings of title, newline, synopsis; its predict_proba gives a column a tag, in
    the taxonomy's order. Loading a joblib file runs code: load none that you did not make.

    \b
    Example:
      forewarn export default --format joblib forewarn.joblib
    """
    del kind  # One format so far; the option keeps the command line stable.
    from pipeline.artefact import load_model
    from pipeline.export import export_joblib

    export_joblib(load_model(model), file)
    click.echo(f"Pipeline written to {file}", err=True)


@main.command()
@click.argument("name", required=False, metavar="[TAG]")
@click.option("--versus", metavar="TAG", help="How TAG differs from this one.")
@_taxonomy_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tags(name: str | None, versus: str | None, tags_file: str | None, as_json: bool) -> None:
    """List the tags by group, or explain one (by id, label or alias).

    \b
    Examples:
      forewarn tags
      forewarn tags ntr
      forewarn tags ntr --versus ecchi
    """
    from pipeline.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(tags_file)
    if name is None:
        if versus is not None:
            raise click.UsageError("--versus needs a TAG to compare with")
        click.echo(json.dumps(taxonomy.to_dict()["tag"]) if as_json else _tag_list(taxonomy))
        return
    tag_ = _find_tag(taxonomy, name)
    if versus is not None:
        click.echo(_versus_text(taxonomy, tag_, _find_tag(taxonomy, versus)))
    elif as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(tag_), ensure_ascii=False))
    else:
        click.echo(_tag_text(taxonomy, tag_))


def _echo_run(run: TrainingRun, output: str, min_positives: int) -> None:
    from pipeline import card

    for name, count in run.left_out.items():
        click.echo(f"left out: {name} ({count} works have it; --min-positives {min_positives})")
    for profile, score in run.by_profile.items():
        click.echo(f"\nHeld-out works, {profile} profile\n{card.headline(score)}")
    click.echo("\n" + card.aligned(card.tag_rows(run.by_profile["balanced"])))
    click.echo(f"\nModel written to {output}")


def _finetuning() -> Any:
    try:
        from pipeline import finetuning
    except ImportError as error:
        raise _lacking("fine-tuning", "finetune", error) from error
    return finetuning


def _cluster() -> Any:
    try:
        from pipeline import cluster
    except ImportError as error:
        raise _lacking("--dask", "dask", error) from error
    import logging

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # What fails is told in one line.
    return cluster


def _lacking(what: str, extra: str, error: ImportError) -> click.UsageError:
    return click.UsageError(
        f"{what} needs more libraries ({error.name}); install them with: "
        f"pip install 'forewarn[{extra}]'"
    )


def _read_synopsis(synopsis: str | None, file: str | None) -> str:
    if (synopsis is None) == (file is None):
        raise click.UsageError("give one SYNOPSIS, or --file F, or '-' for standard input")
    name = synopsis if file is None else file
    if file is None and synopsis != "-":
        return _unbroken(synopsis or "")
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(str(name)).read_bytes()
    except OSError as error:
        raise TableError(f"{name}: cannot be read ({error.strerror})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{name}: not UTF-8 text; convert it first") from error


def _unbroken(argument: str) -> str:
    """An argument in which bytes that are no UTF-8 became replacement characters."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _columns(pairs: tuple[str, ...], known: set[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or ours not in known or not theirs:
            raise click.UsageError(
                f"--column {pair!r}: write OURS=YOURS with OURS one of {', '.join(sorted(known))}"
            )
        columns[ours] = theirs
    return columns


def _remarks(notes: tuple[str, ...]) -> None:
    for note in notes:
        _note(note)


def _note(told: str) -> None:
    click.echo(f"note: {told}", err=True)


@contextmanager
def _byte_progress(length: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not sys.stderr.isatty() or not length:
        yield lambda _: None
        return
    with click.progressbar(length=length, label="Tagging", file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _count_progress(label: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done * 1000 // total - bar.pos)


_WHY_NOT = {
    "too-short": "No suggestion: the text is too short to say (fewer than six words).",
    "not-english": "No suggestion: the text does not look like English.",
    "empty": "No suggestion: there is no text.",
}


def _suggestion_text(suggestion: Suggestion, with_evidence: bool) -> str:
    if suggestion.status != "ok":
        return _WHY_NOT[suggestion.status]
    if not suggestion.warnings:
        return "No warnings suggested. (The synopsis may leave things out.)"
    width = max(len(warning.tag) for warning in suggestion.warnings)
    lines = [f"{'tag':<{width}}  prob." + ("  because of" if with_evidence else "")]
    for warning in suggestion.warnings:
        phrases = ", ".join(f"“{' '.join(e.text.split())}”" for e in warning.evidence)
        lines.append(f"{warning.tag:<{width}}  {warning.probability:5.2f}  {phrases}".rstrip())
    return "\n".join(lines)


def _find_tag(taxonomy: Taxonomy, name: str) -> Tag:
    from difflib import get_close_matches

    found = taxonomy.resolve(name)
    if found is None:
        near = get_close_matches(name.lower(), taxonomy.ids, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`forewarn tags` lists them"
        raise click.UsageError(f"no tag {name!r}; {hint}")
    return taxonomy[found]


def _tag_list(taxonomy: Taxonomy) -> str:
    width = max(len(tag.id) for tag in taxonomy.tags)
    return "\n\n".join(
        f"{group}\n" + "\n".join(f"  {tag.id:<{width}}  {tag.label}" for tag in members)
        for group, members in taxonomy.groups.items()
    )


def _tag_text(taxonomy: Taxonomy, tag_: Tag) -> str:
    confused = [
        other
        for contrast in taxonomy.contrasts
        if tag_.id in contrast.tags
        for other in contrast.tags
        if other != tag_.id
    ]
    parts = (
        ("", f"{tag_.label} ({tag_.id}), in {tag_.group}"),
        ("Means", tag_.definition),
        ("The word", tag_.origin),
        ("Is not", tag_.exclude),
        ("Example", tag_.example),
        ("Also called", ", ".join(tag_.aliases)),
        ("Broader", ", ".join(taxonomy.ancestors(tag_.id))),
        ("Narrower", ", ".join(taxonomy.narrower(tag_.id))),
        ("Confused with", ", ".join(confused) and f"{', '.join(confused)} (see --versus)"),
    )
    return "\n".join(
        click.wrap_text(f"{name + ':':<15}{text}" if name else text, 90, "", " " * 15)
        for name, text in parts
        if text
    )


def _versus_text(taxonomy: Taxonomy, first: Tag, second: Tag) -> str:
    if first.id == second.id:
        return f"{first.label} and {second.label} are the same tag."
    text = taxonomy.contrast(first.id, second.id)
    lines = [f"{first.label} or {second.label}?", ""] + ([text, ""] if text else [])
    for tag_ in (first, second):
        other = second if tag_ is first else first
        implied = f" It brings {other.id} along." if other.id in taxonomy.ancestors(tag_.id) else ""
        not_ = f" Not: {tag_.exclude}" if tag_.exclude else ""
        lines.append(f"{tag_.id}: {tag_.definition}{not_}{implied}")
    return "\n".join(click.wrap_text(line, 90) for line in lines)
