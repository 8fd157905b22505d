"""One sentence for every wrong parameter."""

from __future__ import annotations


def parameter_error(name: str, owner: str, wanted: str, got: object, remedy: str = "") -> ValueError:
    """A ValueError that names the parameter, what it must be, what it is, and the remedy."""
    sentence = f"The '{name}' parameter of {owner} must be {wanted}. Got {got!r} instead."
    return ValueError(f"{sentence}\n{remedy}" if remedy else sentence)
