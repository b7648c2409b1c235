"""One instance for the tests of the guests' services, and a client of their addresses."""

from __future__ import annotations

import functools
from typing import Any

from werkzeug.test import Client, TestResponse

from publisher.model import Spec
from publisher.proof.guest import Instance, Look, Rehearsable, Service
from publisher.provider import load

SEED = "ab" * 16
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKjMI5ZOvnCzXLCmvj8UZk4KFh9WZsHaoMjYGC9cGzJp me"
USER_DATA = "#cloud-config\nruncmd: [true]\n"
SPEC = Spec("demo", "1.2.3")


def instance(**changes: Any) -> Instance:
    given = {
        "seed": SEED,
        "hostname": "rehearsal",
        "user": "admin1",
        "public_key": KEY,
        "user_data": USER_DATA,
    }
    return Instance(**{**given, **changes})


@functools.cache
def provider_of(cloud: str) -> Any:
    """Looked up once: entry points are read from all that is installed."""
    provider = load(cloud)
    assert issubclass(provider, Rehearsable)
    return provider


def looks(cloud: str, spec: Spec = SPEC, **options: Any) -> list[Look]:
    provider = provider_of(cloud)
    given = provider.options(**options) if options else None
    found: list[Look] = list(provider.guest(given).looks(spec))
    return found


def service(cloud: str, spec: Spec = SPEC, given: Any = None, **changes: Any) -> Service:
    guest = provider_of(cloud).guest(given)
    made: Service = guest.service(instance(**changes), guest.looks(spec)[0])
    return made


class Guest:
    """What a guest sees at one address."""

    def __init__(self, service: Service, address: str, port: int = 80) -> None:
        self.service = service
        self._client = Client(service.endpoints[address, port])

    def ask(self, method: str, path: str, headers: Any = None, data: Any = None) -> TestResponse:
        return self._client.open(path, method=method, headers=headers, data=data)

    def kinds(self) -> set[str]:
        return {report.kind for report in self.service.reports()}

    def told(self, kind: str) -> list[str]:
        return [report.text for report in self.service.reports() if report.kind == kind]
