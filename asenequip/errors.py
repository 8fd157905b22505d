"""The sentence that every wrong parameter gets, and the errors that concern one structure of many."""

from __future__ import annotations

BAD_STRUCTURE = (ValueError, RuntimeError, ArithmeticError, MemoryError)
"""Errors that concern one structure, so that the others of a batch go on; among them, as RuntimeErrors, are ASE's
InputError and CalculationFailed."""


def parameter_error(name: str, owner: str, wanted: str, got: object, remedy: str = "") -> ValueError:
    """A ValueError that names the parameter, what it must be, what it is, and the remedy."""
    sentence = f"The '{name}' parameter of {owner} must be {wanted}. Got {got!r} instead."
    return ValueError(f"{sentence}\n{remedy}" if remedy else sentence)
