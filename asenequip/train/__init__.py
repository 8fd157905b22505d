"""Training: from labelled frames to a potential.

`fit` does it from Python, ``asenequip-train config.yaml`` from the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asenequip.lazy import lazy_names

if TYPE_CHECKING:
    from asenequip.train.config import Config, parse_config
    from asenequip.train.run import fit
    from asenequip.train.settings_file import load_config

__all__ = ["Config", "fit", "load_config", "parse_config"]

__getattr__, __dir__ = lazy_names(
    __name__, {"Config": "config", "fit": "run", "load_config": "settings_file", "parse_config": "config"}
)
