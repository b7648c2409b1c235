"""The SDK slice: one client, one way to call it and to wait for operations.

The SDK's retries and its polling threads are off: `task.retry` is the only policy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from providers.azure.credentials import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    Credential,
    endpoint,
    is_loopback,
)
from providers.azure.errors import classify, is_gone, is_held
from publisher.errors import ProviderError
from publisher.provider import require, sdk_imports
from publisher.task import Cancellation, Retry, Task

if TYPE_CHECKING:
    from azure.mgmt.compute import ComputeManagementClient

T = TypeVar("T")
Body = dict[str, Any]

DISKS = "2026-03-02"
GALLERIES = "2025-12-03"
USAGES = "2026-04-01"
GROUPS = "2021-04-01"
SUBSCRIPTIONS = "2022-12-01"
PERMISSIONS = "2022-04-01"


class Api:
    """Resource Manager for one subscription; thread-safe, made on first use."""

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription
        self._client: ComputeManagementClient | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> ComputeManagementClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> ComputeManagementClient:
        require("azure.identity", "azure")
        require("azure.mgmt.compute", "azure")
        # Without a handler, Python prints the SDK's warnings over our own message.
        logging.getLogger("azure").addHandler(logging.NullHandler())
        with sdk_imports:
            from azure.core.pipeline.policies import RetryPolicy, SansIOHTTPPolicy
            from azure.core.pipeline.transport import RequestsTransport
            from azure.mgmt.compute import ComputeManagementClient

        url, scope = endpoint()
        local = is_loopback(url)

        class Loopback(SansIOHTTPPolicy[Any, Any]):
            """The bearer policy refuses plain HTTP, which never leaves this machine here."""

            def on_request(self, request: Any) -> None:
                request.context.options["enforce_https"] = False

        return ComputeManagementClient(
            Credential(),
            self.subscription,
            base_url=url,
            credential_scopes=[scope],
            retry_policy=RetryPolicy.no_retries(),
            transport=RequestsTransport(
                connection_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                use_env_settings=not local,
            ),
            per_call_policies=[Loopback()] if local else [],
        )

    def call(self, work: Callable[[ComputeManagementClient], T]) -> T:
        """One request. Raises ProviderError."""
        try:
            return work(self.client)
        except Exception as error:
            with sdk_imports:
                from azure.core.exceptions import AzureError

            if isinstance(error, AzureError):
                raise classify(error) from error
            raise

    def get(self, work: Callable[[ComputeManagementClient], Any]) -> Body | None:
        """One resource as its JSON, or None when there is none."""
        try:
            return plain(self.call(work))
        except ProviderError as error:
            if is_gone(error):
                return None
            raise

    def list(self, work: Callable[[ComputeManagementClient], Any]) -> list[Body]:
        """All pages; none when what should hold them is missing."""
        try:
            return self.call(lambda client: [plain(item) for item in work(client)])
        except ProviderError as error:
            if is_gone(error):
                return []
            raise

    def read(self, path: str, version: str) -> Body:
        """GET of a resource outside Microsoft.Compute; all pages of a list in one.

        Raises ProviderError; `is_gone` tells a missing one."""
        with sdk_imports:
            from azure.core.rest import HttpRequest

        def fetch(url: str) -> Body:
            def send(client: ComputeManagementClient) -> Body:
                response = client.send_request(HttpRequest("GET", url))
                response.raise_for_status()
                body = response.json()
                assert isinstance(body, dict)
                return body

            return self.call(send)

        prefix = endpoint()[0]
        body = fetch(f"{prefix}{path}?api-version={version}")
        following = body.get("nextLink")
        while following:
            page = fetch(following)
            body["value"] += page["value"]
            following = page.get("nextLink")
        return body

    def write(self, path: str, version: str, content: Body) -> None:
        """PUT of a resource outside Microsoft.Compute that is made at once."""
        with sdk_imports:
            from azure.core.rest import HttpRequest

        def send(client: ComputeManagementClient) -> None:
            url = f"{endpoint()[0]}{path}?api-version={version}"
            client.send_request(HttpRequest("PUT", url, json=content)).raise_for_status()

        self.call(send)

    def finish(
        self,
        task: Task,
        begin: Callable[..., Any],
        *,
        what: str,
        timeout: float = 3600.0,
        outcome: bool = False,
        refusals: Collection[str] = (),
    ) -> Body:
        """Start a long-running operation and wait for its end.

        `begin(client, polling=…)` is one of the SDK's begin_ methods, and may be
        repeated. An operation that holds the resource is waited for, too, within the
        same `timeout` seconds: it may be this one, whose answer was lost. `refusals`
        are codes that are raised instead. Returns the result of an action where
        `outcome` asks for it: a resource is better read anew by whoever needs it.
        """
        from providers.azure.polling import StepwisePolling

        method: StepwisePolling | None = None
        held: ProviderError | None = None

        def start(client: ComputeManagementClient) -> StepwisePolling:
            started = begin(client, polling=StepwisePolling()).polling_method()
            assert isinstance(started, StepwisePolling)
            return started

        def look() -> tuple[float, bool]:
            nonlocal method, held
            held = None
            if method is None:
                try:
                    method = self.call(start)
                except ProviderError as error:
                    if not is_held(error) or error.code in refusals:
                        raise
                    held = error
                    task.phase(f"{what}: {error.message}")
                    return error.retry_after or 0.0, False
                if not method.finished():
                    return method.retry_after(), False
            done = self.call(lambda _: method.step())
            return method.retry_after(), done

        try:
            patiently(task, look, what=what, timeout=timeout)
        except ProviderError as error:
            if held is None:
                raise
            raise ProviderError(
                f"{error.message}: {held.message}", provider="azure", hint=error.hint
            ) from held
        if not outcome:
            return {}
        assert method is not None
        return task.retry(lambda: self.call(lambda _: method.outcome()))


def patiently(
    task: Task,
    look: Callable[[], tuple[float, bool]],
    *,
    what: str,
    timeout: float,
    longest: float = 15.0,
) -> None:
    """Look, with growing pauses, until `look` returns (seconds to wait at least, True)."""
    task.phase(what)
    deadline = task.clock.monotonic() + timeout
    pause = 0.05
    while True:
        asked, done = task.retry(look)
        if done:
            return
        if task.clock.monotonic() >= deadline:
            raise ProviderError(
                f"timed out after {timeout:.0f} s: {what}",
                provider="azure",
                hint="Azure may still finish: run the same command again to continue",
            )
        task.sleep(max(min(asked, 60.0), pause))
        pause = min(pause * 1.6, longest)


def plain(model: Any) -> Body:
    """An SDK model as the JSON that came over the wire."""
    body = model.as_dict() if hasattr(model, "as_dict") else model
    assert isinstance(body, dict)
    return body


def cleaning(task: Task) -> Task:
    """A task for what must happen after a failure: with few attempts, and after
    Ctrl-C not cancelled itself but over within a few seconds."""
    cancelled = task.cancellation.cancelled
    return Task(
        task.step,
        task.memory,
        lane=task.lane,
        cancellation=Deadline(3.5) if cancelled else task.cancellation,
        clock=task.clock,
        retry=Retry(attempts=3, base=0.1, ceiling=1.0, patience=1.0 if cancelled else 30.0),
        run=task.run,
    )


class Deadline(Cancellation):
    """Cancelled once `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self._end:
            self.cancel()
        super().check()
