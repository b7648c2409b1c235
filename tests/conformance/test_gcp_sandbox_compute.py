"""The stand-in of Compute Engine refuses what the real service refuses."""

from __future__ import annotations

import itertools
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.model import GIB
from tests.unit.gcp_cloud import MIB, PROJECT, Cloud, archive, cloud, gzip, sparse_archive

ZONE = f"/compute/v1/projects/{PROJECT}/zones/us-central1-a"
names = (f"web-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def gce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("gce")) as running:
        assert running.put("disk.tar.gz", sparse_archive(GIB)).status_code == 200
        yield running


@pytest.fixture
def image(gce: Cloud) -> str:
    """A new image's name."""
    name = next(names)
    operation = gce.finish(gce.insert(name, labels={"team": "x"}))
    assert "error" not in operation
    return name


def test_an_image_is_pending_then_ready(gce: Cloud) -> None:
    name = next(names)
    response = gce.insert(name, architecture="ARM64", family="web")
    assert response.json()["status"] == "PENDING"
    gce.finish(response)
    image = gce.images("GET", f"/{name}").json()
    assert (image["status"], image["diskSizeGb"], image["architecture"]) == ("READY", "1", "ARM64")
    assert int(image["archiveSizeBytes"]) > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Web"},
        {"name": "web-"},
        {"name": "w" * 64},
        {"name": None},
        {"architecture": "x86_64"},
        {"guestOsFeatures": [{"type": "MAGIC"}]},
        {"diskSizeGb": 10},
        {"surprise": True},
        {"labels": {"Team": "x"}},
        {"labels": {"team": "X Y"}},
        {"labels": {f"l{n}": "" for n in range(65)}},
        {"labels": {"team": "a" * 64}},
        {"family": "Web"},
        {"storageLocations": ["us", "eu"]},
        {"storageLocations": ["moon"]},
        {"rawDisk": None},
        {"sourceDisk": "zones/z/disks/d"},
        {"rawDisk": {"source": "https://example.com/disk.tar.gz"}},
        {"rawDisk": {"source": "https://storage.googleapis.com/sandbox-images/none.tar.gz"}},
        {"rawDisk": {"source": "https://storage.googleapis.com/sandbox-images/disk.raw"}},
        {"rawDisk": {"source": "x", "containerType": "ZIP"}},
        {"query": {"requestId": "1"}},
        {"query": {"requestId": str(uuid.UUID(int=0))}},
        {"query": {"requestid": "5f0f4c1e-8b0e-4a52-9f4b-3d7f4f1b2c11"}},
    ],
    ids=str,
)
def test_images_insert_refuses(gce: Cloud, fields: dict[str, Any]) -> None:
    response = gce.insert(**{"name": next(names), **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["errors"][0]["reason"]


def bad_archives() -> dict[str, bytes]:
    good = sparse_archive(GIB)
    return {
        "no gzip": bytes(1024),
        "not whole GiB": sparse_archive(GIB + 512),
        "empty disk": archive(0),
        "wrong member": sparse_archive(GIB, "disk.img"),
        "ustar": archive(MIB, kind=tarfile.USTAR_FORMAT),
        "cut off": good[: len(good) // 2],
        "two gzip members": good + gzip(b""),
        "garbage behind": good + b"x",
    }


@pytest.mark.parametrize("what", list(bad_archives()))
def test_an_archive_that_is_no_image_fails_the_operation(gce: Cloud, what: str) -> None:
    name = next(names)
    gce.put("bad.tar.gz", bad_archives()[what])
    source = "https://storage.googleapis.com/sandbox-images/bad.tar.gz"
    operation = gce.finish(gce.insert(name, rawDisk={"source": source}))
    assert operation["error"]["errors"][0]["code"] == "INVALID_IMAGE_TAR"
    assert gce.images("GET", f"/{name}").status_code == 404


def test_the_same_request_id_is_the_same_operation(gce: Cloud) -> None:
    name, query = next(names), {"requestId": str(uuid.uuid4())}
    first = gce.insert(name, query=query)
    again = gce.insert(name, query=query)
    assert first.json()["name"] == again.json()["name"]
    assert first.json()["clientOperationId"] == query["requestId"]
    gce.finish(first)
    assert gce.insert(name).status_code == 409
    assert gce.insert(name, query=query).json()["status"] == "DONE"
    assert gce.images("DELETE", f"/{name}", params=query).status_code == 400


def test_labels_change_with_the_current_fingerprint_only(gce: Cloud, image: str) -> None:
    fingerprint = gce.images("GET", f"/{image}").json()["labelFingerprint"]
    body = {"labels": {"team": "y"}, "labelFingerprint": fingerprint}
    gce.finish(gce.images("POST", f"/{image}/setLabels", json=body))
    assert gce.images("GET", f"/{image}").json()["labels"] == {"team": "y"}
    assert gce.images("POST", f"/{image}/setLabels", json=body).status_code == 412


def test_a_policy_is_set_with_the_etag_that_was_read(gce: Cloud, image: str) -> None:
    policy = gce.images("GET", f"/{image}/getIamPolicy").json()
    binding = {"role": "roles/compute.imageUser", "members": ["allAuthenticatedUsers"]}
    body = {"policy": {"etag": policy["etag"], "bindings": [binding]}}
    path = f"/{image}/setIamPolicy"
    assert gce.images("POST", path, json=body).json()["bindings"] == [binding]
    assert gce.images("POST", path, json=body).status_code == 409


@pytest.mark.parametrize("member", ["allUsers", "alice@example.com", "user:alice", "team:x@y.z"])
def test_a_policy_takes_principals_only(gce: Cloud, image: str, member: str) -> None:
    body = {"policy": {"bindings": [{"role": "roles/compute.imageUser", "members": [member]}]}}
    assert gce.images("POST", f"/{image}/setIamPolicy", json=body).status_code == 400


def test_a_family_is_its_newest_image_that_is_not_deprecated(gce: Cloud) -> None:
    old, new = next(names), next(names)
    for name in (old, new):
        gce.finish(gce.insert(name, family="chain"))
    assert gce.images("GET", "/family/chain").json()["name"] == new
    body = {"state": "DEPRECATED", "replacement": f"global/images/{old}"}
    gce.finish(gce.images("POST", f"/{new}/deprecate", json=body))
    assert gce.images("GET", "/family/chain").json()["name"] == old
    assert gce.images("POST", f"/{new}/deprecate", json={"state": "OLD"}).status_code == 400


def test_lists_are_filtered_by_labels(gce: Cloud) -> None:
    name = next(names)
    gce.finish(gce.insert(name, labels={"only": "me", "more": "1"}))
    for text in ("labels.only=me", "(labels.only:*) AND (labels.more=1)", f"name={name}"):
        found = gce.images("GET", params={"filter": text}).json()["items"]
        assert [item["name"] for item in found] == [name], text
    assert "items" not in gce.images("GET", params={"filter": "labels.only=you"}).json()
    assert gce.images("GET", params={"filter": "size > 3 OR x"}).status_code == 400


def test_lists_are_paged(gce: Cloud, image: str) -> None:
    seen, token = [], ""
    while True:
        page = gce.images("GET", params={"maxResults": "1", "pageToken": token}).json()
        seen += [item["name"] for item in page["items"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert image in seen
    assert len(seen) == len(set(seen))


def test_another_project_and_zone_are_not_there(gce: Cloud) -> None:
    assert gce.request("GET", "/compute/v1/projects/other/global/images").status_code == 404
    assert (
        gce.request("GET", f"/compute/v1/projects/{PROJECT}/zones/moon-a/disks").status_code == 400
    )


def machine(name: str, **fields: Any) -> dict[str, Any]:
    boot = {"sourceImage": "projects/debian-cloud/global/images/family/debian-12"}
    return {
        "name": name,
        "machineType": "zones/us-central1-a/machineTypes/e2-small",
        "networkInterfaces": [{"network": "global/networks/default"}],
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": boot}],
        **fields,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"machineType": "e2-small"},
        {"networkInterfaces": []},
        {"disks": [{"initializeParams": {}}]},
        {"scheduling": {"maxRunDuration": {"seconds": "60"}}},
        {
            "disks": [
                {"boot": True, "initializeParams": {}},
                {"source": "x", "mode": "READ_ONLY", "autoDelete": True},
            ]
        },
    ],
)
def test_instances_insert_refuses(gce: Cloud, fields: dict[str, Any]) -> None:
    response = gce.request("POST", f"{ZONE}/instances", json=machine(next(names), **fields))
    assert response.status_code == 400, response.text


def test_metadata_has_its_limits(gce: Cloud) -> None:
    items = [{"key": "a", "value": "x" * (256 * 1024 + 1)}]
    body = machine(next(names), metadata={"items": items})
    assert gce.request("POST", f"{ZONE}/instances", json=body).status_code == 413


def test_a_machine_runs_its_startup_script_and_takes_its_disks_along(
    gce: Cloud, image: str
) -> None:
    name = next(names)
    script = '#!/bin/sh\necho up; while ! test -e "$DISK_BY_ID/google-data"; do sleep 0.02; done\n'
    script += 'wc -c < "$DISK_BY_ID/google-data"; env | cut -d= -f1\n'
    metadata = {"items": [{"key": "startup-script", "value": script}]}
    gce.finish(gce.request("POST", f"{ZONE}/instances", json=machine(name, metadata=metadata)))
    disk = {"name": f"{name}-data", "sourceImage": f"projects/{PROJECT}/global/images/{image}"}
    gce.finish(gce.request("POST", f"{ZONE}/disks", json=disk))
    attach = {"source": f"zones/us-central1-a/disks/{name}-data", "deviceName": "data"}
    body = {**attach, "autoDelete": True}
    gce.finish(gce.request("POST", f"{ZONE}/instances/{name}/attachDisk", json=body))
    text = ""
    while "PATH" not in text:
        text = gce.request("GET", f"{ZONE}/instances/{name}/serialPort").json()["contents"]
    assert text.splitlines()[:2] == ["up", str(GIB)]
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in text
    assert gce.request("DELETE", f"{ZONE}/disks/{name}-data").status_code == 400
    gce.finish(gce.request("DELETE", f"{ZONE}/instances/{name}"))
    left = [r for r in gce.sandbox.resources() if r.startswith(("disk/", "instance/"))]
    assert left == []


def test_a_machine_ends_by_itself_after_its_time(tmp_path: Path) -> None:
    limits = {"maxRunDuration": {"seconds": "1"}, "instanceTerminationAction": "DELETE"}
    with cloud(tmp_path) as gce:
        gce.finish(gce.request("POST", f"{ZONE}/instances", json=machine("m", scheduling=limits)))
        assert len(gce.sandbox.resources()) == 2
        while gce.sandbox.resources():
            time.sleep(0.02)


def test_what_a_stopped_stand_in_left_unfinished_goes_on(tmp_path: Path) -> None:
    with cloud(tmp_path) as gce:
        gce.put("disk.tar.gz", sparse_archive(GIB))
        response = gce.insert("web").json()
    with cloud(tmp_path) as gce:
        path = f"/compute/v1/projects/{PROJECT}/global/operations/{response['name']}"
        gce.finish(gce.request("GET", path))
        assert gce.images("GET", "/web").json()["status"] == "READY"


def test_bytes_behind_an_image_are_those_of_the_archive(gce: Cloud, image: str) -> None:
    reference = f"{PROJECT}/{image}"
    assert sum(map(len, gce.sandbox.content(reference))) == GIB
    gce.sandbox.corrupt(reference, 4096)
    pieces = gce.sandbox.content(reference)
    first = b"".join(itertools.islice(pieces, 2))
    assert first[: 4096 + 2] == bytes(4096) + b"\1\0"
