"""Google's answers become the right error, transient where a retry may help."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api_core_exceptions
from google.auth import exceptions as auth_exceptions

from providers.gcp.api import classify, from_response, from_status, gone
from publisher.errors import (
    ConflictError,
    CredentialsError,
    ProviderError,
    QuotaError,
    UnreachableError,
)

# Google's exceptions have no types.
core: Any = api_core_exceptions
auth: Any = auth_exceptions


@pytest.mark.parametrize(
    ("status", "reason", "kind", "transient"),
    [
        (401, "authError", CredentialsError, False),
        (403, "forbidden", CredentialsError, False),
        (403, "rateLimitExceeded", ProviderError, True),
        (403, "quotaExceeded", QuotaError, False),
        (404, "notFound", ProviderError, False),
        (408, "", ProviderError, True),
        (409, "alreadyExists", ConflictError, False),
        (412, "conditionNotMet", ConflictError, False),
        (400, "invalid", ProviderError, False),
        (400, "resourceNotReady", ProviderError, True),
        (429, "rateLimitExceeded", ProviderError, True),
        (500, "", ProviderError, True),
        (503, "backendError", ProviderError, True),
        (200, "QUOTA_EXCEEDED", QuotaError, False),
    ],
)
def test_status_and_reason_decide(
    status: int, reason: str, kind: type[ProviderError], transient: bool
) -> None:
    error = from_status(status, reason, "why")
    assert type(error) is kind
    assert error.transient is transient
    assert error.provider == "gcp"
    if isinstance(error, (CredentialsError, QuotaError)):
        assert error.hint


def response(status: int, body: bytes, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = body
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    made.request = requests.Request(
        "GET", "https://storage.googleapis.com/b?token=s3cret"
    ).prepare()
    return made


def test_retry_after_is_honoured() -> None:
    error = from_response(response(429, b"{}", Retry_After="7"))
    assert (error.transient, error.retry_after) == (True, 7.0)


def test_an_answer_that_is_no_json_is_classified_too() -> None:
    assert from_response(response(502, b"<html>")).transient


def test_errors_of_the_compute_client_keep_googles_words() -> None:
    details = {"message": "it is there", "reason": "alreadyExists"}
    body = {"error": {"code": 409, "message": "it is there", "errors": [details]}}
    error = classify(core.from_http_response(response(409, json.dumps(body).encode())))
    assert isinstance(error, ConflictError)
    assert (error.message, error.code) == ("it is there", "alreadyExists")
    missing = classify(core.from_http_response(response(404, b'{"error": {"message": "no"}}')))
    assert missing is not None
    assert gone(missing)


def test_credentials_and_connections() -> None:
    refused = classify(auth.RefreshError("invalid_grant"))
    assert isinstance(refused, CredentialsError)
    none = classify(auth.DefaultCredentialsError("Not found. To set them up, see https://x/y."))
    assert isinstance(none, CredentialsError)
    assert none.message == "no Google Cloud credentials were found"
    assert "gcloud auth" in none.hint
    for error in (auth.TransportError("x"), requests.ConnectionError("x"), requests.Timeout("x")):
        found = classify(error)
        assert isinstance(found, UnreachableError)
        assert found.transient
    busy = classify(auth.RefreshError("busy", retryable=True))
    assert busy is not None
    assert busy.transient


def test_addresses_do_not_get_into_messages() -> None:
    text = "broken: https://storage.googleapis.com/upload?upload_id=s3cret now"
    error = classify(requests.ConnectionError(text))
    assert error is not None
    assert "s3cret" not in str(error)


def test_other_exceptions_are_not_touched() -> None:
    assert classify(KeyError("x")) is None
