"""Azure's errors as ours: what a retry may cure, what the user must do."""

from __future__ import annotations

import json
from typing import Any

from publisher.errors import CredentialsError, ProviderError, QuotaError, UnreachableError
from publisher.provider import sdk_imports

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# Codes of 409 that mean "another operation on it is under way", however long that takes.
_HELD = frozenset(
    {"AnotherOperationInProgress", "Conflict", "ConflictingConcurrentWriteNotAllowed"}
)
# Codes of 409 after which the same request succeeds later.
_BUSY = _HELD | {"ConflictingUserInput", "OperationPreempted", "RetryableError"}
_GONE = frozenset(
    {"ResourceNotFound", "NotFound", "ParentResourceNotFound", "ResourceGroupNotFound"}
)
_QUOTA = frozenset({"QuotaExceeded", "ResourceQuotaExceeded", "SubscriptionQuotaReached"})


def classify(error: BaseException) -> ProviderError:
    """The SDK's exception as a ProviderError. The message is Azure's own."""
    with sdk_imports:
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
            f"Azure does not answer: {_first_line(error.message)}",
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
    return CredentialsError(
        f"Azure does not accept these credentials: {_first_line(message)}",
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
    transient = status in TRANSIENT or (status == 409 and code in _BUSY)
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
    return error.code in _GONE


def is_held(error: ProviderError) -> bool:
    """Whether the request must wait for another operation on the same resource."""
    return error.transient and error.code in _HELD


def _first_line(message: str) -> str:
    return next(iter(message.strip().splitlines()), "")[:300]
