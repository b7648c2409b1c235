"""Refuses what the official discovery documents refuse."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from providers.gcp.sandbox.web import Refused, Request

_PYTHON: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "any": object,
}
_BOUNDS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


@functools.cache
def _document(name: str) -> dict[str, Any]:
    path = Path(__file__).parent / "schemas" / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


class Schema:
    """One API's slice, "compute.v1" or "storage.v1"."""

    def __init__(self, name: str, *, numbers: bool = False) -> None:
        """`numbers`: 64-bit integers may come as JSON numbers too, as Google's own
        client of Cloud Storage sends them; the document has them as strings."""
        self._name = name
        self._numbers = numbers
        self._document = _document(name)

    def body(self, request: Request, method: str) -> dict[str, Any]:
        """The request's JSON if `method` takes it. Raises Refused(400)."""
        body = request.json()
        self.check(body, method)
        return body

    def check(self, body: Mapping[str, Any], method: str) -> None:
        name = self._document["methods"][method]["request"]
        full = f"{self._name.partition('.')[0]}.{method}"
        self._value(body, {"$ref": name}, "resource", full)

    def parameters(self, request: Request, method: str) -> None:
        """Refuse unknown and malformed query parameters."""
        known = self._document["methods"][method]["parameters"]
        common = self._document["common"]
        for name, text in request.pairs:
            if name.removeprefix("$") in common:
                continue
            found = known.get(name)
            if found is None or found.get("location") != "query":
                raise Refused(400, f'Invalid JSON payload received. Unknown name "{name}"')
            value: Any = text
            if found["type"] == "integer":
                value = int(text) if re.fullmatch(r"-?\d+", text) else text
            elif found["type"] == "boolean":
                value = {"true": True, "false": False}.get(text.lower(), text)
            self._value(value, found, name, method)

    def _value(self, value: Any, schema: Mapping[str, Any], where: str, method: str) -> None:
        if "$ref" in schema:
            schema = self._document["schemas"][schema["$ref"]]
        kind = schema.get("type", "any")
        number = isinstance(value, int) and not isinstance(value, bool)
        if self._numbers and number and schema.get("format") in ("int64", "uint64"):
            value = str(value)
        wrong = isinstance(value, bool) and kind in ("integer", "number")
        if wrong or not isinstance(value, _PYTHON[kind]):
            raise self._invalid(where, value, f"must be of type {kind}")
        if isinstance(value, str):
            self._text(value, schema, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._value(item, schema["items"], f"{where}[{index}]", method)
        elif isinstance(value, dict):
            self._object(value, schema, where, method)
        elif isinstance(value, int) and schema.get("format") in _BOUNDS:
            self._range(value, schema["format"], where)

    def _object(
        self, value: Mapping[str, Any], schema: Mapping[str, Any], where: str, method: str
    ) -> None:
        properties = schema.get("properties", {})
        additional = schema.get("additionalProperties")
        for name, found in properties.items():
            if method in found.get("annotations", {}).get("required", ()) and name not in value:
                raise Refused(400, f"Required field '{where}.{name}' not specified", "required")
        for name, item in value.items():
            if name in properties:
                self._value(item, properties[name], f"{where}.{name}", method)
            elif additional is not None:
                self._value(item, additional, f"{where}.{name}", method)
            else:
                raise Refused(
                    400,
                    f'Invalid JSON payload received. Unknown name "{name}" at "{where}": '
                    "Cannot find field.",
                )

    def _text(self, value: str, schema: Mapping[str, Any], where: str) -> None:
        if "enum" in schema and value not in schema["enum"]:
            raise self._invalid(where, value, f"must be one of {', '.join(schema['enum'])}")
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            raise self._invalid(where, value, f"must be a match of regex '{schema['pattern']}'")
        form = schema.get("format")
        if form in _BOUNDS:
            if not re.fullmatch(r"-?\d+", value):
                raise self._invalid(where, value, f"must be an {form}")
            self._range(int(value), form, where)
        elif form == "byte":
            try:
                base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
            except binascii.Error:
                raise self._invalid(where, value, "must be base64") from None

    def _range(self, value: int, form: str, where: str) -> None:
        low, high = _BOUNDS[form]
        if not low <= value <= high:
            raise self._invalid(where, value, f"must be an {form}")

    @staticmethod
    def _invalid(where: str, value: Any, why: str) -> Refused:
        return Refused(400, f"Invalid value for field '{where}': '{value}'. {why}")
