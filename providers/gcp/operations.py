"""Waiting for Compute operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from providers.gcp.api import PROVIDER, Api, from_status
from publisher.errors import ProviderError
from publisher.task import Task

T = TypeVar("T")

FIRST = (0.1, 0.2, 0.4, 0.8)
INTERVAL = 2.0
"""Seconds between looks: short at first, for what is soon done."""
TIMEOUT = 2 * 3600.0


def poll(task: Task, probe: Callable[[], T | None], *, timeout: float, what: str) -> T:
    """task.poll with the intervals of this cloud."""
    task.phase(what)
    for delay in FIRST:
        found = task.retry(probe)
        if found is not None:
            return found
        task.sleep(delay)
    return task.poll(probe, interval=INTERVAL, timeout=timeout, what=what, provider=PROVIDER)


def failure(operation: Any) -> ProviderError | None:
    """The error that an operation ended with."""
    errors = list(operation.error.errors)
    if not errors:
        return None
    first = errors[0]
    status = int(operation.http_error_status_code or 0)
    message = f"{operation.operation_type} failed: {first.message or first.code}"
    return from_status(status, first.code, message)


def finished(operation: Any) -> bool:
    return str(getattr(operation.status, "name", operation.status)) == "DONE"


def wait(api: Api, project: str, operation: Any, task: Task, what: str, *, zone: str = "") -> None:
    """Until the operation is done. Raises its error. Polls `get`: the API's own
    `wait` blocks up to two minutes, and a cancelled run ends within seconds."""
    request = {"project": project, "operation": operation.name}
    if zone:
        request["zone"] = zone
    service = "zone_operations" if zone else "global_operations"

    def probe() -> Any:
        found = api.call(service, "get", **request)
        return found if finished(found) else None

    last = operation
    if not finished(operation):
        last = poll(task, probe, timeout=TIMEOUT, what=what)
    if error := failure(last):
        raise error
