"""The small potential that the package carries for tests."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def emt_artifact() -> Path:
    """A float64 Allegro potential trained on ASE's effective-medium theory: H C N O Al Ni Cu Pd Ag Pt Au.

    Made by ``examples/make_emt_artifact.py``. For tests and demonstrations; of no use for science, as EMT itself is not
    for the light elements.

    Returns
    -------
    Path
        A ``model.asnq`` file.

    Raises
    ------
    FileNotFoundError
        If the package was installed without its data.
    """
    path = Path(str(files("asenequip.data").joinpath("emt.asnq")))
    if not path.is_file():
        raise FileNotFoundError(
            f"The potential for tests is not at '{path}'.\n"
            "Make it with examples/make_emt_artifact.py, or install the package anew."
        )
    return path
