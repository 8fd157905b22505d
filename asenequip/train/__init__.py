"""Training: from labelled frames to a potential.

`fit` does it from Python, ``asenequip-train config.yaml`` from the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asenequip.train.config import Config, load_config, parse_config
    from asenequip.train.run import fit

__all__ = ["Config", "fit", "load_config", "parse_config"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts at once."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module("asenequip.train.run" if name == "fit" else "asenequip.train.config")
    return getattr(module, name)
