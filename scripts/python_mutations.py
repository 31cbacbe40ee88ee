"""One small change at a time to a decision in Python: a comparison, a condition, ``and``, ``or``, ``not``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from scripts.lua_mutations import Mutation

_COMPARED: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}


class Decision(NamedTuple):
    """A mutation within the function of that qualified name."""

    function: str
    mutation: Mutation


def decisions(source: str, functions: Sequence[str]) -> list[Decision]:
    """All that can be changed in ``functions`` (qualified names; none: in all)."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines()

    def place(row: int, column: int) -> int:
        return starts[row - 1] + len(lines[row - 1].encode()[:column].decode())

    found = []
    for name, function in _functions(ast.parse(source), ""):
        if functions and name not in functions:
            continue
        for node in ast.walk(function):
            spots = _of(node)
            for first, last, before, instead, kind in spots:
                begin, end = place(*first), place(*last)
                if before:
                    begin = source.index(before, begin)
                    end = begin + len(before)
                found.append(Decision(name, Mutation(begin, end, instead, kind)))
    return sorted(
        set(found), key=lambda each: (each.mutation.begin, each.mutation.end, each.mutation.instead)
    )


_Place = tuple[int, int]


def _of(node: ast.AST) -> Iterator[tuple[_Place, _Place, str, str, str]]:
    """From where to where, what is looked for in between ("" = all of it), what stands there instead."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        before, instead = _COMPARED[type(node.ops[0])]
        yield _end(node.left), _begin(node.comparators[0]), before, instead, "turn comparison"
    if isinstance(node, ast.BoolOp):
        before, instead = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield _end(left), _begin(right), f" {before} ", f" {instead} ", "swap"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _begin(node), _begin(node.operand), "", "", "drop not"
    if isinstance(node, ast.If | ast.IfExp):
        for value in ("True", "False"):
            yield _begin(node.test), _end(node.test), "", value, f"always {value.lower()}"


def _begin(node: ast.expr) -> _Place:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> _Place:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
