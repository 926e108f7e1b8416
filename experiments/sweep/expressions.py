"""Arithmetic over settings: `model.adapter.alpha: 10 * model.adapter.rank`."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from common.errors import InputError

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": round,
    "int": int,
    "sqrt": math.sqrt,
    "log10": math.log10,
}


def evaluate(derived: dict[str, Any], overrides: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Values of derived settings. A formula may use the grid's settings, the base config's, and earlier formulas.

    Args:
        derived: formula by setting; text is a formula, anything else a value.
        overrides: the trial's settings by dotted name.
        base: the base config's values by dotted command-line name.

    Raises:
        InputError: a formula that isn't arithmetic, or names an unknown setting.
    """
    known = {**base, **overrides}
    values: dict[str, Any] = {}
    for name, formula in derived.items():
        if name in overrides:
            raise InputError(f"{name} is both in the grid and derived; allowed: one of them.")
        values[name] = _value(name, formula, known) if isinstance(formula, str) else formula
        known[name] = values[name]
    return values


def _value(name: str, formula: str, known: dict[str, Any]) -> Any:
    try:
        return _walk(ast.parse(formula, mode="eval").body, known)
    except (SyntaxError, TypeError, ValueError, ArithmeticError, KeyError) as error:
        reason = f"{error.args[0]!r} is no setting of the trial" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"derived.{name} is {formula!r}: {reason}. Allowed: numbers, settings by their command-line names, "
            f"+ - * / // % ** and {', '.join(_FUNCTIONS)}, such as 10 * model.adapter.rank."
        ) from error


def _walk(node: ast.AST, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        return known[ast.unparse(node)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_walk(node.operand, known)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_walk(node.left, known), _walk(node.right, known))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        return _FUNCTIONS[node.func.id](*(_walk(argument, known) for argument in node.args))
    raise ValueError(f"{ast.unparse(node)} is not allowed")
