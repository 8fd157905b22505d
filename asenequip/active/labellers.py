"""Calculators that label, by name: effective-medium theory, GFN-xTB, anything of ASE's, any factory of the user's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ase.calculators.calculator import BaseCalculator


@dataclass(frozen=True)
class Labeller:
    """What makes the calculator of each structure; plain, so that it can travel to other processes.

    Attributes
    ----------
    name : str
        "emt" or another of ASE's names ("espresso", "vasp", "orca" ...), "tblite:GFN1-xTB", or
        "package.module:factory".
    options : dict
        JSON-able keyword arguments of the calculator or factory; for "espresso" also "command" and "pseudo_dir", where
        ASE's configuration does not name them.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Name and settings: labels of other settings are other labels."""
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}"

    def make(self, directory: str | None = None) -> BaseCalculator:
        """A fresh calculator.

        Parameters
        ----------
        directory : str, optional
            Where a calculator that runs a program keeps its files.

        Raises
        ------
        ValueError
            If there is no calculator of that name.
        ImportError
            If a package is missing.
        """
        kind, _, detail = self.name.partition(":")
        if kind.lower() == "tblite":
            return _tblite(detail or "GFN2-xTB", self.options)
        if kind == "espresso" and {"command", "pseudo_dir"} & set(self.options):
            return _espresso(self.options, directory)
        calculator = _from_factory(kind, detail, self.options) if detail else _from_ase(self.name, self.options)
        if directory is not None and hasattr(calculator, "directory"):
            calculator.directory = directory
        return calculator


def make_labeller(name: str, **options: Any) -> Labeller:
    """A labeller by name, tried out once; see `Labeller`.

    Raises
    ------
    ValueError, ImportError
        At once, instead of in every process that labels.
    """
    labeller = Labeller(name, options)
    try:
        json.dumps(options)
    except TypeError as error:
        raise ValueError(
            f"The options of the labeller '{name}' must be plain (numbers, strings, lists, mappings): {error}\n"
            "Put what is not into a factory of your own: 'package.module:factory'."
        ) from None
    try:
        calculator = labeller.make()
    except TypeError as error:
        raise ValueError(
            f"The labeller '{name}' cannot be made with the options {json.dumps(options)}: {error}\n"
            "Correct the options."
        ) from error
    missing = {"energy", "forces"} - set(getattr(calculator, "implemented_properties", ()))
    if missing:
        raise ValueError(
            f"The labeller '{name}' must be a calculator that gives energy and forces. "
            f"{type(calculator).__name__} gives no {' and no '.join(sorted(missing))}."
        )
    return labeller


def _tblite(method: str, options: Mapping[str, Any]) -> BaseCalculator:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError(
            "The labeller 'tblite' needs tblite, which is not installed.\nInstall it with: pip install tblite"
        ) from error
    return TBLite(method=method, **{"verbosity": 0, **options})


def _espresso(options: Mapping[str, Any], directory: str | None) -> BaseCalculator:
    from ase.calculators.espresso import Espresso, EspressoProfile

    rest = {k: v for k, v in options.items() if k not in ("command", "pseudo_dir")}
    profile = EspressoProfile(command=options.get("command", "pw.x"), pseudo_dir=options.get("pseudo_dir"))
    return Espresso(profile=profile, **rest, **({} if directory is None else {"directory": directory}))


def _from_factory(module: str, name: str, options: Mapping[str, Any]) -> BaseCalculator:
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The labeller '{module}:{name}' must be an importable function that gives a calculator: {error}"
        ) from error
    return factory(**options)


def _from_ase(name: str, options: Mapping[str, Any]) -> BaseCalculator:
    from ase.calculators.calculator import get_calculator_class

    try:
        kind = get_calculator_class(name)
    except (ImportError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"ASE has no calculator '{name}': {error}\n"
            "Give one of its names (emt, espresso, vasp ...), tblite:GFN1-xTB, or package.module:factory."
        ) from error
    return kind(**options)
