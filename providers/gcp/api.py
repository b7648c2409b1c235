"""The slice of Google's SDK that is used: clients from the environment, errors classified.

Endpoints come from CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE and _STORAGE, as for
gcloud; credentials from google.auth.default(). All retries of the SDK are off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from publisher.errors import (
    ConflictError,
    CredentialsError,
    HostError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from publisher.provider import require, sdk_imports

T = TypeVar("T")

PROVIDER = "gcp"
TIMEOUT = (5.0, 60.0)
"""Seconds to connect and between bytes."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOGIN = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file, "
    "or run: gcloud auth application-default login"
)
TRANSIENT = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "backendError",
        "internalError",
        "resourceNotReady",
        "RESOURCE_NOT_READY",
        "INTERNAL_ERROR",
        "RATE_LIMIT_EXCEEDED",
        "ZONE_RESOURCE_POOL_EXHAUSTED",
    }
)
QUOTA = frozenset({"quotaExceeded", "QUOTA_EXCEEDED", "LIMIT_EXCEEDED", "limitExceeded"})


# -- errors


def gone(error: ProviderError) -> bool:
    """True when the error says that there is no such resource."""
    return error.code in ("notFound", "RESOURCE_NOT_FOUND")


def unless_gone(call: Callable[[], T]) -> T | None:
    """What `call` gives, or None when there is no such resource."""
    try:
        return call()
    except ProviderError as error:
        if gone(error):
            return None
        raise


def from_status(
    status: int, reason: str, message: str, retry_after: float | None = None
) -> ProviderError:
    """The ProviderError for an HTTP status and Google's `reason`.

    https://cloud.google.com/storage/docs/json_api/v1/status-codes"""
    code = reason or str(status)
    if code in QUOTA:
        return QuotaError(
            message,
            provider=PROVIDER,
            code=code,
            hint="raise the quota in the console, or remove what is not needed",
        )
    if code in TRANSIENT or status in (408, 429) or status >= 500:
        return ProviderError(
            message, provider=PROVIDER, code=code, transient=True, retry_after=retry_after
        )
    if status == 401:
        return CredentialsError(
            f"Google Cloud does not accept the credentials: {message}",
            provider=PROVIDER,
            code=code,
            hint=LOGIN,
        )
    if status == 403:
        return CredentialsError(
            message,
            provider=PROVIDER,
            code=code,
            hint="grant the account the missing role, or use another account",
        )
    if status in (409, 412):
        return ConflictError(message, provider=PROVIDER, code=code)
    if status in (404, 410):
        code = "notFound"
    return ProviderError(message, provider=PROVIDER, code=code)


def from_response(response: Any) -> ProviderError:
    """For an HTTP response of the Storage API."""
    try:
        error = response.json()["error"]
        message = str(error["message"])
        reason = str((error.get("errors") or [{}])[0].get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason = f"HTTP status {response.status_code}", ""
    after = response.headers.get("Retry-After", "")
    seconds = float(after) if after.isdigit() else None
    return from_status(response.status_code, reason, message, seconds)


def classify(error: Exception) -> ProviderError | None:
    """The ProviderError for an exception of the SDK; None for anything else."""
    with sdk_imports:
        import requests
        from google.api_core import exceptions as core
        from google.auth import exceptions as auth

    if isinstance(error, core.GoogleAPICallError):
        listed = error.errors[0] if error.errors else {}
        details = listed if isinstance(listed, Mapping) else {}
        reason = details.get("reason", "")
        after = error.response.headers.get("Retry-After", "") if error.response is not None else ""
        seconds = float(after) if after.isdigit() else None
        message = str(details.get("message") or error.message)
        return from_status(int(error.code or 500), reason, message, seconds)
    if isinstance(error, auth.RefreshError):
        if error.retryable:
            return ProviderError(
                "the token endpoint does not answer properly", provider=PROVIDER, transient=True
            )
        return CredentialsError(
            f"Google Cloud does not accept the credentials: {_first(error)}",
            provider=PROVIDER,
            hint=LOGIN,
        )
    if isinstance(error, (auth.TransportError, requests.ConnectionError, requests.Timeout)):
        return UnreachableError(
            f"Google Cloud does not answer: {_first(error)}",
            provider=PROVIDER,
            transient=True,
            hint="check the network, proxies, and CLOUDSDK_API_ENDPOINT_OVERRIDES_*",
        )
    if isinstance(error, auth.DefaultCredentialsError) and not os.environ.get(
        "GOOGLE_APPLICATION_CREDENTIALS"
    ):
        return CredentialsError(
            "no Google Cloud credentials were found", provider=PROVIDER, hint=LOGIN
        )
    if isinstance(error, auth.GoogleAuthError):
        return CredentialsError(
            f"there are no usable Google Cloud credentials: {_first(error)}",
            provider=PROVIDER,
            hint=LOGIN,
        )
    if isinstance(error, requests.RequestException):
        return ProviderError(
            f"the connection broke: {_first(error)}", provider=PROVIDER, transient=True
        )
    return None


def _first(error: BaseException) -> str:
    """The innermost cause in one line, without addresses: they may carry secrets."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(word for word in text.splitlines()[0].split() if "://" not in word)[:200]


@contextlib.contextmanager
def classified() -> Iterator[None]:
    """Exceptions of the SDK leave as ProviderError."""
    try:
        yield
    except Exception as error:
        found = classify(error)
        if found is None:
            raise
        raise found from error


# -- clients


def endpoint(service: str, default: str) -> str:
    """scheme://host of a service, without a slash at its end."""
    value = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}") or default
    parts = urllib.parse.urlsplit(value)
    return f"{parts.scheme}://{parts.netloc}"


def _import_compute() -> Any:
    """The services of google-cloud-compute that are needed, without the package's
    __init__, which imports all hundred of them: 0.6 s instead of 1.7 s.

    A bare package stands in while they load and is taken away afterwards, so
    that whoever else imports google.cloud.compute_v1 gets it whole.
    """
    name = "google.cloud.compute_v1"
    if name in sys.modules:
        return sys.modules[name]
    require("google.api_core", PROVIDER)
    with sdk_imports:
        found = importlib.util.find_spec(name)
        if found is None:
            raise HostError(
                "the Python package google-cloud-compute is not installed",
                hint="pip install 'cloud-image-publisher[gcp]'",
            )
        bare = importlib.util.module_from_spec(found)
        sys.modules[name] = bare
        try:
            for service, client in SERVICES.items():
                module = importlib.import_module(f"{name}.services.{service}")
                setattr(bare, client, getattr(module, client))
        finally:
            if sys.modules.get(name) is bare:
                del sys.modules[name]
        return bare


SERVICES = {
    "disks": "DisksClient",
    "global_operations": "GlobalOperationsClient",
    "images": "ImagesClient",
    "instances": "InstancesClient",
    "projects": "ProjectsClient",
    "zone_operations": "ZoneOperationsClient",
    "zones": "ZonesClient",
}


class Api:
    """Credentials and clients of one provider instance, made on first use; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._credentials: Any = None
        self._clients: dict[str, Any] = {}
        self._compute: Any = None
        self._local = threading.local()

    @property
    def credentials(self) -> Any:
        with self._lock:
            if self._credentials is None:
                require("google.auth", PROVIDER)
                with sdk_imports:
                    import google.auth

                with classified():
                    try:
                        self._credentials, _ = google.auth.default(scopes=[SCOPE])
                    except ValueError as error:
                        raise CredentialsError(
                            f"the Google Cloud key file is damaged: {type(error).__name__}",
                            provider=PROVIDER,
                            hint=LOGIN,
                        ) from None
            return self._credentials

    def session(self) -> Any:
        """An AuthorizedSession of the calling thread."""
        if not hasattr(self._local, "session"):
            with sdk_imports:
                from google.auth.transport.requests import AuthorizedSession

            with classified():
                self._local.session = AuthorizedSession(  # type: ignore[no-untyped-call]
                    self.credentials, default_host="storage.googleapis.com"
                )
        return self._local.session

    def client(self, service: str) -> Any:
        """A client of google-cloud-compute, such as `images` or `zone_operations`."""
        with self._lock:
            if service not in self._clients:
                with classified():
                    if self._compute is None:
                        self._compute = _import_compute()
                    make = getattr(self._compute, SERVICES[service])
                    self._clients[service] = make(
                        credentials=self.credentials,
                        transport="rest",
                        client_options={
                            "api_endpoint": endpoint("COMPUTE", "https://compute.googleapis.com")
                        },
                    )
            return self._clients[service]

    def call(self, service: str, method: str, **request: Any) -> Any:
        """One request, without retry. Raises ProviderError."""
        bound: Callable[..., Any] = getattr(self.client(service), method)
        with classified():
            return bound(request=request, retry=None, timeout=TIMEOUT[1])

    def all(self, service: str, **request: Any) -> list[Any]:
        """All pages of a list. Raises ProviderError."""
        client = self.client(service)
        with classified():
            return list(client.list(request=request, retry=None, timeout=TIMEOUT[1]))
