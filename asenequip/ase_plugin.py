"""What ASE finds under the entry point group ``ase.plugins``: the calculator, by name, not imported until used."""

from __future__ import annotations

from typing import Any

__all__ = ["__ase_plugins__"]


def _plugins() -> frozenset[Any]:
    try:
        from ase._4.plugins.plugin import CalculatorPlugin
    except ImportError:  # an ASE before 3.29
        return frozenset()
    return frozenset(
        {
            CalculatorPlugin(
                name="allegro",
                citation="Musaelian et al., Nat. Commun. 14, 579 (2023), doi:10.1038/s41467-023-36329-y",
                implementation="asenequip.calculator.AllegroCalculator",
            )
        }
    )


__ase_plugins__ = _plugins()
