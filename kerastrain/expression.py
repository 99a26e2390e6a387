"""Names with arguments, as they are written on the command line.

    parse("sgd(momentum=0.9)", flag="optimizer")     # Call("sgd", (), {"momentum": 0.9}, …)
    parse("patience(5) or target(0.995)", flag="stop")     # Either((Call(…), Call(…)))

The grammar is that of Python's expressions (read by `ast`, and never run): calls whose
arguments are numbers, texts, True, False, None, lists, other expressions, or bare words, which
are texts; joined by `and` and `or`, or by `&` and `|`. Errors point at the character.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kerastrain.errors import ArgumentError, KerastrainError, OptionsError, suggestion

Made = TypeVar("Made")

# Of a long text, to each side of the place where it is wrong.
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Call:
    """A name with its arguments; `positions` are the columns of the name ("") and of keywords."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        shown = [_shown(value) for value in self.arguments]
        shown += [f"{name}={_shown(value)}" for name, value in self.keywords.items()]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


@dataclass(frozen=True)
class Either:
    """Parts joined by `or`."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Both:
    """Parts joined by `and`."""

    parts: tuple[Expression, ...]


Expression = Call | Either | Both


def parse(text: str, *, flag: str) -> Expression:
    """Reads an expression.

    Args:
        flag: its name, for messages.

    Raises:
        OptionsError: the text is no such expression; the message points at the place.
    """
    return _Reader(text, flag).read()


def parse_call(text: str, *, flag: str) -> Call:
    """Reads one name with its arguments.

    Raises:
        OptionsError: the text is something else.
    """
    found = parse(text, flag=flag)
    if not isinstance(found, Call):
        raise pointed(text, flag, 0, "one name is expected here, without 'and' and 'or'")
    return found


def pointed(text: str, flag: str, column: int, says: str) -> OptionsError:
    """An error that shows the text and points at one of its characters."""
    text = _one_line(text)
    first = max(0, column - SHOWN_CHARACTERS)
    shown = text[first : column + SHOWN_CHARACTERS]
    end = "" if says.endswith("?") else "."
    return OptionsError(
        f"--{flag} cannot be used:\n    {shown}\n    {' ' * (column - first)}^ {says}{end}"
    )


def make(call: Call, maker: Callable[..., Made], *, text: str, flag: str) -> Made:
    """`maker` called with the arguments of `call`.

    Raises:
        OptionsError: the arguments do not fit `maker`, or it refuses their values.
    """
    accepted = [
        name
        for name, parameter in inspect.signature(maker).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for name in call.keywords:
        if name not in accepted:
            has = f"has the arguments {', '.join(accepted)}" if accepted else "takes no arguments"
            raise pointed(
                text,
                flag,
                call.positions.get(name, 0),
                f"{call.name} {has}.{suggestion(name, accepted)}".rstrip("."),
            )
    at = call.positions.get("", 0)
    try:
        inspect.signature(maker).bind(*call.arguments, **call.keywords)
    except TypeError as error:
        raise pointed(
            text, flag, at, f"{call.name}: {error}; its arguments are {', '.join(accepted)}"
        ) from None
    try:
        return maker(*call.arguments, **call.keywords)
    except ArgumentError as error:
        at = call.positions.get(error.argument, at)
        raise pointed(text, flag, at, str(error).rstrip(".")) from None
    except KerastrainError as error:
        raise pointed(text, flag, at, str(error).rstrip(".")) from None
    except (TypeError, ValueError) as error:
        # Keras's own classes check some of their arguments.
        raise pointed(text, flag, at, f"{call.name}: {error}".rstrip(".")) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if isinstance(value, Call) else repr(value)


class _Reader:
    def __init__(self, text: str, flag: str):
        self.text = _one_line(text)
        self.flag = flag

    def read(self) -> Expression:
        try:
            tree = ast.parse(self.text, mode="eval").body
            return self._expression(tree)
        except SyntaxError as error:
            raise self._at((error.offset or 1) - 1, self._syntax(error)) from None
        except (ValueError, RecursionError, MemoryError):
            raise self._at(0, "this cannot be read") from None

    def _syntax(self, error: SyntaxError) -> str:
        if not self.text:
            return "nothing was given"
        if "literal" in str(error.msg):
            return "a number cannot be followed by letters; units go by name, as in (epochs=3)"
        return f"this cannot be read ({error.msg})"

    def _at(self, column: int, says: str) -> OptionsError:
        return pointed(self.text, self.flag, column, says)

    def _column(self, node: ast.expr | ast.keyword) -> int:
        return len(self.text.encode()[: node.col_offset].decode(errors="replace"))

    def _expression(self, node: ast.expr) -> Expression:
        if isinstance(node, ast.BoolOp):
            parts = tuple(map(self._expression, node.values))
            return Either(parts) if isinstance(node.op, ast.Or) else Both(parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd)):
            parts = (self._expression(node.left), self._expression(node.right))
            return Either(parts) if isinstance(node.op, ast.BitOr) else Both(parts)
        if isinstance(node, ast.Name):
            return Call(node.id, positions={"": self._column(node)})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node, node.func.id)
        raise self._at(self._column(node), "a name is expected here, as in patience(5)")

    def _call(self, node: ast.Call, name: str) -> Call:
        positions = {"": self._column(node)}
        keywords = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._at(self._column(keyword), "name=value is expected here")
            if keyword.arg in keywords:
                raise self._at(self._column(keyword), f"{keyword.arg} is given twice")
            positions[keyword.arg] = self._column(keyword)
            keywords[keyword.arg] = self._value(keyword.value)
        return Call(name, tuple(map(self._value, node.args)), keywords, positions)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
            return node.value
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(item) for item in node.elts]
        if isinstance(node, (ast.BoolOp, ast.BinOp, ast.Call)):
            return self._expression(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return -value
        raise self._at(self._column(node), "a number, a text, True, False or a list is expected")
