"""Labels and list filters of Compute resources.

https://cloud.google.com/compute/docs/labeling-resources#requirements
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping

from providers.gcp.sandbox.store import Document
from providers.gcp.sandbox.web import Refused

KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MOST = 64
_TERM = re.compile(r'\(?\s*([A-Za-z0-9_.-]+)\s*(!=|=|:)\s*("[^"]*"|[^\s()]+)\s*\)?')


def check(labels: Mapping[str, str]) -> None:
    if len(labels) > MOST:
        raise Refused(400, f"A resource has at most {MOST} labels")
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            raise Refused(400, f"Invalid value for field 'resource.labels': label key '{key}'")
        if not VALUE.fullmatch(value):
            raise Refused(400, f"Invalid value for field 'resource.labels': label value '{value}'")


def fingerprint(labels: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(labels), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest[:8]).decode()


def compile_filter(text: str) -> Callable[[Document], bool]:
    """A filter of terms joined by blanks or AND: `labels.a=b`, `labels.a:*`,
    `name!=c`. Whatever else the real service understands is refused here."""
    terms: list[tuple[str, str, str]] = []
    rest = text.strip()
    while rest:
        match = _TERM.match(rest)
        if not match:
            raise Refused(
                400, f"Invalid value for field 'filter': '{text}'. Invalid list filter expression."
            )
        terms.append((match[1], match[2], match[3].strip('"')))
        rest = re.sub(r"^\s*AND\b", "", rest[match.end() :]).strip()

    def matches(document: Document) -> bool:
        for field, operator, wanted in terms:
            if field.startswith("labels."):
                actual = document.get("labels", {}).get(field.removeprefix("labels."))
            else:
                actual = document.get(field)
            if operator == ":" and wanted == "*":
                fits = actual is not None
            elif operator == ":":
                fits = actual is not None and wanted in str(actual)
            else:
                fits = (str(actual) == wanted and actual is not None) is (operator == "=")
            if not fits:
                return False
        return True

    return matches
