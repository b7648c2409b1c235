"""The build's own secrets: known exactly, so that they are found in any form."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from publisher.proof.secrets.trace import OTHER_ENDS, Trace, other_ends

__all__ = ["Known", "Trace"]

SHORTEST = 8
"""Bytes; anything shorter also stands on a disk by chance."""


class Known:
    """Values by what they are called ("secret API_TOKEN of build.steps[2]"). They
    stay in memory: what this shows of itself are their names."""

    def __init__(
        self, values: Mapping[str, str | bytes] | None = None, traces: Sequence[Trace] = ()
    ) -> None:
        given = {
            label: value.encode() if isinstance(value, str) else value
            for label, value in (values or {}).items()
        }
        self._values = {label: value.strip() for label, value in given.items()}
        self._traces = tuple(traces)

    def __repr__(self) -> str:
        return f"Known({', '.join(self.labels)})"

    __str__ = __repr__

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self._values, *(trace.label for trace in self._traces))

    @property
    def unsearchable(self) -> tuple[str, ...]:
        """The names of values that are too short to be looked for, or to be found
        again by a trace."""
        short = [label for label, value in self._values.items() if len(value) < SHORTEST]
        return (*short, *(trace.label for trace in self._traces if not trace.anchor))

    def literals(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of every form that a value may have on a disk."""
        for label, value in self._values.items():
            if len(value) < SHORTEST:
                continue
            forms = {data: form for form, data in reversed(_forms(value).items())}
            for form, data in _forms(other_ends(value)).items():
                forms.setdefault(data, OTHER_ENDS + form)
            for data, form in forms.items():
                if len(data) >= SHORTEST:
                    yield f"{label}{form}", data

    @property
    def traces(self) -> tuple[Trace, ...]:
        """Those that can be looked for."""
        return tuple(trace for trace in self._traces if trace.anchor)

    def keep(self) -> tuple[Trace, ...]:
        """What a journal may hold of the values."""
        return (*self._traces, *(Trace.of(label, v) for label, v in self._values.items()))


def _forms(value: bytes) -> dict[str, bytes]:
    """The value as it is, and as programs write it down. Of base64 the groups that
    depend on nothing else, for each of the three places where it may begin."""
    forms = {"": value}
    text = value.decode("utf-8", "replace")
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= 2 * SHORTEST]
    if len(lines) > 1:
        # as files of keys are written with other ends of lines; one line in the middle will do
        forms[" (a line of it)"] = lines[len(lines) // 2]
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    if escaped != value:
        forms[" (in JSON)"] = escaped
    percent = quote(value, safe="").encode()
    if percent != value:
        forms[" (in a URL)"] = percent
    forms[" (in hex)"] = value.hex().encode()
    forms[" (in UTF-16)"] = text.encode("utf-16-le")
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + value)
        first = -(-shift * 4 // 3)
        last = (shift + len(value)) // 3 * 4
        if last - first >= 2 * SHORTEST:
            forms[f" (in base64, {shift})" if shift else " (in base64)"] = whole[first:last]
    return forms
