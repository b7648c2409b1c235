"""Request bodies against Microsoft's own types.

`types/*.json` are slices of the type files behind Bicep (microsoft.compute):
lists of types that name each other by index. Flags of a property: 1 required,
2 read-only, 8 constant of the deployment (the resource's id, name, type).
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from typing import Any

from providers.azure.sandbox.web import Refused

_REQUIRED, _READ_ONLY, _CONSTANT = 1, 2, 8
_FILES = {"disks": "disks-2026-03-02.json", "galleries": "galleries-2025-12-03.json"}
_KINDS: dict[str, tuple[type, ...]] = {
    "StringType": (str,),
    "BooleanType": (bool,),
    "IntegerType": (int,),
    "ArrayType": (list,),
    "ObjectType": (dict,),
}


@functools.cache
def _load(file: str) -> list[dict[str, Any]]:
    source = importlib.resources.files("providers.azure.sandbox") / "types" / file
    types: list[dict[str, Any]] = json.loads(source.read_text())
    return types


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    """Azure's patterns are .NET's, where a hyphen behind \\w is itself."""
    return re.compile(re.sub(r"(\\w)-(?!\])", r"\1\\-", text))


class Types:
    """The types of one resource provider slice: "disks" or "galleries"."""

    def __init__(self, name: str) -> None:
        self._types = _load(_FILES[name])

    @property
    def version(self) -> str:
        names = (t["name"] for t in self._types if t["$type"] == "ResourceType")
        return str(next(names)).partition("@")[2]

    def check_resource(self, kind: str, name: str, body: Any) -> None:
        """The body of a PUT. Raises Refused (InvalidParameter and the like)."""
        found = next(
            t
            for t in self._types
            if t["$type"] == "ResourceType" and t["name"].partition("@")[0] == kind
        )
        self._check(found["body"], {**_dict(body), "name": name}, "$")

    def check_action(self, kind: str, action: str, body: Any) -> None:
        """The body of a POST. Raises Refused."""
        found = next(
            t
            for t in self._types
            if t["$type"] == "ResourceFunctionType"
            and (t["resourceType"], t["name"]) == (kind, action)
        )
        self._check(found["input"], body, "$")

    def _resolve(self, reference: dict[str, str]) -> dict[str, Any]:
        return self._types[int(reference["$ref"].removeprefix("#/"))]

    def _check(self, reference: dict[str, str], value: Any, where: str) -> None:
        type_ = self._resolve(reference)
        kind = type_["$type"]
        if kind == "AnyType":
            return
        if kind == "StringLiteralType":
            if value != type_["value"]:
                raise _bad(where, value, f"must be {type_['value']!r}")
            return
        if kind == "UnionType":
            self._check_union(type_, value, where)
            return
        if not _is(kind, value):
            raise _bad(where, value, f"must be of type {kind.removesuffix('Type')}")
        if kind == "StringType":
            if "pattern" in type_ and not _pattern(type_["pattern"]).search(value):
                raise _bad(where, value, f"must match {type_['pattern']}")
            _bounds(type_, len(value), "minLength", "maxLength", where, value)
        elif kind == "IntegerType":
            _bounds(type_, value, "minValue", "maxValue", where, value)
        elif kind == "ArrayType":
            _bounds(type_, len(value), "minLength", "maxLength", where, value)
            for number, item in enumerate(value):
                self._check(type_["itemType"], item, f"{where}[{number}]")
        elif kind == "ObjectType":
            self._check_object(type_, value, where)

    def _check_union(self, type_: dict[str, Any], value: Any, where: str) -> None:
        """One of the elements must fit; a string beside literals stands for values
        to come, which today's service does not know."""
        literals = [
            element["value"]
            for element in map(self._resolve, type_["elements"])
            if element["$type"] == "StringLiteralType"
        ]
        if literals:
            known = {literal.lower() for literal in literals}
            if not isinstance(value, str) or value.lower() not in known:
                raise _bad(where, value, f"must be one of {', '.join(literals)}")
            return
        for element in type_["elements"]:
            try:
                self._check(element, value, where)
            except Refused:
                continue
            return
        raise _bad(where, value, "fits none of the types")

    def _check_object(self, type_: dict[str, Any], value: dict[str, Any], where: str) -> None:
        properties = type_["properties"]
        for key, item in value.items():
            here = f"{where}.{key}"
            if key in properties:
                flags = properties[key]["flags"]
                if flags & _READ_ONLY and not flags & _CONSTANT:
                    raise Refused(400, "InvalidParameter", f"{here} is read-only.", here)
                self._check(properties[key]["type"], item, here)
            elif "additionalProperties" in type_:
                self._check(type_["additionalProperties"], item, here)
            else:
                raise Refused(
                    400,
                    "InvalidRequestContent",
                    f"Could not find member '{key}' on object of type '{type_['name']}'.",
                    here,
                )
        for key, declared in properties.items():
            if declared["flags"] & _REQUIRED and value.get(key) is None:
                raise Refused(
                    400, "InvalidParameter", f"Required parameter '{key}' is missing (null).", where
                )


def _is(kind: str, value: Any) -> bool:
    """JSON's booleans are no integers."""
    return isinstance(value, _KINDS[kind]) and (
        kind != "IntegerType" or not isinstance(value, bool)
    )


def _dict(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(400, "InvalidRequestContent", "The request content was invalid: no object.")
    return body


def _bounds(type_: dict[str, Any], size: int, low: str, high: str, where: str, value: Any) -> None:
    if low in type_ and size < type_[low]:
        raise _bad(where, value, f"{low} is {type_[low]}")
    if high in type_ and size > type_[high]:
        raise _bad(where, value, f"{high} is {type_[high]}")


def _bad(where: str, value: Any, why: str) -> Refused:
    shown = json.dumps(value)[:80]
    return Refused(
        400, "InvalidParameter", f"The value {shown} of parameter {where} is invalid: {why}.", where
    )
