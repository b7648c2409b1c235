"""Where Resource Manager is, and the tokens for it.

AZURE_RESOURCE_MANAGER_ENDPOINT and AZURE_RESOURCE_MANAGER_AUDIENCE (as Azure
Service Operator and Cluster API read them) point to another cloud; credentials
come from azure-identity's DefaultAzureCredential.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from providers.azure.errors import TRANSIENT, classify, credentials_refused, refusal
from publisher.errors import ProviderError, UnreachableError
from publisher.provider import sdk_imports

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 20
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def endpoint() -> tuple[str, str]:
    """(URL of Resource Manager, scope of its tokens)."""
    with sdk_imports:
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


class Credential:
    """DefaultAzureCredential whose failures say whether waiting may help.

    A new chain for every token: MSAL remembers a failed answer for a minute,
    which would defeat our retries. The pipeline keeps the token until it expires.
    """

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        """Raises CredentialsError, UnreachableError, or a transient ProviderError."""
        with sdk_imports:
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
                if response.status_code in TRANSIENT:
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
