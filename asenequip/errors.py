"""One sentence for every wrong parameter, and which errors are a structure's own."""

from __future__ import annotations

BAD_STRUCTURE = (ValueError, RuntimeError, ArithmeticError, MemoryError)
"""Errors that are a structure's own; InputError and CalculationFailed are RuntimeErrors."""


def parameter_error(name: str, owner: str, wanted: str, got: object, remedy: str = "") -> ValueError:
    """A ValueError that names the parameter, what it must be, what it is, and the remedy."""
    sentence = f"The '{name}' parameter of {owner} must be {wanted}. Got {got!r} instead."
    return ValueError(f"{sentence}\n{remedy}" if remedy else sentence)
