"""Source `debian`: what is installed, when an old installation serves, whose fault a failure is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from publisher.build import debian, files, mmdebstrap, namespace, suites
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BuildError, HostError
from publisher.events import Event, Note, StepOutput
from publisher.memory import Memory
from publisher.recipe import Debian
from publisher.task import Task
from publisher.vm.arch import PLATFORMS
from tests.unit.file_server import Files, serve

X86 = PLATFORMS["x86_64"]
NOBODY = namespace.Namespace("none", ())


class World:
    """A state directory, a task that remembers what it was told, an installer that counts."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(directory / "state")
        self.events: list[Event] = []
        self.task = Task("build", Memory(directory / "memory"), sink=self.events.append)
        self.installed = 0
        self.releases: dict[str, str] = {}
        monkeypatch.setattr(debian, "bootstrap", self._bootstrap)

    def _bootstrap(self, *arguments: object) -> tuple[Path, dict[str, str]]:
        workspace = next(a for a in arguments if isinstance(a, Workspace))
        self.installed += 1
        tree = workspace.directory / "tree.tar"
        tree.write_text(f"installation {self.installed}")
        return tree, dict(self.releases)

    def install(self, **options: object) -> str:
        with Workspace(self.store, NOBODY, self.task) as workspace:
            source = Debian.model_validate(options)
            return debian.install(source, X86, NOBODY, workspace, self.task).tree.read_text()

    def said(self) -> str:
        return "\n".join(
            e.line if isinstance(e, StepOutput) else e.text
            for e in self.events
            if isinstance(e, (StepOutput, Note))
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_same_source_is_installed_once(world: World) -> None:
    assert world.install() == world.install() == "installation 1"
    assert "installed before, and the archive is the same" in world.said()


@pytest.mark.parametrize(
    "options", [{"suite": "trixie"}, {"packages": ["htop"]}, {"components": ["main", "contrib"]}]
)
def test_other_inputs_are_another_installation(world: World, options: dict[str, object]) -> None:
    world.install()
    assert world.install(**options) == "installation 2"
    assert world.install() == "installation 1"


def test_an_archive_that_changed_is_installed_again_and_named(world: World, tmp_path: Path) -> None:
    release = b"Suite: stable 12.1"
    content = Files({"/dists/bookworm/InRelease": release})
    with serve(content):
        url = content.url
        world.releases = {f"{url}/dists/bookworm/InRelease": hashlib.sha256(release).hexdigest()}
        assert world.install() == world.install() == "installation 1"
        content.contents["/dists/bookworm/InRelease"] = b"Suite: stable 12.2"
        assert world.install() == "installation 2"
    assert f"{url}/dists/bookworm/InRelease changed since" in world.said()


def test_an_archive_that_does_not_answer_keeps_what_is_there(world: World) -> None:
    world.releases = {"http://127.0.0.1:9/dists/bookworm/InRelease": "00"}
    assert world.install() == world.install() == "installation 1"
    assert "does not answer" in world.said()


def test_old_installations_are_removed(world: World) -> None:
    for number in range(debian.KEEP + 2):
        world.install(packages=[f"p{number}"])
        for tree in world.store.directory.parent.glob("bootstrap/*.tar"):
            os.utime(tree, (tree.stat().st_atime - 10, tree.stat().st_mtime - 10))
    kept = sorted(p.suffix for p in world.store.directory.parent.glob("bootstrap/*"))
    assert kept == [".json"] * debian.KEEP + [".tar"] * debian.KEEP


def test_a_damaged_description_is_no_installation(world: World) -> None:
    world.install()
    for path in world.store.directory.parent.glob("bootstrap/*.json"):
        path.write_text("{")
    assert world.install() == "installation 2"


def test_cloud_init_finds_the_dhcp_client_of_its_time() -> None:
    assert "isc-dhcp-client" in suites.packages("bookworm", X86)
    assert "dhcpcd-base" in suites.packages("trixie", X86)
    assert "systemd-resolved" not in suites.packages("bullseye", X86)


def test_an_image_has_all_that_a_cloud_asks_for() -> None:
    for package in ("cloud-init", "openssh-server", "linux-image-cloud-amd64", "grub-cloud-amd64"):
        assert package in suites.packages("bookworm", X86)


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "sid"])
def test_no_image_waits_for_its_own_name(suite: str) -> None:
    assert "libnss-myhostname" in suites.packages(suite, X86)
    (settings,) = (text for path, text in files.tree_files(X86).items() if "resolved.conf" in path)
    assert "LLMNR=no" in settings.splitlines()


def test_a_given_mirror_brings_updates_and_security_where_it_has_them(world: World) -> None:
    paths = ("debian/dists/bookworm-updates", "debian-security/dists/bookworm-security")
    content = Files({f"/{path}/InRelease": b"x" for path in paths})
    with serve(content):
        url = content.url
        source = Debian(mirror=f"{url}/debian/", components=("main", "contrib"))
        assert debian.sources(source, world.task) == [
            f"deb {url}/debian bookworm main contrib",
            f"deb {url}/debian bookworm-updates main contrib",
            f"deb {url}/debian-security bookworm-security main contrib",
        ]
        del content.contents["/debian-security/dists/bookworm-security/InRelease"]
        assert len(debian.sources(source, world.task)) == 2
        assert "no security updates" in world.said()
        rolling = Debian(suite="sid", mirror=f"{url}/debian")
        assert debian.sources(rolling, world.task) == [f"deb {url}/debian sid main"]
    assert debian.sources(Debian(), world.task) == []


def test_releases_are_matched_with_the_sources_that_apt_used(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    name = "mirror.example_deb%5fian_dists_bookworm_InRelease"
    (tmp_path / "releases" / name).write_bytes(b"signed")
    (tmp_path / "sources.list").write_text(
        "deb [trusted=no] http://mirror.example/deb_ian bookworm main\n# comment\n"
        "deb http://mirror.example/deb_ian bookworm-updates main\n"
    )
    assert mmdebstrap._releases(tmp_path) == {
        "http://mirror.example/deb_ian/dists/bookworm/InRelease": hashlib.sha256(
            b"signed"
        ).hexdigest()
    }


@pytest.mark.parametrize(
    ("line", "error", "key", "words"),
    [
        (
            "E: Unable to locate package nosuchthing",
            BuildError,
            "build.source.debian.packages",
            "Debian bookworm has no package nosuchthing",
        ),
        (
            "E: Package 'nosuchthing' has no installation candidate",
            BuildError,
            "build.source.debian.packages",
            "has no package nosuchthing",
        ),
        (
            "E: Unable to locate package grub-cloud-amd64",
            BuildError,
            "build.source.debian.suite",
            "has no package grub-cloud-amd64",
        ),
        (
            "E: The repository 'http://m bookwurm Release' does not have a Release file.",
            BuildError,
            "build.source.debian.suite",
            "no suite 'bookworm'",
        ),
        (
            "Err:1 http://m Could not resolve 'mirror.invalid'",
            BuildError,
            "build.source.debian.mirror",
            "does not answer",
        ),
        (
            "E: Release file for http://m/debian/dists/sid/InRelease is expired (invalid since "
            "17d 10h 20min 34s). Updates for this repository will not be applied.",
            BuildError,
            "build.source.debian.mirror",
            "sid/InRelease has been invalid for 17d 10h 20min 34s",
        ),
        (
            "E: Failed to fetch http://m/pool/l/linux-image-cloud-amd64_5.10.262-1_amd64.deb  404  "
            "Not Found [IP: 192.0.2.1 80]",
            BuildError,
            "build.source.debian.suite",
            "lists linux-image-cloud-amd64 5.10.262-1 without having it",
        ),
        ("tar: ./usr: Cannot write: No space left on device", HostError, "", "no space left"),
        ("E: run_chroot failed: something else", BuildError, "build.source.debian", "something"),
    ],
)
def test_a_failure_names_the_key_that_is_to_blame(
    line: str, error: type[Exception], key: str, words: str, tmp_path: Path
) -> None:
    source = Debian(packages=("nosuchthing",))
    found = mmdebstrap.failure(
        ["I: running apt-get update...", line, "E: failed"], source, tmp_path
    )
    assert type(found) is error
    assert found.key == key
    assert words in found.message
    assert found.hint or error is BuildError


def test_the_description_of_an_installation_is_json(world: World) -> None:
    world.releases = {"http://127.0.0.1:9/x": "ab"}
    world.install()
    (path,) = world.store.directory.parent.glob("bootstrap/*.json")
    assert json.loads(path.read_text()) == {"releases": world.releases}
