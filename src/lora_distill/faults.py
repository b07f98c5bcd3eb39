"""Settings made of what a user gave, and what is wrong with it, in words."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lora_distill.errors import UserError

Settings = TypeVar("Settings", bound=BaseModel)


def make_settings(kind: type[Settings], values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    """The settings of a kind that these values give.

    Args:
        kind: of the settings.
        values: field name to value, as a string from a flag or as YAML gives it.
        origins: field name to where the value stands, for messages (`--alpha`, `x.yaml, line 3: alpha`).

    Raises:
        UserError: with one line for each of the first three faults.
    """
    faults = find_faults(kind, values, origins)
    if faults:
        more = f"\n({len(faults) - 2} more faults)" if len(faults) > 3 else ""
        raise UserError("\n".join(faults[: 2 if more else 3]) + more)
    return kind(**values)


def find_faults(kind: type[BaseModel], values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """One line for each fault of these values; empty when they make settings of that kind."""
    return [_describe(fault, origins, kind) for fault in _errors(kind, values)]


def sound(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """These values without those that are at fault."""
    faulty = {fault["loc"][0] for fault in _errors(kind, values)}
    return {name: value for name, value in values.items() if name not in faulty}


def _errors(kind: type[BaseModel], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        kind(**values)
    except ValidationError as error:
        return list(map(dict, error.errors()))
    return []


_REASONS = {
    "bool_parsing": "is neither true nor false",
    "byte_size": "is no size",
    "byte_size_unit": "is no size",
    "dict_type": "is no mapping",
    "float_parsing": "is no number",
    "int_from_float": "is no whole number",
    "int_parsing": "is no whole number",
    "string_pattern_mismatch": "is not allowed",
    "tuple_type": "is no list",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _describe(fault: dict[str, Any], origins: Mapping[str, str], kind: type[BaseModel]) -> str:
    name = str(fault["loc"][0])
    where = origins.get(name, name)
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such setting{suggest(name, kind.model_fields)}"
    field, reason = kind.model_fields[name], _REASONS.get(fault["type"])
    if reason:
        bounds = [
            f"{_BOUNDS[key]} {getattr(rule, key)}" for rule in field.metadata for key in _BOUNDS if hasattr(rule, key)
        ]
        reason += f"; it must be {' and '.join(bounds)}" if bounds else ""
    else:
        reason = re.sub(r"^(Input|String|Value error,) ?", "", fault["msg"])
    return f"{where}: {repr(fault['input'])[:80]} {reason}. It is: {field.description}."


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` for the nearest of the known names, or the empty string; the prefix goes before X."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
