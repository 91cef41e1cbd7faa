"""Reads YAML so that each setting's line is known, and a key that stands twice is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class LinedDocument:
    """What YAML text says; `lines` has the line, from 1, of each key and list item by its place."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def line_of(self, place: Sequence[str | int]) -> int | None:
        """Find the line of a setting, or of the innermost section around it that is there."""
        for length in range(len(place), 0, -1):
            if tuple(place[:length]) in self.lines:
                return self.lines[tuple(place[:length])]
        return None


class DuplicateKeyError(Exception):
    """A key stands twice in one section; `line` is that of the second, `first_line` that of the first."""

    def __init__(self, place: Place, line: int, first_line: int) -> None:
        super().__init__(f"{'.'.join(map(str, place))}: this key stands twice, first in line {first_line}")
        self.line = line


def read_yaml(text: str) -> LinedDocument:
    """Read one document. Raises yaml.YAMLError, and DuplicateKeyError, which YAML libraries let pass."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return LinedDocument(None)
        lines: dict[Place, int] = {}
        _note(node, (), lines)
        return LinedDocument(loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _note(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    """Write down the lines of everything below a node; an alias counts where it is defined."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines.setdefault((*place, number), item.start_mark.line + 1)
            _note(item, (*place, number), lines)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise DuplicateKeyError((*place, key.value), line, seen[key.value])
            seen[key.value] = line
            lines[(*place, key.value)] = line
            _note(value, (*place, key.value), lines)
