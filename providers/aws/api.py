"""The slice of boto3 that is used: clients from the environment, each call once,
and AWS's errors as ProviderErrors. Retrying is the task's."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from publisher.errors import (
    ConflictError,
    CredentialsError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from publisher.provider import require, sdk_imports
from publisher.task import Task

Answer = dict[str, Any]

GRACE = 150.0
"""Seconds for which AWS may say that a new resource does not exist: about two
minutes were seen after StartSnapshot (coldsnap issues 43 and 56)."""

_THROTTLES = frozenset(
    [
        "BandwidthLimitExceeded",
        "ConcurrentLimitExceededException",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "SnapshotCreationPerVolumeRateExceeded",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ]
)
_PASSING = frozenset(
    [
        "InternalError",
        "InternalFailure",
        "InternalServerException",
        "RequestTimeout",
        "ServiceUnavailable",
        "Unavailable",
    ]
)
_PASSING_REASONS = frozenset({"WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE"})
_CREDENTIALS = frozenset(
    [
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ]
)
_DENIED = frozenset(
    ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OperationNotPermitted"]
)
_QUOTAS = frozenset(
    [
        "ConcurrentSnapshotLimitExceeded",
        "PendingSnapshotLimitExceeded",
        "ResourceLimitExceeded",
        "ServiceQuotaExceededException",
        "SnapshotLimitExceeded",
        "TagLimitExceeded",
    ]
)
_CONFLICTS = frozenset(
    {"ConflictException", "IdempotentParameterMismatch", "InvalidAMIName.Duplicate"}
)


class _Clients:
    """boto3 clients of one set of AWS_… variables. Making one takes a lock, because
    sessions are not thread-safe; using one does not."""

    def __init__(self) -> None:
        require("boto3", "aws")
        self._session: Any = None
        self._made: dict[tuple[str, str, int], Any] = {}
        self._lock = threading.Lock()

    def get(self, service: str, region: str, workers: int) -> Any:
        with self._lock:
            key = (service, region, workers)
            if key not in self._made:
                self._made[key] = self._make(*key)
            return self._made[key]

    def _make(self, service: str, region: str, workers: int) -> Any:
        with sdk_imports:
            import boto3
            import botocore.session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=4,
            read_timeout=20,
            retries={"total_max_attempts": 1},
            max_pool_connections=workers + 4,
            tcp_keepalive=True,
            user_agent_extra="cloud-image-publisher",
        )
        try:
            if self._session is None:
                core = botocore.session.Session()
                core.register_component("data_loader", _loader())
                self._session = boto3.Session(botocore_session=core)
            return self._session.client(service, region_name=region, config=config)
        except BotoCoreError as error:
            raise classify(error, service) from error


@functools.cache
def _loader() -> Any:
    """botocore's models, read once for all sessions: EC2's takes a fifth of a second."""
    with sdk_imports:
        from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))


@functools.lru_cache(maxsize=4)
def _clients(environment: tuple[tuple[str, str], ...]) -> _Clients:  # noqa: ARG001 (the key)
    return _Clients()


class Api:
    """`call` retries as the task says and `once` does not; both take boto3's names."""

    def __init__(self, workers: int = 4) -> None:
        self._workers = workers

    def once(self, service: str, region: str, operation: str, **parameters: Any) -> Answer:
        with sdk_imports:
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError

        environment = tuple(sorted(i for i in os.environ.items() if i[0].startswith("AWS_")))
        client = _clients(environment).get(service, region, self._workers)
        try:
            answer: Answer = getattr(client, operation)(**parameters)
            if "BlockData" in answer:
                answer["BlockData"] = answer["BlockData"].read()
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise classify(error, f"{service} {operation} in {region}") from error
        return answer

    def call(
        self, task: Task, service: str, region: str, operation: str, **parameters: Any
    ) -> Answer:
        return task.retry(lambda: self.once(service, region, operation, **parameters))

    def pages(
        self, task: Task, service: str, region: str, operation: str, **parameters: Any
    ) -> Iterator[Answer]:
        """Pages until there is no NextToken; some may be empty."""
        while True:
            page = self.call(task, service, region, operation, **parameters)
            yield page
            if not page.get("NextToken"):
                return
            parameters = {**parameters, "NextToken": page["NextToken"]}


def classify(error: Exception, doing: str) -> ProviderError:
    """boto3's exception as ours; `doing` is the call, for the message."""
    with sdk_imports:
        from botocore import exceptions as boto
        from botocore.parsers import ResponseParserError

    if isinstance(error, boto.ClientError):
        return _classify_answer(error.response, doing)
    if isinstance(error, ResponseParserError):
        # a 5xx page of a proxy or load balancer on the way
        return ProviderError(
            f"{doing}: the answer is none of AWS's", provider="aws", transient=True
        )
    text = f"{doing}: {error}"
    if isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.ProfileNotFound
        | boto.TokenRetrievalError
        | boto.SSOError
        | boto.UnauthorizedSSOTokenError,
    ):
        return CredentialsError(
            text, provider="aws", hint="set AWS_PROFILE, or log in with: aws sso login"
        )
    if isinstance(
        error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError
    ):
        return UnreachableError(
            text,
            provider="aws",
            transient=True,
            hint="check the network, AWS_ENDPOINT_URL and that the region exists",
        )
    if isinstance(error, boto.SSLError):
        return UnreachableError(text, provider="aws", hint="check the clock, or AWS_CA_BUNDLE")
    passing = isinstance(
        error,
        boto.HTTPClientError
        | boto.ResponseStreamingError
        | boto.IncompleteReadError
        | boto.ChecksumError,
    )
    return ProviderError(text, provider="aws", code=type(error).__name__, transient=passing)


def _classify_answer(response: Any, doing: str) -> ProviderError:
    details = response.get("Error", {})
    code, text = details.get("Code", ""), details.get("Message", "")
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    message = f"{doing}: {text or code} ({code})"
    if code in _CREDENTIALS and "not authorized for image" not in text.lower():
        return CredentialsError(
            message,
            provider="aws",
            code=code,
            hint="check the AWS credentials and this machine's clock; the region may not be "
            "enabled in the account",
        )
    if code in _DENIED:
        return CredentialsError(
            message, provider="aws", code=code, hint=f"allow this to the IAM identity: {doing}"
        )
    if code in _QUOTAS:
        return QuotaError(
            message,
            provider="aws",
            code=code,
            hint="remove what is not needed, or ask for more in Service Quotas",
        )
    if code in _CONFLICTS:
        return ConflictError(message, provider="aws", code=code)
    passing = (
        code in _THROTTLES
        or code in _PASSING
        or status >= 500
        or response.get("Reason") in _PASSING_REASONS
        or "Failed to read block data" in text
    )
    after = metadata.get("HTTPHeaders", {}).get("retry-after", "")
    return ProviderError(
        message,
        provider="aws",
        code=code,
        transient=passing,
        retry_after=float(after) if after.isdigit() else None,
    )


def token(*parts: object) -> str:
    """A ClientToken: 64 ASCII characters that depend on all of `parts`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_in(resource: Answer) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}


def key_arn(api: Api, region: str, key: str | None, task: Task) -> str | None:
    """The ARN in `region` of the key that an alias or an id names."""
    if key is None:
        return None
    arn: str = api.call(task, "kms", region, "describe_key", KeyId=key)["KeyMetadata"]["Arn"]
    return arn
