"""Defaults from the section ``[asenequip]`` of ASE's configuration file (``~/.config/ase/config.ini``)."""

from __future__ import annotations

from pathlib import Path

_KEYS = ("model", "device", "dtype")


def calculator_defaults() -> dict[str, str]:
    """Model, device and dtype of a calculator that is made without a model.

    An example section::

        [asenequip]
        model = ~/potentials/li6ps5cl.asnq
        device = cuda
        dtype = float32

    Returns
    -------
    dict of str to str
        "model" always, "device" and "dtype" where they are set.

    Raises
    ------
    ValueError
        If the section names no model, or holds a key that is none of these.
    """
    from ase.config import cfg

    section = dict(cfg.parser["asenequip"]) if cfg.parser.has_section("asenequip") else {}
    unknown = sorted(set(section) - set(_KEYS))
    if unknown:
        raise ValueError(
            f"The section [asenequip] of ASE's configuration file has no key '{unknown[0]}'.\n"
            f"It may hold {', '.join(_KEYS)}."
        )
    if "model" not in section:
        raise ValueError(
            "The 'model' parameter of AllegroCalculator must be the path of a model.asnq file. Got nothing instead.\n"
            "Pass it, or name one in the section [asenequip] of ASE's configuration file: model = /path/to/model.asnq"
        )
    section["model"] = str(Path(section["model"]).expanduser())
    return section
