"""A calculator with the name and the constructor of ASE's EMT, and an Allegro potential inside."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from asenequip import AllegroCalculator
from asenequip.testing import emt_artifact


class EMT(AllegroCalculator):
    """The Allegro potential trained on EMT, in float64, under EMT's constructor.

    Parameters
    ----------
    asap_cutoff : bool
        Accepted and without effect.
    **options
        ASE's ``label``, ``directory``, ``restart`` and ``atoms``; the last gets this calculator.
    """

    def __init__(self, asap_cutoff: bool = False, **options: Any) -> None:
        unknown = set(options) - {"label", "directory", "restart", "atoms", "ignore_bad_restart_file", "command"}
        if unknown:
            raise TypeError(f"EMT has no parameter {sorted(unknown)}")
        super().__init__(emt_artifact(), device="cpu", dtype="float64")
        if options.get("atoms") is not None:
            options["atoms"].calc = self

    @property
    def rc(self) -> float:
        """Range of the interaction, Angstrom, under the name that EMT gives it."""
        return self.evaluator.potential.spec.cutoff

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.atoms, self.results = state["atoms"], state["results"]


def replace(module: ModuleType) -> None:
    """Put this class in the place of ``EMT`` in the module ``ase.calculators.emt``."""
    EMT.__module__ = module.__name__  # so that pickles and names refer to where it is found
    module.EMT = EMT  # type: ignore[attr-defined]
