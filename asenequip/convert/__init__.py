"""nequip-allegro 0.8 checkpoints and packages become ``model.asnq``: same energies, forces and stress, or no file."""

from asenequip.convert.errors import ConversionError
from asenequip.convert.run import convert
from asenequip.convert.weights import convert_weights

__all__ = ["ConversionError", "convert", "convert_weights"]
