"""Long-running operations, with the two styles of headers that Azure uses.

Azure-AsyncOperation answers 200 with {"status": …} while it runs and after;
Location answers 202 while it runs, then the result itself.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from providers.azure.sandbox.store import Entry, State
from providers.azure.sandbox.web import Answer, Refused, Request

_LOOKS = 2
_AGE = 0.04


@dataclass(slots=True)
class Operation:
    """Ends after two looks or 40 ms, whichever is first."""

    id: str
    entry: Entry | None
    result: dict[str, Any] | None
    error: Refused | None
    looks: int = 0
    born: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        return self.looks >= _LOOKS or time.monotonic() - self.born > _AGE


class Operations:
    def __init__(self, state: State) -> None:
        self._state = state
        self._running: dict[str, Operation] = {}
        self._ended: dict[str, Operation] = {}

    def start(
        self,
        request: Request,
        kind: str,
        entry: Entry | None,
        *,
        status: int,
        styles: str,
        body: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        error: Refused | None = None,
    ) -> Answer:
        """The first answer. `styles` holds "async", "location" or both; `error` is
        what the operation will end with."""
        operation = Operation(str(uuid.uuid4()), entry, result, error)
        self._running[operation.id] = operation
        subscription = request.path.split("/")[2]
        version = request.query["api-version"]
        url = (
            f"{request.root}/subscriptions/{subscription}/providers/Microsoft.Compute"
            f"/locations/westeurope/{kind}/{operation.id}?api-version={version}"
        )
        headers = {}
        if "async" in styles:
            headers["Azure-AsyncOperation"] = url
        if "location" in styles:
            headers["Location"] = f"{url}&monitor=true"
        return Answer(status, body, headers)

    def tick(self) -> None:
        """End what is due. Call it at the start of every request."""
        for operation in [o for o in self._running.values() if o.over]:
            del self._running[operation.id]
            self._ended[operation.id] = operation
            if operation.entry is not None:
                self._state.settle(operation.entry)

    def look(self, entry: Entry) -> None:
        """A read of a resource is a look at its operation."""
        for operation in self._running.values():
            if operation.entry is entry:
                operation.looks += 1

    def busy(self, entry: Entry) -> bool:
        return any(operation.entry is entry for operation in self._running.values())

    def answer(self, request: Request, id_: str) -> Answer:
        operation = self._running.get(id_) or self._ended.get(id_)
        if operation is None:
            raise Refused(404, "NotFound", f"The operation {id_} could not be found.")
        operation.looks += 1
        running = operation.id in self._running
        if "monitor" in request.query:
            if running:
                return Answer(
                    202, None, {"Location": f"{request.root}{request.path}?{_query(request)}"}
                )
            if operation.error is not None:
                raise operation.error
            return Answer(200, operation.result) if operation.result else Answer(204)
        body: dict[str, Any] = {"name": operation.id, "startTime": "2026-01-01T00:00:00Z"}
        if running:
            return Answer(200, {**body, "status": "InProgress"})
        if operation.error is not None:
            return Answer(200, {**body, "status": "Failed", **operation.error.body()})
        if operation.result is not None:
            body["properties"] = {"output": operation.result}
        return Answer(200, {**body, "status": "Succeeded"})


def _query(request: Request) -> str:
    return "&".join(f"{key}={value}" for key, value in request.query.items())
