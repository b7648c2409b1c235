"""AWS's errors come out as the right class, and only what may pass is transient."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from providers.aws.api import classify, token
from publisher.errors import (
    ConflictError,
    CredentialsError,
    ProviderError,
    QuotaError,
    UnreachableError,
)


def answer(code: str, status: int = 400, **details: Any) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": details.pop("message", "no")},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": details.pop("headers", {})},
        **details,
    }
    return boto.ClientError(response, "DoIt")


@pytest.mark.parametrize(
    ("code", "status", "kind", "transient"),
    [
        ("AuthFailure", 401, CredentialsError, False),
        ("InvalidClientTokenId", 403, CredentialsError, False),
        ("ExpiredToken", 400, CredentialsError, False),
        ("AccessDeniedException", 403, CredentialsError, False),
        ("UnauthorizedOperation", 403, CredentialsError, False),
        ("InvalidAMIName.Duplicate", 400, ConflictError, False),
        ("ConflictException", 409, ConflictError, False),
        ("ResourceLimitExceeded", 400, QuotaError, False),
        ("ServiceQuotaExceededException", 402, QuotaError, False),
        ("RequestLimitExceeded", 503, ProviderError, True),
        ("RequestThrottledException", 400, ProviderError, True),
        ("ThrottlingException", 400, ProviderError, True),
        ("InternalServerException", 500, ProviderError, True),
        ("SomethingNew", 502, ProviderError, True),
        ("InvalidParameterValue", 400, ProviderError, False),
        ("ResourceNotFoundException", 404, ProviderError, False),
    ],
)
def test_answers(code: str, status: int, kind: type[ProviderError], transient: bool) -> None:
    error = classify(answer(code, status), "ec2 do_it in us-east-1")
    assert type(error) is kind
    assert (error.code, error.transient) == (code, transient)
    assert "ec2 do_it in us-east-1" in str(error)
    if kind is CredentialsError:
        assert error.hint


def test_a_block_that_arrived_torn_is_sent_again() -> None:
    torn = answer("ValidationException", message="Failed to read block data")
    assert classify(torn, "put").transient
    assert classify(answer("ValidationException", Reason="WRITE_REQUEST_TIMEOUT"), "put").transient
    assert not classify(answer("ValidationException", Reason="INVALID_BLOCK"), "put").transient


def test_the_time_that_aws_asks_for_is_passed_on() -> None:
    error = classify(answer("SlowDown", 503, headers={"retry-after": "7"}), "put")
    assert error.retry_after == 7.0


def test_what_happens_without_an_answer() -> None:
    refused = classify(boto.EndpointConnectionError(endpoint_url="http://x"), "sts")
    assert isinstance(refused, UnreachableError)
    assert refused.hint
    for lost in (
        boto.ConnectionClosedError(endpoint_url="http://x"),
        boto.ReadTimeoutError(endpoint_url="http://x"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ):
        assert classify(lost, "get").transient
    assert isinstance(classify(boto.NoCredentialsError(), "sts"), CredentialsError)
    assert isinstance(classify(boto.ProfileNotFound(profile="x"), "sts"), CredentialsError)
    assert not classify(boto.ParamValidationError(report="x"), "put").transient


def test_an_answer_that_is_no_answer_is_passing() -> None:
    error = classify(ResponseParserError("invalid XML received"), "ec2 register_image")
    assert type(error) is ProviderError
    assert error.transient
    assert "ec2 register_image" in str(error)


def test_a_client_token_fits_and_depends_on_every_part() -> None:
    assert len(token("a", 1)) == 64
    assert len({token("a", 1), token("a", 2), token("a1"), token("a", "1", "")}) == 4


def test_loading_the_provider_loads_no_sdk() -> None:
    code = (
        "import sys, providers.aws.provider as p; p.Aws(p.Aws.options(regions=['us-east-1'])); "
        "sys.exit(any(m.split('.')[0] in ('boto3', 'botocore', 'moto', 'werkzeug') "
        "for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
