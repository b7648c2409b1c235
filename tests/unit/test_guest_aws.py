"""EC2's instance metadata service as guests ask it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from providers.aws.guest.tokens import Tokens
from providers.aws.options import AwsOptions
from publisher.model import Spec
from tests.unit.guest_world import KEY, USER_DATA, Guest, service

PUT = "X-aws-ec2-metadata-token-ttl-seconds"
GET = "X-aws-ec2-metadata-token"
V1 = AwsOptions(regions=("eu-west-1",), imds_v2=False)


@pytest.fixture
def guest() -> Guest:
    return Guest(service("aws"), "169.254.169.254")


@pytest.fixture
def old() -> Guest:
    """Of an image that does not demand tokens."""
    return Guest(service("aws", given=V1), "169.254.169.254")


def token(guest: Guest, seconds: str = "60") -> dict[str, str]:
    return {GET: guest.ask("PUT", "/latest/api/token", {PUT: seconds}).text}


def read(guest: Guest, path: str) -> str:
    response = guest.ask("GET", path, token(guest))
    assert response.status_code == 200, path
    return response.text


def test_a_token_opens_the_metadata(guest: Guest) -> None:
    response = guest.ask("GET", "/latest/meta-data/instance-id", token(guest))
    assert response.text == guest.service.instance_id
    assert response.mimetype == "text/plain"
    assert response.headers[PUT] == "60"
    assert {"token", "metadata"} <= guest.kinds()


def test_without_a_token_there_is_nothing_where_the_image_demands_one(guest: Guest) -> None:
    for path in ("/", "/latest/meta-data/", "/latest/user-data"):
        assert guest.ask("GET", path).status_code == 401
    assert len(guest.told("refused")) == 3


def test_without_a_token_the_metadata_is_open_where_the_image_allows_it(old: Guest) -> None:
    assert old.ask("GET", "/latest/meta-data/instance-id").text == old.service.instance_id


@pytest.mark.parametrize("sent", ["", "wrong"])
def test_a_wrong_token_is_refused_even_where_none_is_needed(old: Guest, sent: str) -> None:
    assert old.ask("GET", "/latest/meta-data/", {GET: sent}).status_code == 401


@pytest.mark.parametrize("seconds", ["0", "21601", "-1", "1.5", "ten", "", "999999999999"])
def test_a_token_lives_from_a_second_to_six_hours(guest: Guest, seconds: str) -> None:
    assert guest.ask("PUT", "/latest/api/token", {PUT: seconds}).status_code == 400


@pytest.mark.parametrize("seconds", ["1", "21600"])
def test_the_bounds_of_a_tokens_life_are_good(guest: Guest, seconds: str) -> None:
    response = guest.ask("PUT", "/latest/api/token", {PUT: seconds})
    assert response.status_code == 200
    assert response.headers[PUT] == seconds


def test_a_token_without_a_lifetime_is_refused(guest: Guest) -> None:
    assert guest.ask("PUT", "/latest/api/token").status_code == 400


def test_a_token_does_not_pass_a_proxy(guest: Guest) -> None:
    headers = {PUT: "60", "X-Forwarded-For": "10.0.0.1"}
    assert guest.ask("PUT", "/latest/api/token", headers).status_code == 403


def test_tokens_are_given_under_latest_only(guest: Guest) -> None:
    assert guest.ask("PUT", "/2021-03-23/api/token", {PUT: "60"}).status_code == 403
    assert guest.ask("PUT", "/latest/meta-data/", {PUT: "60"}).status_code == 405
    assert guest.ask("GET", "/latest/api/token", token(guest)).status_code == 404


def test_a_token_ends_with_its_time() -> None:
    now = [100.0]
    tokens = Tokens(lambda: now[0])
    issued = tokens.issue("10")
    assert issued is not None
    assert tokens.left(issued[0]) == 10
    now[0] = 109.5
    assert tokens.left(issued[0]) == 1
    now[0] = 110.0
    assert tokens.left(issued[0]) == 0


def test_both_addresses_know_the_same_tokens(guest: Guest) -> None:
    other = Guest(guest.service, "fd00:ec2::254")
    assert other.ask("GET", "/latest/meta-data/mac", token(guest)).text == guest.service.mac


def test_directories_list_what_is_in_them(guest: Guest) -> None:
    versions = read(guest, "/").split("\n")
    assert (versions[0], versions[-2], versions[-1]) == ("1.0", "2024-04-11", "latest")
    assert read(guest, "/latest/") == "dynamic/\nmeta-data/\nuser-data"
    assert read(guest, "/latest/meta-data/public-keys/") == "0=rehearsal"
    assert read(guest, "/latest/meta-data/public-keys/0") == "openssh-key"
    names = read(guest, "/latest/meta-data/").split("\n")
    assert {"instance-id", "network/", "placement/", "services/"} <= set(names)
    assert read(guest, "/latest/dynamic/instance-identity").split("\n") == [
        "document",
        "pkcs7",
        "rsa2048",
        "signature",
    ]


def test_older_versions_know_less(guest: Guest) -> None:
    at = "/meta-data/network/interfaces/macs/"
    assert read(guest, f"/2021-03-23{at}") == f"{guest.service.mac}/"
    assert guest.ask("GET", f"/2009-04-04{at}", token(guest)).status_code == 404
    assert "network/" not in read(guest, "/2009-04-04/meta-data/").split("\n")
    assert guest.ask("GET", "/2009-04-05/meta-data/", token(guest)).status_code == 404


def test_the_card_and_its_address_are_those_of_the_machine(guest: Guest) -> None:
    card = f"/latest/meta-data/network/interfaces/macs/{guest.service.mac}"
    assert read(guest, f"{card}/local-ipv4s") == "10.77.0.15"
    assert read(guest, f"{card}/subnet-ipv4-cidr-block") == "10.77.0.0/24"
    assert read(guest, f"{card}/device-number") == "0"


def test_the_owners_gifts_are_there_and_their_taking_is_seen(guest: Guest) -> None:
    response = guest.ask("GET", "/latest/user-data", token(guest))
    assert response.text == USER_DATA
    assert response.mimetype == "application/octet-stream"
    assert read(guest, "/latest/meta-data/public-keys/0/openssh-key") == KEY + "\n"
    assert read(guest, "/latest/meta-data/local-hostname") == "rehearsal.ec2.internal"
    assert {"user-data", "key"} <= guest.kinds()


def test_without_user_data_there_is_none() -> None:
    bare = Guest(service("aws", given=V1, user_data=""), "169.254.169.254")
    assert bare.ask("GET", "/latest/user-data").status_code == 404
    assert "user-data" not in bare.ask("GET", "/latest/").text
    assert "user-data" not in bare.kinds()


def test_there_is_no_role_and_so_no_credentials(old: Guest) -> None:
    for path in ("iam", "iam/info", "iam/security-credentials/", "tags/instance"):
        assert old.ask("GET", f"/latest/meta-data/{path}").status_code == 404
    assert "iam/" not in old.ask("GET", "/latest/meta-data/").text.split("\n")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_nothing_can_be_changed(old: Guest, method: str) -> None:
    assert old.ask(method, "/latest/meta-data/instance-id").status_code == 405


def test_the_identity_document_is_signed_by_a_key_that_is_not_amazons(guest: Guest) -> None:
    at = "/latest/dynamic/instance-identity/"
    document = read(guest, at + "document")
    told = json.loads(document)
    assert told["instanceId"] == guest.service.instance_id
    assert told["region"] == "us-east-1"
    [certificate] = pkcs7.load_der_pkcs7_certificates(base64.b64decode(read(guest, at + "pkcs7")))
    [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert "not Amazon" in str(name.value)
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    signature = base64.b64decode(read(guest, at + "signature"))
    key.verify(signature, document.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_arm_machines_say_so() -> None:
    arm = Guest(
        service("aws", Spec("demo", "1", arch="aarch64", firmware="uefi"), V1), "169.254.169.254"
    )
    document = json.loads(arm.ask("GET", "/latest/dynamic/instance-identity/document").text)
    assert (document["architecture"], document["instanceType"]) == ("arm64", "t4g.micro")
    assert document["region"] == "eu-west-1"
