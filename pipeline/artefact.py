"""A model on disk: a directory of data that is checked when loaded and never executed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline import release
from pipeline.decision import PROFILES, FloatArray, Thresholds
from pipeline.errors import ModelError, TaxonomyError
from pipeline.model import AnyModel, Model
from pipeline.record import FILE as RECORD
from pipeline.taxonomy import Taxonomy
from pipeline.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.accurate import AccurateModel

FORMAT = "forewarn-model"
SCHEMA_VERSION = 2
"""Of the files and of the features that the weights belong to; 2: denied words are features."""
_ARRAYS = ("idf", "weights", "bias")
_CONFIG, _VOCABULARY, _CARD = "config.json", "vocabulary.txt", "README.md"
_LINEAR_FILES = frozenset({_VOCABULARY, *(f"{array}.npy" for array in _ARRAYS)})
_ENCODER_FILES = frozenset({"encoder.onnx", "tokenizer.json"})
_FILES = {"linear": _LINEAR_FILES, "accurate": _LINEAR_FILES | _ENCODER_FILES}
"""The files of each kind of model beside its configuration."""
AUTO = "auto"
"""The accurate model, whose transformer reads only what its linear part is unsure about."""


def save_model(model: AnyModel, path: str | Path, card: str = "", record: str = "") -> None:
    """Write a model directory, whole or not at all.

    The directory holds `config.json` (schema version, kind, taxonomy, thresholds, provenance,
    SHA-256 of the other files), `vocabulary.txt` (a feature a line), `idf.npy`, `weights.npy`,
    `bias.npy`, and, where they are given, the model card `README.md` and the record of the
    training run, `run.json`. An accurate model also has `encoder.onnx` and `tokenizer.json`.
    What a model says depends on neither card nor record, so neither has a checksum.

    Raises:
        ModelError: `path` holds something that is not a model, or cannot be written.
    """
    import shutil

    target = Path(path)
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = _scratch(f".{target.name}-", target.parent)
        try:
            _write(model, scratch, {_CARD: card, RECORD: record})
            scratch.chmod(0o755)
            _swap(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror})") from error


def check_target(path: str | Path) -> None:
    """Make sure that a model can be saved at `path`: nothing there, an empty folder, or a model.

    Raises:
        ModelError: there is something else.
    """
    target = Path(path)
    if target.exists() and not _may_replace(target):
        raise ModelError(f"{target}: is there and is not a model; choose another folder")


def load_model(name: str | Path = "default") -> AnyModel:
    """Load a model by its directory or by the name of a released one; nothing is executed.

    The name `auto` loads the accurate model so that it reads with its transformer only those
    documents about which its linear part is unsure.

    Raises:
        ModelError: it is missing, damaged, of another format or of a newer schema.
    """
    if name == AUTO and not Path(name).is_dir():
        model = load_model(release.models_path() / "accurate")
        if isinstance(model, Model):
            raise ModelError("auto: needs the released accurate model; install forewarn again")
        from pipeline.accurate import AUTO_MARGIN

        return replace(model, margin=AUTO_MARGIN)
    folder = find_model(name)
    config = _read_config(folder)
    for file, digest in config["files"].items():
        if _sha256(folder / file, folder) != digest:
            raise ModelError(f"{folder}: {file} is damaged; fetch or train the model again")
    try:
        arrays = {
            key: np.load(folder / f"{key}.npy", allow_pickle=False, mmap_mode="r")
            for key in _ARRAYS
        }
        model = Model(
            taxonomy=Taxonomy.from_dict(config["taxonomy"], str(folder / _CONFIG)),
            tags=tuple(config["tags"]),
            vocabulary=Vocabulary((folder / _VOCABULARY).read_bytes()),
            idf=np.array(arrays["idf"]),
            weights=arrays["weights"],
            bias=np.array(arrays["bias"]),
            thresholds=_read_thresholds(config["thresholds"]),
            provenance=config["provenance"],
            folder=folder.absolute(),
        )
        blend = _read_blend(config, len(model.tags)) if config["kind"] == "accurate" else None
    except (KeyError, TypeError, ValueError, OSError, TaxonomyError) as error:
        raise ModelError(f"{folder}: does not hold together ({error}); train it again") from error
    _check(model, folder)
    return model if blend is None else _accurate(model, folder, blend)


def digest(folder: Path) -> str:
    """The checksum of the model in a folder: of its configuration, which has its files'.

    Raises:
        ModelError: there is no model.
    """
    return str(_read_config(folder)["digest"])


def model_files(folder: Path) -> list[Path]:
    """The files of the model in a folder, without its card.

    Raises:
        ModelError: there is no model.
    """
    return [folder / name for name in (_CONFIG, *_read_config(folder)["files"])]


def _read_blend(config: dict[str, Any], tags: int) -> dict[str, FloatArray]:
    names = ("share", "slope", "intercept")
    blend = {name: np.array(config["blend"][name], dtype=np.float64) for name in names}
    if any(values.shape != (tags,) or not np.isfinite(values).all() for values in blend.values()):
        raise ValueError("its blend does not fit its tags")
    return blend


def _accurate(linear: Model, folder: Path, blend: dict[str, FloatArray]) -> AccurateModel:
    from pipeline.accurate import AccurateModel
    from pipeline.encoder import Encoder

    return AccurateModel(
        linear=linear,
        encoder=Encoder(folder),
        share=blend["share"],
        slope=blend["slope"],
        intercept=blend["intercept"],
        provenance=linear.provenance,
    )


def _check(model: Model, folder: Path) -> None:
    shape = (len(model.vocabulary), len(model.tags))
    shapes = (model.weights.shape, model.idf.shape, model.bias.shape)
    if shapes != (shape, shape[:1], shape[1:]):
        raise ModelError(f"{folder}: its arrays do not fit its vocabulary; train it again")
    for array in (model.weights, model.idf, model.bias):
        if array.dtype.kind != "f" or not _is_finite(array):
            raise ModelError(f"{folder}: its arrays are not finite numbers; train it again")
    if len(set(model.tags)) != len(model.tags) or set(model.tags) - set(model.taxonomy.ids):
        raise ModelError(f"{folder}: its tags are not its taxonomy's; train it again")
    if any(values.shape != shape[1:] for values in model.thresholds.values.values()):
        raise ModelError(f"{folder}: its thresholds do not fit its tags; train it again")


def _is_finite(array: npt.NDArray[np.floating[Any]]) -> bool:
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    # Infinities and NaN have all bits of the exponent; in bits, this is four times as quick.
    bits = array.view(np.uint16) & np.uint16(0x7FFF)
    return bool(bits.max(initial=0) < 0x7C00)


def _may_replace(target: Path) -> bool:
    """Whether a folder is empty or a model, damaged or not, by the files in it."""
    if not target.is_dir():
        return False
    names = {path.name for path in target.iterdir()}
    return not names or {_CONFIG, *_LINEAR_FILES} <= names


def find_model(name: str | Path) -> Path:
    """The folder of a model, given its path or the name of a released one.

    Raises:
        ModelError: there is no such folder.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    released = release.models_path() / str(name)
    if os.sep not in str(name) and str(name) not in {"", ".", ".."} and released.is_dir():
        return released
    known = sorted(p.name for p in _entries(release.models_path()) if (p / _CONFIG).is_file())
    raise ModelError(
        f"{name}: no such model; give a folder that `forewarn train` wrote, "
        f"or one of: {', '.join(known) or 'none released'}"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder}: not a Forewarn model (no readable {_CONFIG})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: is damaged (not JSON); fetch or train the model again"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelError(f"{folder}: not a Forewarn model ({_CONFIG} is of another format)")
    version = config.get("schema_version")
    if not isinstance(version, int):
        raise ModelError(f"{path}: has no schema version; train the model again")
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{folder}: schema {version} is newer than this Forewarn reads ({SCHEMA_VERSION}); "
            "upgrade with: pip install -U forewarn"
        )
    if version < SCHEMA_VERSION:
        raise ModelError(
            f"{folder}: schema {version} is of an older Forewarn, whose features were others; "
            "train the model again"
        )
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in _FILES:
        raise ModelError(f"{folder}: unknown kind of model {kind!r}")
    files = config.get("files")
    if not isinstance(files, dict) or set(files) != _FILES[kind]:
        raise ModelError(f"{path}: does not list the model's files; train the model again")
    if config.get("digest") != _digest(config):
        raise ModelError(f"{path}: is damaged (its checksum differs); train the model again")
    return config


def _write(model: AnyModel, folder: Path, beside: dict[str, str]) -> None:
    linear = model if isinstance(model, Model) else model.linear
    for key in _ARRAYS:
        np.save(folder / f"{key}.npy", getattr(linear, key), allow_pickle=False)
    vocabulary = "".join(f"{name}\n" for name in linear.vocabulary)
    (folder / _VOCABULARY).write_text(vocabulary, encoding="utf-8", newline="\n")
    blend = {}
    if not isinstance(model, Model):
        import shutil

        for name in _ENCODER_FILES:
            shutil.copyfile(model.encoder.folder / name, folder / name)
        blend = {
            "blend": {
                "share": model.share.tolist(),
                "slope": model.slope.tolist(),
                "intercept": model.intercept.tolist(),
            }
        }
    config: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": "accurate" if blend else "linear",
        **blend,
        "tags": list(model.tags),
        "thresholds": {
            profile: {
                "values": [float(v) for v in model.thresholds.values[profile]],
                "reached": [bool(v) for v in model.thresholds.reached[profile]],
            }
            for profile in PROFILES
        },
        "provenance": model.provenance,
        "taxonomy": model.taxonomy.to_dict(),
        "files": {file.name: _sha256(file, folder) for file in sorted(folder.iterdir())},
    }
    config["digest"] = _digest(config)
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")
    for name, content in beside.items():
        if content:
            (folder / name).write_text(content, encoding="utf-8")


def _digest(config: dict[str, Any]) -> str:
    body = {key: value for key, value in config.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_thresholds(data: dict[str, Any]) -> Thresholds:
    return Thresholds(
        {profile: np.array(data[profile]["values"], dtype=np.float64) for profile in PROFILES},
        {profile: np.array(data[profile]["reached"], dtype=bool) for profile in PROFILES},
    )


def _sha256(path: Path, folder: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{folder}: {path.name} is missing; fetch or train it again") from error


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _scratch(prefix: str, folder: Path) -> Path:
    # Not imported above: a prediction need not wait for it.
    from tempfile import mkdtemp

    return Path(mkdtemp(prefix=prefix, dir=folder))


def _swap(scratch: Path, target: Path) -> None:
    import shutil

    if not target.exists():
        scratch.rename(target)
        return
    old = _scratch(f".{target.name}-old-", target.parent)
    target.rename(old / target.name)
    scratch.rename(target)
    shutil.rmtree(old)
