"""Where the files that ship with Forewarn are: the taxonomy and the released models."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "shipped"
_IN_CHECKOUT = _PACKAGE.parent


def taxonomy_path() -> Path:
    """Path of the shipped `tags.toml`, in an installed wheel or in a checkout."""
    wheel = _IN_WHEEL / "tags.toml"
    return wheel if wheel.exists() else _IN_CHECKOUT / "data" / "tags.toml"


def models_path() -> Path:
    """Folder of the released models, one directory each, in a wheel or in a checkout."""
    wheel = _IN_WHEEL / "models"
    return wheel if wheel.exists() else _IN_CHECKOUT / "models"
