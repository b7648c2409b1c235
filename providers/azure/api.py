"""The SDK slice: clients from the environment, and Azure's errors as ours.

AZURE_RESOURCE_MANAGER_ENDPOINT and AZURE_RESOURCE_MANAGER_AUDIENCE (as Azure
Service Operator and Cluster API read them) point to another cloud; credentials
come from azure-identity's DefaultAzureCredential. The SDK's retries are off.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from publisher.errors import (
    CredentialsError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from publisher.provider import require
from publisher.task import Cancellation, Retry, Task

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.mgmt.compute import ComputeManagementClient

T = TypeVar("T")
Body = dict[str, Any]

DISKS = "2026-03-02"
GALLERIES = "2025-12-03"
USAGES = "2026-04-01"
GROUPS = "2021-04-01"
SUBSCRIPTIONS = "2022-12-01"
PERMISSIONS = "2022-04-01"

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 20
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# Codes of 409 that mean "another operation is under way": the same request
# succeeds later.
_BUSY = frozenset(
    {
        "AnotherOperationInProgress",
        "Conflict",
        "ConflictingConcurrentWriteNotAllowed",
        "ConflictingUserInput",
        "OperationPreempted",
        "RetryableError",
    }
)
_QUOTA = frozenset({"QuotaExceeded", "ResourceQuotaExceeded", "SubscriptionQuotaReached"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def endpoint() -> tuple[str, str]:
    """(URL of Resource Manager, scope of its tokens)."""
    from azure.core.settings import settings
    from azure.mgmt.core.tools import get_arm_endpoints

    known = get_arm_endpoints(settings.azure_cloud())
    url = os.environ.get("AZURE_RESOURCE_MANAGER_ENDPOINT") or known["resource_manager"]
    audience = os.environ.get("AZURE_RESOURCE_MANAGER_AUDIENCE")
    scope = f"{audience.rstrip('/')}/.default" if audience else known["credential_scopes"][0]
    url = url.rstrip("/")
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise UnreachableError(
            f"a token must not travel over plain HTTP to {url}",
            provider="azure",
            hint="set AZURE_RESOURCE_MANAGER_ENDPOINT to an https URL",
        )
    return url, scope


def classify(error: BaseException) -> ProviderError:
    """The SDK's exception as a ProviderError. The message is Azure's own."""
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    if isinstance(error, ProviderError):
        return error
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        return UnreachableError(
            f"Azure does not answer: {error.message.splitlines()[0][:300]}",
            provider="azure",
            transient=True,
            hint="check the network, and AZURE_RESOURCE_MANAGER_ENDPOINT if it is set",
        )
    if isinstance(error, HttpResponseError) and error.response is not None:
        return _refusal(error)
    if isinstance(error, ClientAuthenticationError):
        return credentials_refused(str(error.message))
    return ProviderError(f"{type(error).__name__}: {error}", provider="azure")


def credentials_refused(message: str) -> CredentialsError:
    first = next(iter(message.strip().splitlines()), "")
    return CredentialsError(
        f"Azure does not accept these credentials: {first[:300]}",
        provider="azure",
        hint="log in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET (or a federated token or managed identity)",
    )


def _refusal(error: Any) -> ProviderError:
    response = error.response
    status = int(response.status_code)
    code, message = _details(response)
    message = message or str(error.message)
    return refusal(status, code, message, response.headers.get("Retry-After"))


def refusal(status: int, code: str, message: str, retry_after: str | None = None) -> ProviderError:
    """The error for an HTTP status with Azure's own code and message."""
    wait = float(retry_after) if retry_after and retry_after.isdigit() else None
    text = f"{message} ({code})" if code else f"{message} (HTTP {status})"
    if status == 401:
        return credentials_refused(text)
    if status == 403 and code in ("AuthorizationFailed", "LinkedAuthorizationFailed"):
        return CredentialsError(
            text,
            provider="azure",
            code=code,
            hint='ask for the roles "Contributor" on the resource group '
            'and "Compute Gallery Sharing Admin" on the gallery',
        )
    if code in _QUOTA or (code == "OperationNotAllowed" and "quota" in message.lower()):
        return QuotaError(text, provider="azure", code=code, hint="ask Azure for a higher limit")
    transient = status in _TRANSIENT or (status == 409 and code in _BUSY)
    return ProviderError(text, provider="azure", code=code, transient=transient, retry_after=wait)


def _details(response: Any) -> tuple[str, str]:
    """code and message of an ARM error body, or of a failed operation."""
    try:
        response.read()
        body = json.loads(response.text())
        found = body.get("error") or body
        return str(found.get("code", "")), str(found.get("message", ""))
    except Exception:  # no JSON, or no body at all: the status says what is known
        return "", ""


def is_gone(error: ProviderError) -> bool:
    return error.code in ("ResourceNotFound", "NotFound", "ResourceGroupNotFound")


class Credential:
    """DefaultAzureCredential whose failures say whether waiting may help.

    A new chain for every token: MSAL remembers a failed answer for a minute,
    which would defeat our retries. The pipeline keeps the token until it expires.
    """

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        """Raises CredentialsError, UnreachableError, or a transient ProviderError."""
        from azure.core.exceptions import AzureError
        from azure.core.pipeline.transport import RequestsTransport
        from azure.identity import DefaultAzureCredential

        failures: list[ProviderError] = []

        class Watched(RequestsTransport):  # type: ignore[misc]
            def send(self, request: Any, **options: Any) -> Any:
                try:
                    response = super().send(request, **options)
                except AzureError as error:
                    failures.append(classify(error))
                    raise
                if response.status_code in _TRANSIENT:
                    failures.append(
                        refusal(
                            response.status_code,
                            "",
                            "Azure's token service fails",
                            response.headers.get("Retry-After"),
                        )
                    )
                return response

        local = is_loopback(os.environ.get("IDENTITY_ENDPOINT", ""))
        transport = Watched(
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            use_env_settings=not local,
        )
        try:
            with DefaultAzureCredential(transport=transport, retry_total=0) as chain:
                return chain.get_token(*scopes)
        except AzureError as error:
            if failures:
                raise failures[-1] from error
            raise credentials_refused(str(error.message)) from error
        except ValueError as error:  # a variable that azure-identity can't read
            raise credentials_refused(str(error)) from error


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
    ) -> Body:
        """Start a long-running operation and wait for its end.

        `begin(client, polling=…)` is one of the SDK's begin_ methods, and may be
        repeated. Returns the result of an action where `outcome` asks for it:
        a resource is better read anew by whoever needs it.
        """
        from providers.azure.polling import StepwisePolling

        def start() -> StepwisePolling:
            def send(client: ComputeManagementClient) -> StepwisePolling:
                poller = begin(client, polling=StepwisePolling())
                method = poller.polling_method()
                assert isinstance(method, StepwisePolling)
                return method

            return self.call(send)

        method = task.retry(start)

        def look() -> tuple[float, bool]:
            done = self.call(lambda _: method.step())
            return method.retry_after(), done

        patiently(task, look, what=what, timeout=timeout)
        return task.retry(lambda: self.call(lambda _: method.outcome())) if outcome else {}


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
