"""The build's own secrets: known exactly, so that they are found in any form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from publisher.proof.secrets.forms import SHORTEST, in_base64, written
from publisher.proof.secrets.trace import OTHER_ENDS, TRACEABLE, Trace, other_ends, plain

__all__ = ["Known", "Trace"]


class Known:
    """Values by what they are called ("the secret API_TOKEN of build.steps[2]"), and traces
    of values, which may be the same ones or those that they had before. The values
    stay in memory: what this shows of itself are their names."""

    def __init__(
        self, values: Mapping[str, str | bytes] | None = None, traces: Sequence[Trace] = ()
    ) -> None:
        self._values = {label: plain(value) for label, value in (values or {}).items()}
        self._traces = tuple(
            replace(trace, label=f"an earlier value of {trace.label}")
            if trace.label in self._values
            else trace
            for trace in traces
            if not any(trace.may_be(value) for value in self._values.values())
        )

    def __repr__(self) -> str:
        return f"Known({', '.join(self.labels)})"

    __str__ = __repr__

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self._values, *(trace.label for trace in self._traces))

    @property
    def unsearchable(self) -> Mapping[str, str]:
        """The names of values that can't be looked for, and why."""
        short = f"has fewer than {SHORTEST} bytes, which stand on a disk by chance"
        gone = f"is not at hand any more, and has fewer than {TRACEABLE} bytes: no trace was kept"
        return {
            **{label: short for label, value in self._values.items() if len(value) < SHORTEST},
            **{trace.label: gone for trace in self._traces if not trace.anchor},
        }

    def literals(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of every form that a value may have on a disk as one piece."""
        return self._all(written)

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        """(name, text) of every form in base64, which may be broken into lines."""
        return self._all(in_base64)

    def _all(self, forms: Callable[[bytes], Mapping[bytes, str]]) -> Iterator[tuple[str, bytes]]:
        for label, value in self._values.items():
            if len(value) < SHORTEST:
                continue
            found = dict(forms(value))
            for data, title in forms(other_ends(value)).items():
                found.setdefault(data, OTHER_ENDS + title)
            for data, title in found.items():
                yield f"{label}{title}", data

    @property
    def traces(self) -> tuple[Trace, ...]:
        """Those that can be looked for."""
        return tuple(trace for trace in self._traces if trace.anchor)
