"""What can go wrong in a conversion."""

from __future__ import annotations


class ConversionError(ValueError):
    """A source that cannot be converted; the message names the fault and the remedy."""
