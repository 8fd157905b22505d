"""Settings as they are written: YAML files, and single values from the command line."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from asenequip.train.config import Config, ConfigError, parse_config

_YAML = (".yaml", ".yml", ".json")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides such as ``model.l_max=2``, and validate.

    Labelled frames (a file, a folder of databases, or a pattern) stand for the settings that `init` makes for them.

    Raises
    ------
    ConfigError
    """
    path = Path(path)
    if path.suffix not in _YAML and (path.exists() or has_magic(str(path))):
        return parse_config(apply_overrides(_settings_for(path), overrides))
    name = path.with_suffix("").name + ".yaml"
    remedy = f"Give labelled frames instead, or write settings for them with: asenequip-train init FRAMES -o {name}"
    return parse_config(read_settings(path, overrides, remedy))


def _settings_for(data: Path) -> dict[str, Any]:
    """What settings made from labelled frames say of them; all else is left open."""
    import yaml

    from asenequip.train.init import suggest_settings

    try:
        values: dict[str, Any] = yaml.safe_load(suggest_settings(data))
    except ConfigError as error:
        raise ConfigError(f"{error}\nIf it holds settings, let its name end in .yaml.") from None
    return {name: value for name, value in values.items() if name not in ("model", "training")}


def read_settings(path: str | Path, overrides: Sequence[str], remedy: str) -> dict[str, Any]:
    """Plain settings of a YAML file with overrides put in place; ``remedy`` is said where there is no file.

    Raises
    ------
    ConfigError
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.\n{remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path} is not a YAML file: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings as 'name: value' lines. Got {type(values).__name__} instead.")
    return apply_overrides(values, overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``values`` with ``section.name=value`` settings (values in YAML form) put in place."""
    import yaml

    values = copy.deepcopy(values)
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set must be given as section.name=value. Got {text!r} instead.")
        *sections, last = name.strip().split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {text}: '{section}' is not a section of the settings.")
        target[last] = yaml.safe_load(value)
    return values
