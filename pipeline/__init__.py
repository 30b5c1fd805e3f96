"""Forewarn: content-warning tags suggested from a synopsis.

>>> from pipeline import load_model
>>> model = load_model()
>>> model.suggest("After her husband is murdered, a widow hunts the killers.").warnings
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.3.1"
__all__ = [
    "AccurateModel",
    "ForewarnError",
    "Model",
    "Taxonomy",
    "load_model",
    "load_taxonomy",
    "train",
]

if TYPE_CHECKING:
    from pipeline.accurate import AccurateModel
    from pipeline.artefact import load_model
    from pipeline.errors import ForewarnError
    from pipeline.model import Model
    from pipeline.taxonomy import Taxonomy, load_taxonomy
    from pipeline.training import train

_HOMES = {
    "AccurateModel": "accurate",
    "ForewarnError": "errors",
    "Model": "model",
    "Taxonomy": "taxonomy",
    "load_model": "artefact",
    "load_taxonomy": "taxonomy",
    "train": "training",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import pipeline` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
