"""What pydantic found wrong in a file, in plain words with key paths."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from publisher.model import MIB
from publisher.settings import Expansion, KeyPath, Problem, nearest, show_key, show_value, suggest

Model: TypeAlias = type[BaseModel]

_WANTED = {
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}
_LIMITS = {
    "ge": "at least",
    "gt": "greater than",
    "le": "at most",
    "lt": "less than",
    "multiple_of": "a multiple of",
}


def accepted(annotation: Any) -> Iterator[Any]:
    """The types that an annotation accepts, one by one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from accepted(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from accepted(member)
    else:
        yield annotation


def expected_at(annotation: Any, path: KeyPath) -> list[Any]:
    """The types that may stand at a key path below a type; empty for an unknown path."""
    if not path:
        return list(accepted(annotation))
    found: list[Any] = []
    for kind in accepted(annotation):
        for child in _children(kind, path[0]):
            found += expected_at(child, path[1:])
    return found


def _children(kind: Any, part: str | int) -> list[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(part, int):
        items = [a for a in arguments if a is not Ellipsis]
        return items[:1] if origin in (list, tuple, set, frozenset, Sequence) else []
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [
            field.annotation
            for name, field in kind.model_fields.items()
            if part == _toml(name, kind)
        ]
    return list(arguments[1:2]) if origin in (dict, Mapping) else []


def _toml(name: str, model: Model) -> str:
    return model.model_fields[name].alias or name


def keys_at(annotation: Any, path: KeyPath) -> list[str]:
    """The keys that a table at this path may have."""
    return [
        _toml(name, kind)
        for kind in expected_at(annotation, path)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    ]


def _same(path: KeyPath) -> KeyPath:
    return path


def complaints(
    error: ValidationError,
    model: Model,
    data: Any,
    prefix: KeyPath,
    expansion: Expansion,
    origin: Callable[[KeyPath], KeyPath] = _same,
) -> list[Problem]:
    """One Problem for each thing that a person has to change in the section
    `prefix`, whose content is `data`; `origin` tells where it stands in the file."""
    found: dict[KeyPath, list[Problem | str]] = {}
    for detail in error.errors(include_url=False):
        path = _locate(detail["loc"], data, detail["type"])
        wanted = _WANTED.get(detail["type"])
        found.setdefault(path, []).append(
            wanted or _problem(detail, model, data, path, origin((*prefix, *path)), expansion)
        )
    problems: list[Problem] = []
    for path, reports in found.items():
        plain = [report for report in reports if isinstance(report, Problem)]
        words = list(dict.fromkeys(report for report in reports if isinstance(report, str)))
        problems += dict.fromkeys(plain)
        # Of a union, the branch that fits best is the one that complains further down.
        deeper = any(other[: len(path)] == path and other != path for other in found)
        if words and not plain and not deeper:
            full = origin((*prefix, *path))
            problems.append(_wrong_type(words, _at(data, path), full, expansion))
    return problems


def _locate(loc: Sequence[str | int], data: Any, kind: str) -> KeyPath:
    """pydantic's location without the names of a union's branches."""
    path: list[str | int] = []
    for depth, part in enumerate(loc):
        match data, part:
            case dict(), _ if part in data:
                data = data[part]
            case list(), int() if part < len(data):
                data = data[part]
            case _ if depth < len(loc) - 1 or kind != "missing":
                continue
        path.append(part)
    return tuple(path)


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _shown(value: Any, path: KeyPath, expansion: Expansion) -> str:
    template = expansion.templates.get(path)
    return f'"{template}"' if template is not None else show_value(value)


def _wrong_type(words: list[str], value: Any, full: KeyPath, expansion: Expansion) -> Problem:
    shown = _shown(value, full, expansion)
    hint = ""
    if "a text" in words and not isinstance(value, str | list | dict):
        text = show_value(value) if isinstance(value, bool) else str(value)
        hint = f'write "{text}" in quotes'
    elif words == ["a list"] and isinstance(value, str):
        hint = f"write [{shown}]"
    return Problem(show_key(full), f"must be {' or '.join(words)}, not {shown}", hint)


def _problem(
    detail: Any, model: Model, data: Any, path: KeyPath, full: KeyPath, expansion: Expansion
) -> Problem:
    """`path` is below `data`, `full` the same in the file."""
    kind, key = detail["type"], show_key(full)
    if kind == "extra_forbidden":
        return Problem(key, "unknown key", suggest(str(path[-1]), keys_at(model, path[:-1])))
    if kind == "missing":
        return Problem(key, "is required", _description(model, path))
    shown = _shown(_at(data, path), full, expansion)
    if kind == "literal_error":
        literals = [
            str(value)
            for accepts in expected_at(model, path)
            if get_origin(accepts) is Literal
            for value in get_args(accepts)
        ]
        meant = nearest(str(_at(data, path)), literals)
        hint = f'did you mean "{meant}"?' if meant and full not in expansion.templates else ""
        return Problem(key, f"must be {_alternatives(literals)}, not {shown}", hint)
    if kind == "string_pattern_mismatch":
        return Problem(key, f"{shown} is not allowed", _description(model, path))
    context = detail.get("ctx", {})
    if kind in ("too_short", "string_too_short"):
        least = context["min_length"]
        unit = "character" if kind == "string_too_short" else "element"
        return Problem(key, f"needs at least {least} {unit}{'s' if least != 1 else ''}")
    for limit, words in _LIMITS.items():
        if limit in context:
            return Problem(key, f"must be {words} {_amount(context[limit])}, not {shown}")
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = expansion.redact(message)
    if kind == "value_error":
        return Problem(key, message)
    message = re.sub(r"^(Input|String|Tuple|List|Dictionary|Value) should ", "must ", message)
    return Problem(key, f"{message}, not {shown}")


def _amount(number: Any) -> str:
    whole = isinstance(number, int) and number >= MIB and number % MIB == 0
    return f"{number // MIB}MiB" if whole else str(number)


def _alternatives(values: Sequence[str]) -> str:
    quoted = [f'"{value}"' for value in values]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _description(model: Model, path: KeyPath) -> str:
    """What the description of the field says, as a hint; an element has its list's."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    for kind in expected_at(model, path[:-1]):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                if _toml(name, kind) == path[-1] and field.description:
                    return field.description
    return ""
