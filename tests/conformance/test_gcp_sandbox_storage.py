"""The stand-in of Cloud Storage refuses what the real service refuses."""

from __future__ import annotations

import json
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from providers.gcp.sandbox import GcpSandbox
from tests.unit.gcp_cloud import BUCKET, MIB, Cloud, cloud, crc32c

QUANTUM = 256 * 1024
OBJECTS = f"/storage/v1/b/{BUCKET}/o"


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("gcs")) as running:
        yield running


def chunk(session: str, data: bytes, start: int, total: str) -> requests.Response:
    """A PUT as anybody who has the session's address may send it: without a token."""
    told = f"bytes {start}-{start + len(data) - 1}/{total}" if data else f"bytes */{total}"
    return requests.put(session, data=data, headers={"Content-Range": told}, timeout=10)


def test_a_resumable_upload_goes_in_quanta_and_says_how_far_it_is(gcs: Cloud) -> None:
    data = bytes(range(256)) * 2048
    session = gcs.begin("resumable", crc32c=crc32c(data))
    empty = chunk(session, b"", 0, "*")
    assert (empty.status_code, "Range" in empty.headers) == (308, False)
    first = chunk(session, data[:QUANTUM], 0, "*")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    again = chunk(session, data[:QUANTUM], 0, "*")
    assert again.headers["Range"] == f"bytes=0-{QUANTUM - 1}"
    last = chunk(session, data[QUANTUM:], QUANTUM, str(len(data)))
    assert last.status_code == 200
    assert last.json()["crc32c"] == crc32c(data)
    assert chunk(session, b"", 0, str(len(data))).json()["size"] == str(len(data))
    read = gcs.request("GET", f"{OBJECTS}/resumable", params={"alt": "media"})
    assert read.content == data
    part = gcs.request(
        "GET", f"{OBJECTS}/resumable", params={"alt": "media"}, headers={"Range": "bytes=5-9"}
    )
    assert (part.status_code, part.content) == (206, data[5:10])


def test_a_chunk_in_the_middle_is_a_multiple_of_256_kib(gcs: Cloud) -> None:
    session = gcs.begin("odd")
    assert chunk(session, bytes(1000), 0, "*").status_code == 400


def test_a_gap_is_refused_and_nothing_is_appended(gcs: Cloud) -> None:
    session = gcs.begin("gap")
    refused = chunk(session, bytes(QUANTUM), QUANTUM, "*")
    assert refused.status_code == 503
    assert "exceeds already uploaded size" in refused.text
    assert "Range" not in chunk(session, b"", 0, "*").headers


def test_a_wrong_checksum_leaves_no_object(gcs: Cloud) -> None:
    session = gcs.begin("wrong", crc32c=crc32c(b"other"))
    assert chunk(session, b"data", 0, "4").status_code == 400
    assert gcs.request("GET", f"{OBJECTS}/wrong").status_code == 404
    direct = gcs.request(
        "POST",
        f"/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "media", "name": "wrong"},
        data=b"data",
        headers={"X-Goog-Hash": f"crc32c={crc32c(b'other')}"},
    )
    assert direct.status_code == 400


def test_a_cancelled_session_takes_nothing_more(gcs: Cloud) -> None:
    session = gcs.begin("cancelled")
    assert requests.delete(session, timeout=10).status_code == 499
    assert chunk(session, b"data", 0, "4").status_code == 499


def test_an_unknown_session_is_not_found(gcs: Cloud) -> None:
    session = gcs.begin("unknown").partition("upload_id=")[0] + "upload_id=guess"
    assert chunk(session, b"data", 0, "4").status_code == 404


def test_generation_zero_means_that_nothing_may_be_there(gcs: Cloud) -> None:
    assert gcs.put("once", b"1", ifGenerationMatch="0").status_code == 200
    assert gcs.put("once", b"2", ifGenerationMatch="0").status_code == 412
    generation = gcs.request("GET", f"{OBJECTS}/once").json()["generation"]
    assert gcs.put("once", b"3", ifGenerationMatch=generation).status_code == 200
    assert gcs.put("once", b"4", ifGenerationMatch=generation).status_code == 412
    stale = gcs.request("DELETE", f"{OBJECTS}/once", params={"ifGenerationMatch": generation})
    assert stale.status_code == 412


def test_a_multipart_upload_carries_its_metadata(gcs: Cloud) -> None:
    metadata = json.dumps({"name": "multi", "metadata": {"a": "b"}})
    body = (
        f"--x\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n"
        "--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--"
    )
    made = gcs.request(
        "POST",
        f"/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "multipart"},
        data=body.encode(),
        headers={"Content-Type": "multipart/related; boundary=x"},
    ).json()
    assert (made["size"], made["contentType"], made["metadata"]) == ("5", "text/plain", {"a": "b"})


def compose(gcs: Cloud, name: str, sources: list[dict[str, Any]], **destination: object) -> int:
    body = {"sourceObjects": sources, "destination": destination}
    return gcs.request("POST", f"{OBJECTS}/{name}/compose", json=body).status_code


def test_compose_joins_up_to_32_objects(gcs: Cloud) -> None:
    for index in range(3):
        gcs.put(f"parts/{index}", bytes([index]) * 1000)
    names: list[dict[str, Any]] = [{"name": f"parts/{index}"} for index in range(3)]
    assert compose(gcs, "joined", names) == 200
    generation = int(gcs.request("GET", f"{OBJECTS}/parts%2F0").json()["generation"])
    assert compose(gcs, "joined", [{**names[0], "generation": generation}, *names[1:]]) == 200
    data = b"".join(bytes([index]) * 1000 for index in range(3))
    made = gcs.request("GET", f"{OBJECTS}/joined").json()
    assert (made["crc32c"], made["componentCount"]) == (crc32c(data), 3)
    assert "md5Hash" not in made
    assert compose(gcs, "joined", names * 11) == 400
    assert compose(gcs, "joined", []) == 400
    assert compose(gcs, "joined", [{"name": "parts/9"}]) == 404
    assert compose(gcs, "joined", [{"name": "parts/0", "generation": "1"}]) == 404
    assert compose(gcs, "joined", names, nonsense=1) == 400


def test_lists_are_by_prefix_and_paged(gcs: Cloud) -> None:
    for index in range(5):
        gcs.put(f"list/{index}", b"")
    page = gcs.request("GET", OBJECTS, params={"prefix": "list/", "maxResults": "3"}).json()
    assert [item["name"] for item in page["items"]] == ["list/0", "list/1", "list/2"]
    rest = gcs.request(
        "GET", OBJECTS, params={"prefix": "list/", "pageToken": page["nextPageToken"]}
    ).json()
    assert [item["name"] for item in rest["items"]] == ["list/3", "list/4"]


def test_unknown_parameters_and_fields_are_refused(gcs: Cloud) -> None:
    assert gcs.request("GET", OBJECTS, params={"prefxi": "x"}).status_code == 400
    response = gcs.request(
        "POST",
        f"/upload/storage/v1/b/{BUCKET}/o",
        params={"uploadType": "resumable"},
        json={"name": "x", "metdata": {}},
    )
    assert response.status_code == 400


def test_no_bucket_no_objects(gcs: Cloud) -> None:
    assert gcs.request("GET", "/storage/v1/b/other/o").status_code == 404
    assert (
        gcs.request("POST", "/storage/v1/b", params={"project": "no"}, json={}).status_code == 400
    )


def test_every_request_needs_a_valid_token(gcs: Cloud) -> None:
    for headers in ({}, {"Authorization": "Bearer ya29.guess"}, {"Authorization": "Bearer a.b.c"}):
        assert requests.get(gcs.url + OBJECTS, headers=headers, timeout=10).status_code == 401


def test_the_token_endpoint_takes_the_key_and_its_tokens_expire(gcs: Cloud) -> None:
    from google.auth.transport.requests import Request
    from google.oauth2 import service_account

    info = json.loads(Path(gcs.sandbox.environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    del info["universe_domain"]
    scopes = ["https://www.googleapis.com/auth/devstorage.read_write"]
    kind: Any = service_account.Credentials
    credentials = kind.from_service_account_info(info, scopes=scopes)
    credentials.refresh(Request())
    headers = {"Authorization": f"Bearer {credentials.token}"}
    assert requests.get(gcs.url + OBJECTS, headers=headers, timeout=10).status_code == 200
    gcs.sandbox.expire_tokens()
    assert requests.get(gcs.url + OBJECTS, headers=headers, timeout=10).status_code == 401


def test_the_key_file_is_private(gcs: Cloud) -> None:
    path = Path(gcs.sandbox.environment["GOOGLE_APPLICATION_CREDENTIALS"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_sessions_and_objects_survive_a_restart(tmp_path: Path) -> None:
    data = bytes(MIB)
    with cloud(tmp_path) as gcs:
        session = gcs.begin("later", crc32c=crc32c(data))
        chunk(session, data[:QUANTUM], 0, str(len(data)))
    with cloud(tmp_path) as gcs:
        session = gcs.url + session.partition("/upload")[1] + session.partition("/upload")[2]
        assert chunk(session, b"", 0, "*").headers["Range"] == f"bytes=0-{QUANTUM - 1}"
        assert chunk(session, data[QUANTUM:], QUANTUM, str(len(data))).status_code == 200
        assert list(gcs.sandbox.resources()) == [f"object/{BUCKET}/later"]


def test_what_arrived_before_the_client_hung_up_is_kept_in_whole_quanta(gcs: Cloud) -> None:
    address = urllib.parse.urlsplit(gcs.begin("cut"))
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = (
            f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Length: {3 * QUANTUM}\r\nContent-Range: bytes 0-{3 * QUANTUM - 1}/*\r\n\r\n"
        )
        connection.sendall(head.encode() + bytes(QUANTUM + 1000))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    seen = chunk(address.geturl(), b"", 0, "*")
    assert seen.headers["Range"] == f"bytes=0-{QUANTUM - 1}"


def test_it_starts_where_it_was_unless_somebody_else_is_there_now(tmp_path: Path) -> None:
    """Another stand-in of the same run may be given its port, or a killed one left half a note."""

    def start() -> int:
        sandbox = GcpSandbox(tmp_path)
        sandbox.start()
        sandbox.stop()
        return int((tmp_path / "port").read_text())

    first = start()
    assert start() == first
    with socket.create_server(("127.0.0.1", first)):
        second = start()
    assert second != first
    (tmp_path / "port").write_text("")
    assert start()
