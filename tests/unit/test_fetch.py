"""Downloads: resumed, cached, refused, without leaks."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher import events
from publisher.conformance import HastyClock
from publisher.errors import BuildError, Cancelled, HostError
from publisher.events import Event
from publisher.fetch import Digest, Fetched, download, fetch, web
from publisher.fetch.location import Url, locate
from publisher.memory import Memory
from publisher.model import MIB
from publisher.task import Cancellation, Retry, Task
from tests.unit.file_server import Files, serve

BODY = random.Random(7).randbytes(5 * MIB)
OTHER = random.Random(8).randbytes(5 * MIB)


@pytest.fixture
def files() -> Iterator[Files]:
    with serve(Files({"/disk.qcow2": BODY})) as served:
        yield served


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.events: list[Event] = []
        self.cancellation = Cancellation()

    def fetch(self, location: str, digest: Digest | None = None) -> Fetched:
        task = Task(
            "build",
            Memory(self.directory / "memory"),
            sink=self.events.append,
            cancellation=self.cancellation,
            clock=HastyClock(),
            retry=Retry(attempts=3),
        )
        return fetch(
            location,
            trust=digest,
            directory=self.directory,
            cache=self.cache,
            task=task,
            key="build.source.disk",
        )

    @property
    def notes(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, events.Note))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def sha256(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def ranges(files: Files) -> list[str | None]:
    return [headers.get("Range") for _, headers in files.requests]


def test_a_download_is_kept_under_its_digest_and_not_repeated(files: Files, world: World) -> None:
    digest = Digest("sha512", hashlib.sha512(BODY).hexdigest())
    for _ in range(2):
        found = world.fetch(f"{files.url}/disk.qcow2", digest)
        assert found.path == world.cache / f"sha512-{digest.value}"
        assert found.path.read_bytes() == BODY
    assert len(files.requests) == 1
    assert any(
        isinstance(e, events.StepProgress) and e.done == e.total == len(BODY) for e in world.events
    )


def test_a_file_damaged_in_the_cache_is_downloaded_again(files: Files, world: World) -> None:
    path = world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path
    path.chmod(0o600)
    path.write_bytes(OTHER)
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY


def test_a_cut_download_goes_on_where_it_ended(files: Files, world: World) -> None:
    files.cuts = [2 * MIB, MIB + 5]
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY
    assert ranges(files) == [None, f"bytes={2 * MIB}-", f"bytes={3 * MIB + 5}-"]
    assert files.requests[1][1]["If-Range"] == '"1"'


def test_the_next_run_goes_on_where_a_failed_one_ended(files: Files, world: World) -> None:
    files.cuts = [2 * MIB, 0, 0, 0]
    with pytest.raises(BuildError, match="the connection was cut") as caught:
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert caught.value.key == "build.source.disk"
    files.requests.clear()
    files.cuts.clear()
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY
    assert ranges(files) == [f"bytes={2 * MIB}-"]
    assert [p.name for p in world.cache.iterdir() if "partial" in p.name] == []


def test_a_file_that_changed_meanwhile_is_loaded_from_its_start(files: Files, world: World) -> None:
    files.contents["/disk.qcow2"] = OTHER
    files.cuts = [2 * MIB, 0, 0, 0]
    with pytest.raises(BuildError):
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    files.contents["/disk.qcow2"] = BODY
    files.version = 2
    files.cuts.clear()
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY
    assert files.statuses[-1] == 200, "If-Range has the server send all of it"
    assert "can't be continued" in world.notes


def test_a_change_that_the_server_hides_is_noticed_by_the_digest(
    files: Files, world: World
) -> None:
    files.validators = False
    files.contents["/disk.qcow2"] = OTHER
    files.cuts = [2 * MIB, 0, 0, 0]
    with pytest.raises(BuildError):
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    files.contents["/disk.qcow2"] = BODY
    files.cuts.clear()
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY
    assert "does not fit together" in world.notes


def test_a_server_without_ranges_starts_again(files: Files, world: World) -> None:
    files.ranges = False
    files.cuts = [2 * MIB]
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY
    assert files.statuses == [200, 200]


def test_a_file_that_became_shorter_starts_again(files: Files, world: World) -> None:
    files.contents["/disk.qcow2"] = OTHER
    files.cuts = [2 * MIB, 0, 0, 0]
    with pytest.raises(BuildError):
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY[:MIB]))
    files.contents["/disk.qcow2"] = BODY[:MIB]
    files.cuts.clear()
    assert (
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY[:MIB])).path.read_bytes() == BODY[:MIB]
    )
    assert files.statuses[-2:] == [416, 200]


def test_a_download_of_unknown_length_ends_with_the_connection(files: Files, world: World) -> None:
    files.lengths = False
    assert world.fetch(f"{files.url}/disk.qcow2", sha256(BODY)).path.read_bytes() == BODY


def test_a_wrong_digest_is_refused_and_nothing_stays(files: Files, world: World) -> None:
    with pytest.raises(BuildError, match="instead of") as caught:
        world.fetch(f"{files.url}/disk.qcow2", sha256(OTHER))
    assert sha256(BODY).value in str(caught.value)
    assert sha256(OTHER).value in str(caught.value)
    assert all(path.stat().st_size == 0 for path in world.cache.iterdir())
    assert len(files.requests) == 1


def test_passing_failures_are_retried_and_lasting_ones_are_not(files: Files, world: World) -> None:
    files.refusals = [503, 429]
    world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert files.statuses == [503, 429, 200]
    with pytest.raises(BuildError, match="404 Not Found") as caught:
        world.fetch(f"{files.url}/none.qcow2", sha256(OTHER))
    assert "check the address" in caught.value.hint
    assert files.statuses[3:] == [404]


def test_a_server_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(BuildError, match=r"cannot download http://127.0.0.1:9/x: Connection ref"):
        world.fetch("http://127.0.0.1:9/x", sha256(BODY))


def test_redirects_are_followed_and_bounded(files: Files, world: World) -> None:
    files.redirects = {"/latest": "/v1", "/v1": "disk.qcow2", "/a": "/b", "/b": "/a"}
    files.redirects["/shell"] = "file:///etc/passwd"
    world.fetch(f"{files.url}/latest", sha256(BODY))
    for path in ("/a", "/shell"):
        with pytest.raises(BuildError, match="redirects"):
            world.fetch(f"{files.url}{path}", sha256(OTHER))


def test_credentials_go_to_their_own_server_only_and_into_no_message(
    files: Files, world: World
) -> None:
    with serve(Files({"/disk.qcow2": BODY})) as elsewhere:
        files.redirects["/moved"] = f"{elsewhere.url}/disk.qcow2"
        files.redirects["/near"] = "/disk.qcow2"
        address = files.url.replace("//", "//me:hunter2@")
        world.fetch(f"{address}/moved?token=hunter3", sha256(BODY))
        assert files.requests[0][0] == "/moved?token=hunter3"
        assert files.requests[0][1]["Authorization"] == "Basic bWU6aHVudGVyMg=="
        assert "Authorization" not in elsewhere.requests[0][1]
    files.refusals = [403]
    with pytest.raises(BuildError) as caught:
        world.fetch(f"{address}/near?token=hunter3", sha256(OTHER))
    with pytest.raises(BuildError):
        world.fetch(f"{address}/near", sha256(OTHER))
    assert "Authorization" in files.requests[-1][1]
    kept = "".join(p.read_text() for p in world.cache.glob("*.json"))
    assert "hunter" not in f"{caught.value} {caught.value.hint} {world.events} {kept}"


def test_netrc_is_asked_for_credentials(files: Files, world: World) -> None:
    netrc = world.directory / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert files.requests[0][1]["Authorization"] == "Basic bWU6aHVudGVyMg=="


def test_the_environment_names_the_proxy(
    files: Files, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.contents["http://images.example/disk.qcow2"] = BODY
    monkeypatch.setenv("http_proxy", files.url)
    world.fetch("http://images.example/disk.qcow2", sha256(BODY))
    assert files.requests[0][0] == "http://images.example/disk.qcow2"


def test_cancelling_does_not_wait_for_a_silent_server(files: Files, world: World) -> None:
    files.silence = threading.Event()

    def cancel() -> None:
        while not any(isinstance(e, events.StepProgress) for e in world.events):
            time.sleep(0.01)
        world.cancellation.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert time.monotonic() - started < 3
    canceller.join()
    files.silence.set()
    files.silence = None
    world.cancellation = Cancellation()
    world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert ranges(files)[1], "what had come was kept"


@pytest.mark.long
def test_silence_is_a_failure_that_is_retried(
    files: Files, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    files.silence = threading.Event()
    with pytest.raises(BuildError, match="timed out"):
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    files.silence.set()
    assert len(files.requests) > 2


def test_space_is_checked_before_the_bytes_come(
    files: Files, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RESERVE", 1 << 60)
    with pytest.raises(HostError, match="the download needs") as caught:
        world.fetch(f"{files.url}/disk.qcow2", sha256(BODY))
    assert "it continues" in caught.value.hint


def test_two_builds_share_one_download(files: Files, tmp_path: Path) -> None:
    worlds = [World(tmp_path), World(tmp_path)]
    threads = [
        threading.Thread(target=w.fetch, args=(f"{files.url}/disk.qcow2", sha256(BODY)))
        for w in worlds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files.requests) == 1


def test_a_path_stays_where_it_is_and_is_checked(world: World) -> None:
    path = world.directory / "disk.qcow2"
    path.write_bytes(BODY)
    assert world.fetch("disk.qcow2").digest == sha256(BODY)
    assert world.fetch(f"file://{path}", sha256(BODY)).path == path
    with pytest.raises(BuildError, match="instead of"):
        world.fetch("disk.qcow2", sha256(OTHER))
    assert path.exists(), "the user's own file is not ours to delete"
    with pytest.raises(BuildError, match="does not exist"):
        world.fetch("none.qcow2")


def test_a_url_needs_a_digest(files: Files, world: World) -> None:
    with pytest.raises(BuildError, match="no digest is given"):
        world.fetch(f"{files.url}/disk.qcow2")
    assert not files.requests


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"ftp:// can't be fetched"):
        locate("ftp://host/x", tmp_path)


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    url = Url.parse("https://me:pass@host:8443/a%20b/disk.img?X-Sig=abc#x")
    assert str(url) == "https://host:8443/a%20b/disk.img?…"
    assert url.name == "disk.img"
    assert url.credentials == "me:pass"
    assert "pass" not in url.text
