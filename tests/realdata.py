"""Where the published data sets lie that some tests read; without them those tests skip and say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(relative_path: str) -> Path:
    """A file or folder of the shared data, or a skip with its reason.

    Looked for in the folder that the environment variable ASENEQUIP_DATA names, else in ``shared/data`` beside or
    inside the repository.
    """
    repository = Path(__file__).resolve().parent.parent
    named = os.environ.get("ASENEQUIP_DATA")
    roots = [Path(named)] if named else [repository.parent / "shared/data", repository / "shared/data"]
    for root in roots:
        if (root / relative_path).exists():
            return root / relative_path
    looked = " or ".join(str(root) for root in roots)
    return pytest.skip(f"'{relative_path}' is not in {looked}; set ASENEQUIP_DATA to the folder that holds it")
