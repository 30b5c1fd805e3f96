"""The command line: it parses, calls one function, and prints."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline import __version__, terminal
from pipeline.errors import ForewarnError, TableError

if TYPE_CHECKING:
    from pipeline.corpus import Corpus
    from pipeline.model import AnyModel
    from pipeline.predictions import Predictions
    from pipeline.taxonomy import Tag, Taxonomy
    from pipeline.training import TrainingRun

_PROFILES = ("balanced", "cautious", "strict")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class _Group(click.Group):
    """Turns what ends a command into one line and an exit code of its own."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # mimalloc, PyArrow's own choice, holds some 20 MB more.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
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
        # joblib's, when Ctrl-C ends a command: it says what the user just asked for.
        warnings.filterwarnings("ignore", ".*still being processed by the workers")
        try:
            with _terminable():
                return super().invoke(ctx)
        except BaseException as error:
            # What tidies up may stumble, as joblib does over a thread that it had not started.
            interrupt = error
            while not isinstance(interrupt, KeyboardInterrupt):
                if interrupt.__context__ is None:
                    raise
                interrupt = interrupt.__context__
            if isinstance(interrupt, _Terminated):
                _ended("terminated", interrupt, 128 + signal.SIGTERM)
            _ended("interrupted", interrupt, 128 + signal.SIGINT)


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
_report_option = click.option(
    "--report",
    "report_file",
    metavar="FILE.html",
    help="Also write a page to look at. It holds texts of CORPUS: do not publish it.",
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
        click.echo(terminal.suggestion_text(suggestion, not no_evidence))


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
@_report_option
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
    report_file: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a model on tables with the columns synopsis and tags (and title, maybe, catalogue,
    group, id where you have them), and report how well it does on works that it had not seen.

    Tags are joined by ';'. A column `maybe` says that the rows were read for every tag, these
    aside; a column `catalogue` says that rows carry what their catalogue says, no more.

    \b
    Example:
      forewarn train my-labels.csv data/starter.csv -o models/mine --report mine.html
    """
    from pipeline import artefact, training
    from pipeline.corpus import COLUMNS, read_corpus
    from pipeline.taxonomy import load_taxonomy

    started = datetime.now(UTC)
    artefact.check_target(output)
    report = _report(report_file)
    corpus = read_corpus(corpora, load_taxonomy(tags_file), _columns(columns, set(COLUMNS)), texts)
    _remarks(corpus.notes)
    where = nullcontext() if dask is None else _cluster().training_on(dask)
    with where, _count_progress("Training", quiet) as progress:
        run = training.train(corpus, seed, jobs, folds, min_positives, progress=progress)
    options = {
        "seed": seed,
        "folds": folds,
        "min_positives": min_positives,
        "tags": tags_file and Path(tags_file).name,
        "columns": _columns(columns, set(COLUMNS)),
    }
    _keep(run, output, "train", started, texts, options)
    if report and report_file:
        with _count_progress("Report", quiet) as progress:
            page = report.training_report(run, Path(output).name, progress)
        report.save(page, report_file)
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
@_report_option
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
    report_file: str | None,
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

    from pipeline import artefact
    from pipeline.corpus import COLUMNS, read_corpus
    from pipeline.taxonomy import load_taxonomy

    started = datetime.now(UTC)
    finetuning = _extra("finetuning", "finetune", "fine-tuning")
    artefact.check_target(output)
    report = _report(report_file)
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
        options = {
            "seed": seed,
            "epochs": epochs,
            "min_positives": min_positives,
            "weights": weights and Path(weights).name,
            "teacher": teacher and Path(teacher).name,
            "unlabelled": [Path(path).name for path in unlabelled],
            "tags": tags_file and Path(tags_file).name,
            "columns": names,
        }
        _keep(run, output, "finetune", started, texts, options)
        if report and report_file:
            report.save(report.training_report(run, Path(output).name), report_file)
    _echo_run(run, output, min_positives)


@dataclass(frozen=True)
class _Scoring:
    """What `evaluate` and `compare` are asked for beside their models and corpora."""

    profile: str
    threshold: float | None
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    report_file: str | None
    as_json: bool
    quiet: bool

    def read(self, corpora: tuple[str, ...], taxonomy: Taxonomy) -> Corpus:
        """The corpora, with what there is to remark on."""
        from pipeline.corpus import COLUMNS, read_corpus

        corpus = read_corpus(corpora, taxonomy, _columns(self.columns, set(COLUMNS)), self.texts)
        _remarks(corpus.notes)
        return corpus

    def predict(self, model: AnyModel, name: str, corpus: Corpus) -> Predictions:
        """What a model says of the corpus, its progress shown."""
        from pipeline.predictions import learnt_from, predict_corpus

        _remarks(learnt_from(model, corpus, name))
        with _count_progress(f"Reading with {name}", self.quiet) as progress:
            return predict_corpus(model, corpus, self.threshold, progress)

    def shown(self, predictions: Predictions) -> str:
        """The suggestions whose figures are wanted: a threshold's, or a profile's."""
        return self.profile if self.threshold is None else next(iter(predictions.suggested))


def _scoring_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `_Scoring`."""
    options = (
        _profile_option,
        _threshold_option,
        _column_option,
        click.option("--texts", multiple=True, metavar="FILE", help="As for `forewarn train`."),
        _report_option,
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("model", metavar="MODEL")
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@_scoring_options
def evaluate(model: str, corpora: tuple[str, ...], **options: Any) -> None:
    """Score MODEL (a folder or a released name) on labelled corpora, on observed cells only.

    The corpora must be works that the model was not trained on for the figures to mean anything.

    \b
    Example:
      forewarn evaluate default my-labels.csv --report default.html
    """
    from pipeline import card
    from pipeline.artefact import load_model

    asked = _Scoring(**options)
    report = _report(asked.report_file)
    loaded = load_model(model)
    predictions = asked.predict(loaded, model, asked.read(corpora, loaded.taxonomy))
    shown = asked.shown(predictions)
    score = predictions.evaluate(shown)
    if report and asked.report_file:
        with _count_progress("Report", asked.quiet) as progress:
            page = report.evaluation_report(loaded, model, predictions, shown, progress)
        report.save(page, asked.report_file)
    if asked.as_json:
        click.echo(json.dumps(score.to_dict(), ensure_ascii=False))
    else:
        click.echo(card.headline(score) + "\n\n" + terminal.aligned(card.tag_rows(score)))


@main.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@_scoring_options
def compare(run_a: str, run_b: str, corpora: tuple[str, ...], **options: Any) -> None:
    """What changes from model RUN_A to RUN_B (folders or released names) on labelled corpora.

    Differences are B minus A, on the tags that both know, with intervals from works drawn alike
    for both. The corpora must be works that neither was trained on. --json has every changed row.

    \b
    Example:
      forewarn compare models/old models/mine my-labels.csv --report changes.html
    """
    from pipeline.artefact import load_model
    from pipeline.comparison import compare as compare_models

    asked = _Scoring(**options)
    report = _report(asked.report_file)
    models = load_model(run_a), load_model(run_b)
    corpus = asked.read(corpora, models[0].taxonomy)
    both = asked.predict(models[0], run_a, corpus), asked.predict(models[1], run_b, corpus)
    found = compare_models((run_a, run_b), both, asked.shown(both[0]))
    if report and asked.report_file:
        report.save(report.comparison_report(found, models, corpus), asked.report_file)
    if asked.as_json:
        click.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        click.echo(terminal.comparison_text(found))


@main.command()
@click.argument("folder", required=False, default=".", metavar="[DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole records as JSON.")
def runs(folder: str, as_json: bool) -> None:
    """List the training runs whose models are in DIR (or a few folders below), oldest first.

    Each run leaves its record, run.json, beside its model: options, versions, checksums of the
    data, held-out figures.

    \b
    Example:
      forewarn runs models
    """
    from dataclasses import asdict

    from pipeline.errors import RecordError
    from pipeline.record import find_records, read_record, summary

    found = []
    for path in find_records(Path(folder)):
        try:
            found.append((str(path.parent), read_record(path)))
        except RecordError as error:
            _remarks((str(error),))
    found.sort(key=lambda run: run[1].started)
    if as_json:
        click.echo(json.dumps([{"model": at, **asdict(run)} for at, run in found]))
    elif found:
        click.echo(terminal.runs_text([(at, summary(run)) for at, run in found]))
    else:
        click.echo(f"No training run has left its record in {folder}.")


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
        click.echo(
            json.dumps(taxonomy.to_dict()["tag"]) if as_json else terminal.tag_list(taxonomy)
        )
        return
    tag_ = _find_tag(taxonomy, name)
    if versus is not None:
        click.echo(terminal.versus_text(taxonomy, tag_, _find_tag(taxonomy, versus)))
    elif as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(tag_), ensure_ascii=False))
    else:
        click.echo(terminal.tag_text(taxonomy, tag_))


def _echo_run(run: TrainingRun, output: str, min_positives: int) -> None:
    from pipeline import card

    for name, count in run.left_out.items():
        click.echo(f"left out: {name} ({count} works have it; --min-positives {min_positives})")
    for profile, score in run.by_profile.items():
        click.echo(f"\nHeld-out works, {profile} profile\n{card.headline(score)}")
    click.echo("\n" + terminal.aligned(card.tag_rows(run.by_profile["balanced"])))
    click.echo(f"\nModel written to {output}")


def _keep(
    run: TrainingRun,
    output: str,
    command: str,
    started: datetime,
    texts: tuple[str, ...],
    options: dict[str, Any],
) -> None:
    """Save a run's model with its card and record, and tell MLflow where there is one."""
    from pipeline import artefact, card, record, tracking
    from pipeline.errors import RecordError

    made = record.record_run(run, command, options, started, texts)
    artefact.save_model(run.model, output, card.model_card(run, Path(output).name), made.to_json())
    if tracking.configured():
        try:
            tracking.track(made, Path(output))
        except RecordError as error:
            _remarks((str(error),))


def _report(file: str | None) -> Any:
    """The module that writes reports, if one is asked for and can be written."""
    if file is None:
        return None
    report = _extra("report", "report", "a report")
    report.check_target(file)
    return report


def _extra(module: str, extra: str, told: str) -> Any:
    """A module of the package that needs more libraries than the package does."""
    from importlib import import_module

    try:
        return import_module(f"pipeline.{module}")
    except ImportError as error:
        raise click.UsageError(
            f"{told} needs more libraries ({error.name}); install them with: "
            f"pip install 'forewarn[{extra}]'"
        ) from error


def _cluster() -> Any:
    import logging

    cluster = _extra("cluster", "dask", "--dask")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # What fails is told in one line.
    return cluster


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


def _find_tag(taxonomy: Taxonomy, name: str) -> Tag:
    from difflib import get_close_matches

    found = taxonomy.resolve(name)
    if found is None:
        near = get_close_matches(name.lower(), taxonomy.ids, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`forewarn tags` lists them"
        raise click.UsageError(f"no tag {name!r}; {hint}")
    return taxonomy[found]
