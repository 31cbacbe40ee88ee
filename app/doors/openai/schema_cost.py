"""What checking an answer against a caller's JSON Schema may cost, told from the schema alone.

A check cannot be broken off, and holds all requests of the process. References make small schemas grow
without end, and expressions take long to be compiled, so both are bounded before anything is made of a
schema.
"""

from collections.abc import Iterator
from typing import Any, Final

MOST_NODES: Final = 2_000
"""Objects of a schema in which each reference stands for what it refers to."""
_MOST_DEPTH: Final = 200
_MOST_PATTERNS: Final = 8
_MOST_PATTERN_CHARACTERS: Final = 200
_LISTS: Final = ("anyOf", "oneOf", "allOf")
_SINGLE: Final = ("not", "if", "then", "else")
_OTHER_REFERENCES: Final = ("$dynamicRef", "$recursiveRef")


def without_patterns(schema: Any) -> Any:
    """A copy without ``pattern``: expressions are told to the bot and not checked."""
    if isinstance(schema, dict):
        return {
            name: without_patterns(value)
            for name, value in schema.items()
            if name != "pattern" or not isinstance(value, str)
        }
    return [without_patterns(value) for value in schema] if isinstance(schema, list) else schema


def refuse_if_costly(schema: Any) -> None:
    """Raises ``ValueError`` saying what is too much."""
    _Walk(schema).cost(schema, 0)


class _Walk:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, tuple[int, bool]] = {}
        self._open: set[int] = set()
        self._patterns: list[str] = []
        version = str(root.get("$schema", "")) if isinstance(root, dict) else ""
        self._id = "id" if "draft-04" in version else "$id"

    def cost(self, node: Any, depth: int) -> tuple[int, bool]:
        """How many objects ``node`` is when it is unfolded, and whether it leads back to itself."""
        if not isinstance(node, dict | list):
            return 0, False
        if id(node) in self._known:
            return self._known[id(node)]
        if id(node) in self._open:
            return 0, True
        if depth > _MOST_DEPTH:
            raise ValueError(f"it is nested, or refers, more than {_MOST_DEPTH} levels deep")
        self._open.add(id(node))
        found = self._cost_of_object(node, depth) if isinstance(node, dict) else self._sum(node, depth)
        self._open.discard(id(node))
        if found[0] > MOST_NODES:
            raise ValueError(f"with its references written out it has more than {MOST_NODES} parts")
        self._known[id(node)] = found
        return found

    def _cost_of_object(self, node: dict[str, Any], depth: int) -> tuple[int, bool]:
        if any(isinstance(node.get(name), str) for name in _OTHER_REFERENCES):
            raise ValueError("$dynamicRef and $recursiveRef are not followed")
        if node is not self._root and isinstance(node.get(self._id), str):
            raise ValueError("a schema within the schema has an $id, so that its references are not followed")
        self._note_patterns(node)
        size, leads_back = self._sum(node.values(), depth)
        if isinstance(reference := node.get("$ref"), str):
            more, back = self.cost(self._target(reference), depth + 1)
            size, leads_back = size + more, leads_back or back
        # Each of these looks at the same part of the answer: two that lead back double the work at each
        # level.
        if leads_back and sum(self.cost(part, depth + 1)[1] for part in self._at_the_same_place(node)) > 1:
            raise ValueError("of anyOf, oneOf, allOf and the like only one part may lead back to the schema")
        return size + 1, leads_back

    def _sum(self, parts: Any, depth: int) -> tuple[int, bool]:
        found = [self.cost(part, depth + 1) for part in parts]
        return sum(size for size, _ in found), any(back for _, back in found)

    def _at_the_same_place(self, node: dict[str, Any]) -> Iterator[Any]:
        for name in _LISTS:
            if isinstance(parts := node.get(name), list):
                yield from parts
        yield from (node[name] for name in _SINGLE if name in node)
        if isinstance(dependent := node.get("dependentSchemas"), dict):
            yield from dependent.values()
        if isinstance(reference := node.get("$ref"), str):
            yield self._target(reference)

    def _target(self, reference: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise ValueError("references are followed within the schema alone, as #/$defs/name")
        node = self._root
        for part in reference[2:].split("/") if reference != "#" else ():
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(name)] if isinstance(node, list) else node[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError("a reference leads nowhere") from None
        return node

    def _note_patterns(self, node: dict[str, Any]) -> None:
        if isinstance(patterns := node.get("patternProperties"), dict):
            self._patterns += patterns
            if (
                len(self._patterns) > _MOST_PATTERNS
                or sum(map(len, self._patterns)) > _MOST_PATTERN_CHARACTERS
                or any("{" in pattern for pattern in self._patterns)
            ):
                raise ValueError(
                    f"patternProperties may have {_MOST_PATTERNS} short expressions without counts like {{3}}"
                )
