"""An archive that lists packages which it does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.build import debian, mmdebstrap, namespace
from publisher.build.workspace import Workspace
from publisher.disks.store import Store
from publisher.errors import BuildError
from publisher.events import Event, Note
from publisher.memory import Memory
from publisher.recipe import Debian
from publisher.task import Task
from publisher.vm.arch import PLATFORMS

NOBODY = namespace.Namespace("none", ())
POOL = "http://mirror.example/pool/updates/main/l/linux"
REFUSED = f"E: Failed to fetch {POOL}/linux-image_5.10.262-1_amd64.deb  404  Not Found [IP: ::1 80]"


class World:
    """A mmdebstrap that keeps its preferences and fails as often as it is told."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.tried = directory / "tried"
        program = directory / "bin" / "mmdebstrap"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f'cat "$TMPDIR/../preferences" >> {self.tried}; echo -- >> {self.tried}\n'
            f'if [ "$(grep -c -e -- {self.tried})" -le "$(cat {directory}/failures)" ]; then\n'
            f"    echo '{REFUSED}' >&2; exit 25\n"
            "fi\n"
            'touch "$TMPDIR/../tree.tar" "$TMPDIR/../results/sources.list"\n'
        )
        program.chmod(0o755)
        monkeypatch.setattr(
            mmdebstrap, "_environment", lambda tmp, _: {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp)}
        )
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin:/usr/sbin")

    def install(self, failures: int) -> None:
        (self.directory / "failures").write_text(str(failures))
        task = Task("build", Memory(self.directory / "memory"), sink=self.events.append)
        owner = namespace.Namespace("none", (str(self.directory / "bin" / "run"),))
        (self.directory / "bin" / "run").write_text(
            f'#!/bin/sh\nshift; exec {self.directory}/bin/mmdebstrap "$@"\n'
        )
        (self.directory / "bin" / "run").chmod(0o755)
        with Workspace(Store(self.directory / "state"), NOBODY, task) as workspace:
            debian.install(Debian(), PLATFORMS["x86_64"], owner, workspace, task)

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_an_earlier_version_is_installed_and_the_user_told(world: World) -> None:
    world.install(failures=1)
    first, second, _ = world.tried.read_text().split("--\n")
    assert first == ""
    assert second.splitlines() == [
        "Package: linux-image",
        "Pin: version *5.10.262-1",
        "Pin-Priority: -1",
    ]
    assert any("lists linux-image 5.10.262-1 without having it" in note for note in world.notes)


def test_what_no_version_helps_is_refused(world: World) -> None:
    with pytest.raises(BuildError, match=r"lists linux-image 5\.10\.262-1") as caught:
        world.install(failures=9)
    assert caught.value.key == "build.source.debian.suite"
    assert world.tried.read_text().count("--\n") == 2


def test_only_packages_that_were_not_found_are_left_out() -> None:
    lines = [
        "E: Failed to fetch http://m/g++_4%3a12.2.0-3_amd64.deb  404  Not Found [IP: ::1 80]",
        "E: Failed to fetch http://m/tree_1.0_amd64.deb  Connection timed out",
        "E: Failed to fetch http://m/dists/sid/InRelease  404  Not Found",
    ]
    assert mmdebstrap.absent(lines) == {"g++": "4:12.2.0-3"}
