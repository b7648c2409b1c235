"""Compute Engine's metadata server as guests ask it."""

from __future__ import annotations

import json
import socket
import threading
import time

import jwt
import pytest
from werkzeug.test import TestResponse

from publisher.vm.web import WebServer
from tests.unit.guest_world import KEY, USER_DATA, Guest, service

FLAVOR = {"Metadata-Flavor": "Google"}
V1 = "/computeMetadata/v1"


@pytest.fixture
def guest() -> Guest:
    return Guest(service("gcp"), "169.254.169.254")


def get(guest: Guest, path: str) -> TestResponse:
    return guest.ask("GET", f"{V1}/{path}", FLAVOR)


def test_every_answer_says_whose_it_is(guest: Guest) -> None:
    for response in (guest.ask("GET", "/"), get(guest, "instance/id"), get(guest, "nothing")):
        assert response.headers["Metadata-Flavor"] == "Google"
        assert response.headers["Server"] == "Metadata Server for VM"


def test_the_flavor_must_be_named(guest: Guest) -> None:
    assert guest.ask("GET", f"{V1}/instance/id").status_code == 403
    assert guest.ask("GET", f"{V1}/instance/id", {"Metadata-Flavor": "Other"}).status_code == 403
    old = {"X-Google-Metadata-Request": "True"}
    assert guest.ask("GET", f"{V1}/instance/id", old).status_code == 200
    assert "refused" in guest.kinds()


def test_a_proxys_requests_are_refused(guest: Guest) -> None:
    headers = {**FLAVOR, "X-Forwarded-For": "10.0.0.1"}
    assert guest.ask("GET", f"{V1}/instance/id", headers).status_code == 403


@pytest.mark.parametrize("path", ["/computeMetadata/v1beta1/", "/computeMetadata/v2/", "/latest/"])
def test_other_versions_do_not_exist(guest: Guest, path: str) -> None:
    assert guest.ask("GET", path, FLAVOR).status_code == 404


def test_values_are_text(guest: Guest) -> None:
    response = get(guest, "instance/id")
    assert response.text == guest.service.instance_id
    assert response.mimetype == "application/text"
    assert get(guest, "instance/name").text == "rehearsal"
    assert get(guest, "instance/zone").text == "projects/123456789012/zones/us-central1-a"
    assert get(guest, "instance/network-interfaces/0/mac").text == guest.service.mac
    assert get(guest, "instance/network-interfaces/0/ip").text == "10.77.0.15"
    assert get(guest, "project/project-id").text == "rehearsal-project"


def test_directories_list_their_entries_and_want_a_slash(guest: Guest) -> None:
    assert get(guest, "").text == "instance/\noslogin/\nproject/\n"
    assert "network-interfaces/\n" in get(guest, "instance/").text
    response = get(guest, "instance/attributes?alt=json")
    assert response.status_code == 301
    assert response.headers["Location"].endswith("/instance/attributes/?alt=json")


@pytest.mark.parametrize("path", ["instance/id/", "instance/none", "instance/network-interfaces/1"])
def test_what_is_not_there_is_not_found(guest: Guest, path: str) -> None:
    assert get(guest, path).status_code == 404


def test_a_recursive_answer_is_json_in_camel_case(guest: Guest) -> None:
    response = get(guest, "?recursive=true")
    assert response.mimetype == "application/json"
    tree = json.loads(response.text)
    assert tree["instance"]["id"] == int(guest.service.instance_id)
    assert tree["instance"]["networkInterfaces"][0]["mac"] == guest.service.mac
    assert tree["project"]["numericProjectId"] == 123456789012
    assert tree["instance"]["guestAttributes"] == {}


def test_attributes_keep_their_names_in_json(guest: Guest) -> None:
    attributes = json.loads(get(guest, "instance/attributes/?recursive=True").text)
    assert attributes["user-data"] == USER_DATA
    assert attributes["ssh-keys"].split("\n") == [f"admin1:{KEY}", f"cloudinit:{KEY}"]
    assert {"user-data", "key"} <= guest.kinds()


def test_a_recursive_answer_can_be_text(guest: Guest) -> None:
    lines = get(guest, "instance/?recursive=true&alt=text").text.split("\n")
    assert f"id {guest.service.instance_id}" in lines
    assert f"network-interfaces/0/mac {guest.service.mac}" in lines


def test_a_value_can_be_json(guest: Guest) -> None:
    assert json.loads(get(guest, "instance/name?alt=json").text) == "rehearsal"
    assert get(guest, "instance/name?alt=yaml").status_code == 400


def test_single_attributes_are_seen_too(guest: Guest) -> None:
    assert get(guest, "instance/attributes/user-data").text == USER_DATA
    assert guest.kinds() == {"user-data"}


def test_a_wait_ends_at_once_when_the_etag_is_another_one(guest: Guest) -> None:
    etag = get(guest, "?recursive=true").headers["ETag"]
    response = get(guest, "?recursive=true&wait_for_change=true&last_etag=NONE&timeout_sec=60")
    assert response.headers["ETag"] == etag


@pytest.mark.long
def test_a_wait_ends_with_its_time(guest: Guest) -> None:
    etag = get(guest, "instance/").headers["ETag"]
    started = time.monotonic()
    response = get(guest, f"instance/?wait_for_change=true&last_etag={etag}&timeout_sec=1")
    assert 0.9 < time.monotonic() - started < 5
    assert (response.status_code, response.headers["ETag"]) == (200, etag)
    assert get(guest, "instance/?wait_for_change=true&timeout_sec=soon").status_code == 400


def test_a_wait_ends_with_a_change(guest: Guest) -> None:
    path = "instance/guest-attributes/"
    told: list[TestResponse] = []
    assert guest.ask("PUT", f"{V1}/{path}a/b", FLAVOR, "1").status_code == 200
    waiting = threading.Thread(
        target=lambda: told.append(
            get(guest, f"{path}?recursive=true&wait_for_change=true&timeout_sec=30")
        )
    )
    waiting.start()
    time.sleep(0.1)
    assert not told
    assert guest.ask("PUT", f"{V1}/{path}a/c", FLAVOR, "2").status_code == 200
    waiting.join(5)
    assert json.loads(told[0].text) == {"a": {"b": "1", "c": "2"}}


def test_a_wait_without_end_ends_with_the_server(guest: Guest) -> None:
    before = set(threading.enumerate())
    listening = socket.create_server(("127.0.0.1", 0))
    server = WebServer(listening, guest.service.endpoints["169.254.169.254", 80])
    asked = f"GET {V1}/?recursive=true&wait_for_change=true HTTP/1.0\r\nMetadata-Flavor: Google"
    with socket.create_connection(listening.getsockname()) as waiting:
        waiting.sendall(f"{asked}\r\n\r\n".encode())
        while "agent" not in guest.kinds():
            time.sleep(0.01)
        server.close()
        waiting.settimeout(5)
        assert waiting.recv(12) == b"HTTP/1.0 200"
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_guest_attributes_are_written_read_and_removed(guest: Guest) -> None:
    path = f"{V1}/instance/guest-attributes/hostkeys/ssh-ed25519"
    assert guest.ask("PUT", path, FLAVOR, "AAAA").status_code == 200
    assert guest.ask("GET", path, FLAVOR).text == "AAAA"
    assert guest.told("agent") == ["hostkeys/ssh-ed25519 = AAAA"]
    assert guest.ask("DELETE", path, FLAVOR).status_code == 200
    assert guest.ask("GET", path, FLAVOR).status_code == 404


@pytest.mark.parametrize("key", ["lonely", "a/b/c", "a/", "a b/c", f"{'n' * 129}/k"])
def test_a_guest_attribute_has_a_namespace_and_a_key(guest: Guest, key: str) -> None:
    path = f"{V1}/instance/guest-attributes/{key}"
    assert guest.ask("PUT", path, FLAVOR, "1").status_code == 400


def test_guest_attributes_are_bounded(guest: Guest) -> None:
    path = f"{V1}/instance/guest-attributes/a"
    assert guest.ask("PUT", f"{path}/huge", FLAVOR, "x" * 300_000).status_code == 413
    assert guest.ask("PUT", f"{path}/big", FLAVOR, "x" * 200_000).status_code == 200
    assert guest.ask("PUT", f"{path}/more", FLAVOR, "x" * 100_000).status_code == 400


@pytest.mark.parametrize("path", ["instance/attributes/user-data", "instance/id", "project/"])
def test_nothing_else_can_be_written(guest: Guest, path: str) -> None:
    assert guest.ask("PUT", f"{V1}/{path}", FLAVOR, "1").status_code == 405
    assert guest.ask("POST", f"{V1}/{path}", FLAVOR, "1").status_code == 405


def test_an_access_token_opens_nothing(guest: Guest) -> None:
    told = json.loads(get(guest, "instance/service-accounts/default/token").text)
    assert told["token_type"] == "Bearer"
    assert not told["access_token"].startswith("ya29.")
    assert "token" in guest.kinds()
    assert get(guest, "instance/service-accounts/other/token").status_code == 404


def test_an_identity_token_is_not_googles(guest: Guest) -> None:
    path = "instance/service-accounts/default/identity"
    assert get(guest, path).status_code == 400
    token = get(guest, f"{path}?audience=https://here&format=full").text
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == "https://here"
    assert claims["iss"].endswith(".invalid")
    assert claims["email"].endswith(".invalid")
    engine = claims["google"]["compute_engine"]
    assert engine["instance_id"] == guest.service.instance_id
    assert jwt.get_unverified_header(token)["alg"] == "RS256"


def test_without_user_data_there_is_none() -> None:
    bare = Guest(service("gcp", user_data=""), "169.254.169.254")
    assert get(bare, "instance/attributes/user-data").status_code == 404
    assert "user-data" not in bare.kinds()
