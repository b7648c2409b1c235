"""Nothing that a guest sends makes a service of a rehearsal fail."""

from __future__ import annotations

import random

import pytest
from werkzeug.test import Client

from tests.unit.guest_world import Guest, service

WORDS = (
    "latest", "meta-data", "public-keys", "0", "computeMetadata", "v1", "instance", "recursive",
    "guest-attributes", "machine", "metadata", "comp=goalstate", "comp=health", "attested",
    "api-version=2025-04-07", "timeout_sec=99999999999999999999", "\x00", "\xff\xfe", "//", "²",
    "comp=certificates", "compute", "status", "vmSettings", "identity", "alt=json", "x" * 9000,
)  # fmt: skip
HEADERS = (
    ("Metadata-Flavor", "Google"), ("Metadata", "true"), ("x-ms-version", "2012-11-30"),
    ("x-ms-version", "2015-09-01"), ("X-aws-ec2-metadata-token-ttl-seconds", "٣"),
    ("x-ms-guest-agent-public-x509-cert", "AAAA"), ("Content-Type", "multipart/form-data"),
    ("X-aws-ec2-metadata-token", "\xff"), ("If-None-Match", '"'), ("Host", "a b"),
)  # fmt: skip
BODIES = (b"", b"<Health/>", b"{}", b"[[[[", b"\xff\x00", b"<a>" * 5000, b'{"requestUri":1}')


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_any_request_is_answered(cloud: str) -> None:
    draw = random.Random(cloud)  # the same requests each time
    for application in service(cloud).endpoints.values():
        client = Client(application)
        for _ in range(250):
            words = draw.choices(WORDS, k=draw.randrange(6))
            cut = draw.randrange(len(words) + 1)
            path = "/" + "/".join(words[:cut])
            response = client.open(
                "/",
                environ_overrides={"PATH_INFO": path},
                query_string="&".join(words[cut:]),
                method=draw.choice(["GET", "PUT", "POST", "DELETE", "HEAD", "odd"]),
                headers=dict(draw.sample(HEADERS, draw.randrange(5))),
                data=draw.choice(BODIES),
            )
            assert response.status_code < 500, path


def test_a_wait_has_an_end_that_python_can_wait_for() -> None:
    guest = Guest(service("gcp"), "169.254.169.254")
    path = "/computeMetadata/v1/?recursive=true&wait_for_change=true&last_etag=0&timeout_sec="
    flavor = {"Metadata-Flavor": "Google"}
    assert guest.ask("GET", path + "9" * 30, flavor).status_code == 200
