"""YAML that knows its lines: values as safe_load gives them, and the line of every key."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_distill.errors import UserError
from lora_distill.faults import suggest


@dataclass(frozen=True)
class YamlMapping:
    """A mapping of a YAML file.

    Attributes:
        path: the file, for messages.
        values: key to value; a value that is a mapping is a YamlMapping again.
        lines: key to its line, counted from 1.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def origin(self, key: str) -> str:
        """Where a key stands, for messages."""
        return f"{self.path}, line {self.lines[key]}: {key}"

    def place(self, key: str) -> str:
        """The same of a key that may be left out."""
        return self.origin(key) if key in self.lines else f"{self.path}: {key}"

    def plain(self) -> dict[str, Any]:
        """The values as ordinary dicts."""
        return {key: plain(value) for key, value in self.values.items()}

    def origins(self) -> dict[str, str]:
        """Every key's origin."""
        return {key: self.origin(key) for key in self.values}

    def strange_keys(self, what: str, keys: Iterable[str]) -> list[str]:
        """A fault for each key that is none of those that `what`, such as "a suite", has."""
        known = list(keys)
        return [
            f"{self.origin(key)}: no such key{suggest(key, known)}; {what} has {', '.join(known)}"
            for key in self.values
            if key not in known
        ]

    def own_name(self) -> str:
        """What the file calls itself under `name`; where that is left out or empty, what the file is called."""
        given = self.values.get("name")
        return self.path.stem if given in (None, "") else str(plain(given))

    def section(self, key: str, wanted: str, faults: list[str]) -> "YamlMapping":
        """The mapping under a key; an empty one where it is left out, and with a fault where it is something else.

        Args:
            key: of this mapping.
            wanted: what it must hold, for the fault.
            faults: grows by that.
        """
        value = self.values.get(key)
        if isinstance(value, YamlMapping):
            return value
        if value is not None:
            faults.append(f"{self.origin(key)}: must hold {wanted}")
        return YamlMapping(self.path, {}, {})


def plain(value: Any) -> Any:  # noqa: ANN401 - what YAML gives
    """A value as safe_load gives it."""
    return value.plain() if isinstance(value, YamlMapping) else value


def read_yaml(path: Path) -> YamlMapping:
    """Read a YAML file whose top is a mapping.

    Raises:
        UserError: the file is missing, is no text, is no YAML, is no mapping or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    except (FileNotFoundError, ValueError):  # a name with NUL in it can be no file's
        raise UserError(f"{path}: no such file. Give the path of a YAML file.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlMapping(path, {}, {})
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: must hold `key: value` lines.")
        return _mapping(loader, node, path)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{path}, line {line}: not YAML: {reason}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no characters, no numbers or dates, no end
        raise UserError(f"{path}: not YAML that can be read: {' '.join(str(error).split())}.") from None


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, path: Path) -> YamlMapping:
    own: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key, line = str(loader.construct_object(key_node, deep=True)), key_node.start_mark.line + 1
        if key in own:
            raise UserError(f"{path}, line {line}: {key} stands twice, first in line {own[key]}.")
        own[key] = line
    loader.flatten_mapping(node)  # puts what `<<` merges before the mapping's own keys, which win
    node.value = list({str(loader.construct_object(pair[0], deep=True)): pair for pair in node.value}.values())
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        lines[key] = key_node.start_mark.line + 1
        is_mapping = isinstance(value_node, yaml.MappingNode)
        values[key] = (
            _mapping(loader, value_node, path) if is_mapping else loader.construct_object(value_node, deep=True)
        )
    return YamlMapping(path, values, lines)
