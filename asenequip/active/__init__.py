"""Active learning: explore, select, label, train, until fresh frames are predicted well enough.

Each step takes Atoms (or arrays) and gives Atoms back, and can be used alone: `select` and its parts, `cut_out`,
`label_frames`, `explore`; `run_campaign` puts them together, unattended and restartable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asenequip.lazy import lazy_names

if TYPE_CHECKING:
    from asenequip.active.campaign import run_campaign
    from asenequip.active.cutouts import cut_out
    from asenequip.active.ensemble import train_ensemble
    from asenequip.active.exploration import explore
    from asenequip.active.labellers import make_labeller
    from asenequip.active.labelling import label_frames
    from asenequip.active.novelty import Novelty, Sparsity
    from asenequip.active.selection import drop_duplicates, farthest_points, select, select_frames
    from asenequip.active.settings import Campaign, load_campaign
    from asenequip.active.store import LabelStore, structure_key

_HOMES = {
    "Campaign": "settings",
    "LabelStore": "store",
    "Novelty": "novelty",
    "Sparsity": "novelty",
    "cut_out": "cutouts",
    "drop_duplicates": "selection",
    "explore": "exploration",
    "farthest_points": "selection",
    "label_frames": "labelling",
    "load_campaign": "settings",
    "make_labeller": "labellers",
    "run_campaign": "campaign",
    "select": "selection",
    "select_frames": "selection",
    "structure_key": "store",
    "train_ensemble": "ensemble",
}

__all__ = [
    "Campaign",
    "LabelStore",
    "Novelty",
    "Sparsity",
    "cut_out",
    "drop_duplicates",
    "explore",
    "farthest_points",
    "label_frames",
    "load_campaign",
    "make_labeller",
    "run_campaign",
    "select",
    "select_frames",
    "structure_key",
    "train_ensemble",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
