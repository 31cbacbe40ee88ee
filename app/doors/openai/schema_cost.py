"""What checking an answer against a caller's JSON Schema may cost, told from the schema and the answer's
length alone.

A check cannot be broken off, and holds all requests of the process. References make small schemas grow
without end, expressions take long to be compiled, and each value of an answer may be looked at by thousands
of parts of a schema, so all of this is bounded before anything is made of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeGuard

from app.doors.openai.schema_work import Work, work_of_pattern

MOST_NODES: Final = 2_000
"""Objects of a schema in which each reference stands for what it refers to."""
MOST_STEPS: Final = 200_000
"""Of one check: parts of the schema, each with each value that it may look at. About 0.2 µs each."""
_CHARACTERS_OF_A_VALUE: Final = 32
_MOST_DEPTH: Final = 200
_WORK_OF_A_LEAF: Final = 4
_WORK_OF_A_KEYWORD: Final = 1
_WORK_OF_A_NODE: Final = 20
"""One with schemas in it."""
_MOST_PATTERNS: Final = 8
_MOST_PATTERN_CHARACTERS: Final = 200
_STEPS_OF_A_PATTERN: Final = 200
_STEPS_OF_UNIQUE: Final = 5
_STEPS_OF_A_FRACTION: Final = 150
_NAMES_OF_A_STEP: Final = 8
_COUNTED: Final = frozenset(
    {"multipleOf", "patternProperties", "const", "enum", "anyOf", "oneOf", "allOf", "dependentRequired"}
    | {"dependencies", "required", "properties", "dependentSchemas"}
)
_NO_STEP: Final = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
_LISTS: Final = ("anyOf", "oneOf", "allOf")
_SINGLE: Final = ("not", "if", "then", "else")
_NAMED: Final = (
    "properties",
    "patternProperties",
    "dependentSchemas",
    "$defs",
    "definitions",
    "dependencies",
)
"""What schemas stand in under names that the caller chose."""
_OTHER_REFERENCES: Final = ("$dynamicRef", "$recursiveRef")
_RARE: Final = frozenset({*_OTHER_REFERENCES, "$id", "id", "patternProperties"})
_ELEMENTS: Final = ("items", "prefixItems", "additionalItems")
_BESIDE: Final = frozenset({*_LISTS, *_SINGLE, "dependentSchemas", "dependencies", "$ref"})
"""With schemas that look at the value itself."""
_NOT_PLAIN: Final = _RARE | {"$ref", "uniqueItems"}
_BELOW: Final = frozenset(
    {*_ELEMENTS, "contains", "properties", "patternProperties", "additionalProperties", "propertyNames"}
)
"""With schemas that look at what is in it."""
_PLAIN: Final = (str, int, float, type(None))
_WITH_PARTS: Final = (dict, list)
_UNCHECKED: Final = ("pattern", "unevaluatedProperties", "unevaluatedItems")


def without_unchecked(schema: Any) -> Any:
    """A copy without what is told to the bot and not checked: ``pattern``, whose steps nothing bounds, and
    ``unevaluated...``, which looks at everything beside it once more, at each level."""
    if isinstance(schema, list):
        return [without_unchecked(part) for part in schema] if _has_inner(schema) else schema
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without(name, value) if isinstance(value, _WITH_PARTS) else value
        for name, value in schema.items()
        if name not in _UNCHECKED
    }


def _without(name: str, value: Any) -> Any:
    if name in _NAMED and isinstance(value, dict):
        return {key: without_unchecked(part) for key, part in value.items()}
    return value if name in ("enum", "const") else without_unchecked(value)


class Cost(NamedTuple):
    """``nodes``: objects, unfolded. ``leads_back``: a reference does. ``steps``: of all that is in it;
    ``width``: of those that may look at one and the same value; ``levels``: how deep those are nested."""

    nodes: int = 0
    leads_back: bool = False
    steps: int = 0
    width: int = 0
    levels: int = 0

    def check_steps(self, text: str) -> int | None:
        """What it takes to check an answer that is this JSON; None where somebody would notice."""
        steps = self._width * _values_of(text)
        return steps if steps <= MOST_STEPS else None

    def reason_steps(self, value: Any, text: str) -> int | None:
        """What it takes to tell what does not fit, likewise: a fault is looked for once more at each level,
        and holds a copy of the answer for each part of the schema that did not fit."""
        steps = self._width * _values_of(text) * self.levels
        if steps > MOST_STEPS:
            return None
        steps *= _depth_of(value)
        return steps if steps <= MOST_STEPS else None

    @property
    def _width(self) -> int:
        # Parts that a schema leads back to meet the same value from each level above it, but only once each.
        return max(1, self.steps if self.leads_back else self.width)


_NOTHING: Final = Cost()


def _values_of(text: str) -> int:
    """At most so many are in it, names among them, and long texts as several. A comma in a text counts, too:
    that is cheaper than to look where each stands."""
    return 1 + sum(map(text.count, ",:[{")) + len(text) // _CHARACTERS_OF_A_VALUE


def _depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [each for parts in inner if not isinstance(parts, _PLAIN) for each in parts]
    return depth


def cost_of(schema: Any, work: Work | None = None) -> Cost:
    """``work``: what the request has left for making checks, of which this takes what it will be to make this
    one. Raises ``ValueError`` saying what is too much."""
    return _Walk(schema, work or Work()).cost(schema, 0)


class _Walk:
    def __init__(self, root: Any, work: Work) -> None:
        self._root = root
        self._work = work
        self._known: dict[int, Cost] = {}
        self._open: set[int] = set()
        self._patterns: list[str] = []
        version = str(root.get("$schema", "")) if isinstance(root, dict) else ""
        self._id = "id" if "draft-04" in version else "$id"

    def cost(self, node: Any, depth: int) -> Cost:
        if not isinstance(node, dict) and not (isinstance(node, list) and _has_inner(node)):
            return _NOTHING
        if (known := self._known.get(id(node))) is not None:
            return known
        if id(node) in self._open:
            return Cost(leads_back=True)
        if depth > _MOST_DEPTH:
            raise ValueError(f"it is nested, or refers, more than {_MOST_DEPTH} levels deep")
        if _is_plain(node):  # most are
            self._work.spend(_WORK_OF_A_LEAF + len(node) * _WORK_OF_A_KEYWORD)
            own = _own_steps(node)
            found = self._known[id(node)] = Cost(1, False, own, own, 1)
            return found
        self._work.spend(_work_of(node))
        self._open.add(id(node))
        found = self._cost_of_object(node, depth) if isinstance(node, dict) else self._sum(node, depth)
        self._open.discard(id(node))
        if found.nodes > MOST_NODES:
            raise ValueError(f"with its references written out it has more than {MOST_NODES} parts")
        self._known[id(node)] = found
        return found

    def _cost_of_object(self, node: dict[str, Any], depth: int) -> Cost:
        if not _RARE.isdisjoint(node):
            self._refuse_unfollowed(node)
            self._note_patterns(node)
        parts = list[Any]()
        for name, value in node.items():
            if isinstance(value, dict) and name in _NAMED:
                parts += value.values()
            elif isinstance(value, _WITH_PARTS):
                parts.append(value)
        if isinstance(reference := node.get("$ref"), str):
            parts.append(self._target(reference))
        inside = self._sum(parts, depth) if parts else _NOTHING
        own = _own_steps(node)
        unique = _STEPS_OF_UNIQUE if "uniqueItems" in node else 0  # looks at all that is in the list
        if inside is _NOTHING:
            return Cost(1, False, own + unique, own + unique, 1)

        def each(found: Iterable[Any]) -> list[Cost]:
            return [self.cost(part, depth + 1) for part in found if isinstance(part, _WITH_PARTS)]

        beside = each(self._at_the_same_place(node)) if not _BESIDE.isdisjoint(node) else []
        below = list[list[list[Cost]]]()
        if not _BELOW.isdisjoint(node):
            below = [[each(group) for group in groups] for groups in (_elements(node), _members(node))]
        if inside.leads_back and _together(beside, below, lambda cost: cost.leads_back) > 1:
            # Each of these looks at the same part of the answer: two that lead back double the work at each
            # level.
            raise ValueError("of anyOf, oneOf, allOf and the like only one part may lead back to the schema")
        return Cost(
            inside.nodes + 1,
            inside.leads_back,
            inside.steps + own + unique,
            _together(beside, below, lambda cost: cost.width, own) + unique,
            max([inside.levels, *(cost.levels + 1 for cost in beside), 1]),
        )

    def _sum(self, parts: Iterable[Any], depth: int) -> Cost:
        found = [self.cost(part, depth + 1) for part in parts if isinstance(part, _WITH_PARTS)]
        found = [cost for cost in found if cost is not _NOTHING]
        if len(found) < 2:
            return found[0] if found else _NOTHING
        return Cost(
            sum(cost.nodes for cost in found),
            any(cost.leads_back for cost in found),
            sum(cost.steps for cost in found),
            sum(cost.width for cost in found),
            max(cost.levels for cost in found),
        )

    def _at_the_same_place(self, node: dict[str, Any]) -> Iterator[Any]:
        for name in _LISTS:
            if isinstance(parts := node.get(name), list):
                yield from parts
        yield from (node[name] for name in _SINGLE if name in node)
        for name in ("dependentSchemas", "dependencies"):
            if isinstance(dependent := node.get(name), dict):
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

    def _refuse_unfollowed(self, node: dict[str, Any]) -> None:
        if any(isinstance(node.get(name), str) for name in _OTHER_REFERENCES):
            raise ValueError("$dynamicRef and $recursiveRef are not followed")
        if node is not self._root and isinstance(node.get(self._id), str):
            raise ValueError("a schema within the schema has an $id, so that its references are not followed")

    def _note_patterns(self, node: dict[str, Any]) -> None:
        if isinstance(patterns := node.get("patternProperties"), dict):
            new = [pattern for pattern in patterns if pattern not in self._patterns]  # each is compiled once
            self._patterns += patterns
            if (
                len(self._patterns) > _MOST_PATTERNS
                or sum(map(len, self._patterns)) > _MOST_PATTERN_CHARACTERS
                or any("{" in pattern for pattern in self._patterns)
            ):
                raise ValueError(
                    f"patternProperties may have {_MOST_PATTERNS} short expressions without counts like {{3}}"
                )
            self._work.spend(sum(map(work_of_pattern, new)))


def _is_plain(node: dict[str, Any] | list[Any]) -> TypeGuard[dict[str, Any]]:
    """A schema with nothing in it but plain values, which says nothing of the few things that are counted in
    another way."""
    if isinstance(node, list) or not _NOT_PLAIN.isdisjoint(node):
        return False
    return not any(isinstance(value, _WITH_PARTS) for value in node.values())


def _work_of(node: dict[str, Any] | list[Any]) -> int:
    if isinstance(node, list):
        return _WORK_OF_A_LEAF
    inner = [value for value in node.values() if isinstance(value, _WITH_PARTS)]
    work = sum(map(len, inner)) + len(node) * _WORK_OF_A_KEYWORD
    if isinstance(reference := node.get("$ref"), str):
        work += len(reference) // 2  # it is followed part by part
    is_leaf = "$ref" not in node and not any(isinstance(part, dict) or _has_inner(part) for part in inner)
    return work + (_WORK_OF_A_LEAF if is_leaf else _WORK_OF_A_NODE)


def _has_inner(parts: list[Any]) -> bool:
    return any(isinstance(part, _WITH_PARTS) for part in parts)


def _together(
    beside: list[Cost], below: list[list[list[Cost]]], of: Callable[[Cost], int], own: int = 0
) -> int:
    """What may meet at one value: the value itself, or one of those in it."""
    found = (sum(max(map(of, group), default=0) for group in groups) for groups in below)
    deepest = max(found, default=0)
    return sum(map(of, beside)) + max(own, deepest)


def _elements(node: dict[str, Any]) -> list[list[Any]]:
    """Schemas of what is in a list, in groups of which one alone looks at each element."""
    found: list[Any] = []
    for name in _ELEMENTS:
        part = node.get(name)
        found += part if isinstance(part, list) else [part]
    return [found, [node.get("contains")]]


def _members(node: dict[str, Any]) -> list[list[Any]]:
    """As ``_elements``, of what is in an object."""
    named, patterns = node.get("properties"), node.get("patternProperties")
    found = list(named.values()) if isinstance(named, dict) else []
    each = [[part] for part in patterns.values()] if isinstance(patterns, dict) else []
    return [[*found, node.get("additionalProperties")], *each, [node.get("propertyNames")]]


def _own_steps(node: dict[str, Any]) -> int:
    """Of its keywords without the schemas in them."""
    steps = 0
    for name, value in node.items():
        if name in _COUNTED:
            steps += _steps_of(name, value)
        elif name not in _NO_STEP:
            steps += 1
    return steps


def _steps_of(name: str, value: Any) -> int:
    if name == "multipleOf":
        return 2 if isinstance(value, int) else _STEPS_OF_A_FRACTION
    if not isinstance(value, _WITH_PARTS):
        return 1
    if name == "patternProperties":
        return 1 + len(value) * _STEPS_OF_A_PATTERN
    if name == "const" or (name == "enum" and isinstance(value, list) and _has_inner(value)):
        return _entries(value)  # compared one by one; an enum of plain ones is looked up
    if name in _LISTS:
        return 1 + len(value)
    if name in ("dependentRequired", "dependencies"):
        return 1 + _entries(value) // _NAMES_OF_A_STEP
    return 1 if name == "enum" else 1 + len(value) // _NAMES_OF_A_STEP


def _entries(value: dict[str, Any] | list[Any]) -> int:
    """All values in it, and itself. Each level of it was passed by ``cost``, so there are not too many."""
    parts = value.values() if isinstance(value, dict) else value
    return 1 + sum(_entries(part) if isinstance(part, _WITH_PARTS) else 1 for part in parts)
