"""What is said of wrong settings: where, what is known there, and the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"section.name": value}."""
    if not isinstance(values, dict) or (not values and prefix):
        return {prefix: values}
    out: dict[str, Any] = {}
    for key, value in values.items():
        out.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return out


def sentence(item: Any, root: type[BaseModel]) -> str:
    """One line for one of pydantic's errors; ``root`` is the model of all settings."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _names_at(item["loc"][:-1], root)
        name = str(item["loc"][-1])
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        if not close:
            names = {setting.rsplit(".", 1)[-1]: setting for setting in _every_setting(root)}
            close = [names[found] for found in difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)]
        hint = f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(known)}."
        return f"The settings have no '{where}'.{hint}"
    if item["type"] == "missing":
        return f"The setting '{where}' is missing."
    if item["type"] == "model_type":
        return f"'{where}' is a section: it must hold settings as 'name: value' lines. Got {item['input']!r} instead."
    message = item["msg"].removeprefix("Value error, ")
    place = f"The setting '{where}' is wrong" if where else "The settings are wrong"
    got = "" if isinstance(item["input"], dict) else f" Got {item['input']!r} instead."
    return f"{place}: {message[0].lower()}{message[1:]}.{got}"


def _every_setting(section: Any, prefix: str = "") -> list[str]:
    """Names of all settings as "section.name"."""
    found = []
    for name, entry in section.model_fields.items():
        inner = _section_of(entry.annotation)
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        found += _every_setting(inner, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return found


def _names_at(location: Sequence[Any], root: type[BaseModel]) -> list[str]:
    """Names of the settings of the section at a location such as ("data", "train", 0)."""
    model: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            continue
        model = _section_of(field.annotation)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_of(annotation: Any) -> Any:
    """The section class inside an annotation such as list[Dataset] or Pair | None."""
    from typing import get_args

    if isinstance(annotation, type) and not get_args(annotation):
        return annotation
    for inner in get_args(annotation):
        found = _section_of(inner)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None
