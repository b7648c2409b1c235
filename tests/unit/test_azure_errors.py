"""Azure's errors, classified: what may be retried, what the user must do."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.azure.credentials import endpoint
from providers.azure.errors import is_gone, refusal
from publisher.emulation import FaultKind
from publisher.errors import CredentialsError, ProviderError, QuotaError, UnreachableError
from tests.unit.azure_world import AzureWorld, azure_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AzureWorld]:
    with azure_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        (429, "TooManyRequests", ProviderError, True),
        (500, "InternalServerError", ProviderError, True),
        (503, "ServerBusy", ProviderError, True),
        (409, "AnotherOperationInProgress", ProviderError, True),
        (409, "Conflict", ProviderError, True),
        (409, "PropertyChangeNotAllowed", ProviderError, False),
        (400, "InvalidParameter", ProviderError, False),
        (401, "InvalidAuthenticationToken", CredentialsError, False),
        (403, "AuthorizationFailed", CredentialsError, False),
        (409, "QuotaExceeded", QuotaError, False),
    ],
)
def test_a_refusal_is_classified_by_status_and_code(
    status: int, code: str, kind: type[ProviderError], transient: bool
) -> None:
    error = refusal(status, code, "no")
    assert type(error) is kind
    assert error.transient is transient
    assert code in str(error)


def test_an_operation_over_quota_is_a_quota_error() -> None:
    error = refusal(409, "OperationNotAllowed", "Operation exceeds approved cores Quota.")
    assert type(error) is QuotaError
    assert type(refusal(409, "OperationNotAllowed", "Wrong state.")) is ProviderError


def test_the_cloud_says_how_long_to_wait() -> None:
    assert refusal(429, "", "slow down", "17").retry_after == 17.0
    assert refusal(429, "", "slow down", "soon").retry_after is None


@pytest.mark.parametrize(("kind", "transient"), [("throttle", True), ("fail", True)])
def test_the_sdk_does_not_retry_by_itself(
    world: AzureWorld, kind: FaultKind, transient: bool
) -> None:
    world.api.get(lambda c: c.galleries.get("images", "x", api_version="2025-12-03"))
    world.sandbox.faults.requests.clear()
    world.sandbox.faults.add(kind)
    with pytest.raises(ProviderError) as caught:
        world.api.get(lambda c: c.galleries.get("images", "x", api_version="2025-12-03"))
    assert caught.value.transient is transient
    assert len(world.sandbox.faults.requests) == 1
    assert caught.value.retry_after == (1.0 if kind == "throttle" else None)


@pytest.mark.parametrize("kind", ["throttle", "fail", "drop"])
def test_a_token_service_that_fails_is_no_matter_of_credentials(
    world: AzureWorld, kind: FaultKind
) -> None:
    """And the next attempt asks again: no answer is remembered."""
    world.sandbox.faults.add(kind, pattern="/msi/token")
    with pytest.raises(ProviderError) as caught:
        world.api.list(lambda c: c.disks.list_by_resource_group("images", api_version="2026-03-02"))
    assert caught.value.transient
    assert not isinstance(caught.value, CredentialsError)
    assert (
        world.api.list(lambda c: c.disks.list_by_resource_group("images", api_version="2026-03-02"))
        == []
    )


def test_wrong_credentials_are_told_at_once(
    world: AzureWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    started = time.monotonic()
    with pytest.raises(CredentialsError) as caught:
        world.provider().check(world.spec(), ("westeurope",), world.task())
    assert "az login" in caught.value.hint
    assert time.monotonic() - started < 3
    assert all("/msi/token" in line for line in world.sandbox.faults.requests)


def test_nobody_at_the_endpoint_is_told_within_seconds(
    world: AzureWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AZURE_RESOURCE_MANAGER_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError) as caught:
        world.provider().check(world.spec(), ("westeurope",), world.task())
    assert caught.value.hint


def test_a_token_is_not_sent_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://management.example")
    with pytest.raises(UnreachableError, match="plain HTTP"):
        endpoint()


def test_other_clouds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_RESOURCE_MANAGER_ENDPOINT", raising=False)
    monkeypatch.delenv("AZURE_RESOURCE_MANAGER_AUDIENCE", raising=False)
    assert endpoint() == (
        "https://management.azure.com",
        "https://management.azure.com/.default",
    )
    monkeypatch.setenv("AZURE_RESOURCE_MANAGER_ENDPOINT", "https://arm.example/")
    monkeypatch.setenv("AZURE_RESOURCE_MANAGER_AUDIENCE", "https://audience.example")
    assert endpoint() == ("https://arm.example", "https://audience.example/.default")


def test_a_missing_resource_is_none_and_not_an_error(world: AzureWorld) -> None:
    assert world.api.get(lambda c: c.disks.get("images", "none", api_version="2026-03-02")) is None
    assert is_gone(refusal(404, "ResourceNotFound", "gone"))
    assert not is_gone(refusal(404, "SubscriptionNotFound", "no"))
