"""Arithmetic over settings: `model.adapter.alpha: 10 * model.adapter.rank`."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from common.errors import InputError

Number = int | float
Values = Mapping[str, object]  # of settings, by name
_BITS = 63  # of a whole number, as for every setting
_LONGEST = 1000  # characters of a formula


def _power(base: Number, exponent: Number) -> Number:
    # Python works out every digit of a whole number, however many: 9**9**9 would never end.
    if isinstance(base, int) and isinstance(exponent, int) and exponent * math.log2(abs(base) or 1) > _BITS:
        raise ValueError(f"{base} ** {exponent} is too large")
    return base**exponent


def _round(value: Number, digits: int = 0) -> Number:
    return round(value, max(min(digits, 400), -400)) if digits else round(value)  # 10 ** digits is worked out, too


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": _round,
    "int": int,
    "sqrt": math.sqrt,
    "log10": math.log10,
}


def evaluate(derived: Values, overrides: Values, base: Values) -> dict[str, object]:
    """Values of derived settings: text is a formula, anything else a value.

    A formula may use the trial's settings (`overrides`), the base config's, both by dotted name, and earlier formulas.
    `InputError`: a formula that isn't arithmetic, names an unknown setting, or has no finite number as its value.
    """
    known = {**base, **overrides}
    for name, formula in derived.items():
        if name in overrides:
            raise InputError(f"{name} is both in the grid and derived; allowed: one of them.")
        known[name] = _value(name, formula, known) if isinstance(formula, str) else formula
    return {name: known[name] for name in derived}


def _value(name: str, formula: str, known: Values) -> object:
    try:
        if len(formula) > _LONGEST:
            raise ValueError(f"it has {len(formula):,} characters, and {_LONGEST:,} is the most")
        body = ast.parse(formula.strip(), mode="eval").body
        # the name of a setting alone stands for its value, whatever that is
        return known[ast.unparse(body)] if isinstance(body, ast.Name | ast.Attribute) else _number(body, known)
    except (SyntaxError, TypeError, ValueError, ArithmeticError, KeyError, RecursionError, MemoryError) as error:
        reason = f"{error.args[0]!r} is no setting of the trial" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"derived.{name} is {formula[:80]!r}: {reason}. Allowed: numbers, settings by their command-line names, "
            f"+ - * / // % ** and {', '.join(_FUNCTIONS)}, such as 10 * model.adapter.rank."
        ) from error


def _number(node: ast.AST, known: Values) -> Number:
    value: object
    match node:
        case ast.Constant(value=value):
            pass
        case ast.Name() | ast.Attribute():
            value = known[ast.unparse(node)]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_number(operand, known)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            value = _OPERATORS[type(op)](_number(left, known), _number(right, known))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            value = _FUNCTIONS[name](*(_number(argument, known) for argument in arguments))
        case _:
            raise ValueError(f"{ast.unparse(node)[:80]} is not allowed")
    too_large = isinstance(value, int) and abs(value) >> _BITS
    if too_large or not isinstance(value, Number) or not math.isfinite(value):
        raise ValueError(f"{ast.unparse(node)[:80]} is no finite number of up to 64 bits")
    return value
