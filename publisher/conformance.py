"""The contract that every provider keeps, as a test class to inherit.

    class TestNimbus(ProviderContract):
        provider = Nimbus
        def wrong_credentials(self): return {"NIMBUS_TOKEN": "wrong"}

Needs pytest and a provider that is Emulated: all tests run the production code
against the provider's own sandbox. Outside plugins may use it as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import pytest

from publisher.disks import raw
from publisher.emulation import FaultKind
from publisher.errors import (
    Cancelled,
    ConflictError,
    CredentialsError,
    ProviderError,
    PublishError,
    UnreachableError,
    VerifyError,
)
from publisher.events import Event, StepRetry
from publisher.memory import Memory
from publisher.model import GIB, MIB, Audience, Disk, Image, Query, Severity, Spec, Upload
from publisher.proof.attest import Subject, verify
from publisher.provider import Emulated, Options, Provider, Sandbox, Source
from publisher.task import Cancellation, Clock, Task

Verb = Literal["upload", "register", "copy", "verify", "release", "withdraw", "download", "delete"]
VERBS: Sequence[Verb] = (
    "upload",
    "register",
    "copy",
    "verify",
    "release",
    "withdraw",
    "download",
    "delete",
)


class HastyClock(Clock):
    """A clock on which waiting is short but time passes as asked."""

    def __init__(self, longest: float = 0.01) -> None:
        self._longest = longest
        self._skipped = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def now(self) -> float:
        return time.time() + self._skipped

    def sleep(self, seconds: float, cancellation: Cancellation) -> None:
        real = min(seconds, self._longest)
        self._skipped += seconds - real
        super().sleep(real, cancellation)


def make_disk(path: Path, size: int, seed: int = 1) -> Disk:
    """A small sparse disk: data at the start, a block of zeros that is
    allocated, scattered blocks, and data up to the very last byte."""
    noise = random.Random(seed)  # noqa: S311
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in (
            (0, 512),
            (4096, 3 * MIB + 700),
            (size // 2 - 512, 1024),
            (size - 65536, 65536),
        ):
            file.seek(offset)
            file.write(noise.randbytes(length))
        file.seek(size // 3)
        file.write(bytes(MIB))
    return raw.inspect(path)


class World:
    """One sandbox with what a test needs to act on it."""

    def __init__(
        self, provider: type[Provider], sandbox: Sandbox, options: Options, disk: Disk, where: Path
    ) -> None:
        self.kind = provider
        self.sandbox = sandbox
        self.options = options
        self.disk = disk
        self.where = where
        self.events: list[Event] = []
        self.spec = Spec(
            name="contract",
            version="1.2.3",
            size=disk.size,
            description="A test of the contract",
            tags={"team": "images"},
            digest=disk.sha256,
            run="run1",
        )

    def provider(self) -> Provider:
        """A new instance, as another process would have."""
        return self.kind(self.options)

    def task(self, memory: str = "memory", cancellation: Cancellation | None = None) -> Task:
        return Task(
            f"{self.kind.name}.contract",
            Memory(self.where / memory),
            sink=self.events.append,
            cancellation=cancellation,
            clock=HastyClock(),
            run=self.spec.run,
        )

    def kinds(self) -> Counter[str]:
        """How many resources of each kind there are."""
        return Counter(name.partition("/")[0] for name in self.sandbox.resources())

    def content_digest(self, image: Image) -> str:
        digest = hashlib.sha256()
        for piece in self.sandbox.content(image.ref):
            digest.update(piece)
        return digest.hexdigest()

    # -- the verbs, in the order of a publish

    def upload(self, task: Task | None = None) -> Upload:
        return self.provider().upload(self.disk, self.spec, task or self.task("upload"))

    def register(self, upload: Upload, task: Task | None = None) -> Image:
        return self.provider().register(upload, self.spec, task or self.task("register"))

    def published(self) -> Image:
        return self.register(self.upload())


class ProviderContract:
    """Inherit, set `provider`, and say which credentials are wrong."""

    provider: ClassVar[type[Provider]]
    options: ClassVar[Mapping[str, object]] = {}
    """Options besides `sandbox_options`; for a regional cloud name two regions."""
    size: ClassVar[int | None] = None
    """Bytes of the test's disk; the larger of 64 MiB and `traits.size_multiple` by default."""
    accounts: ClassVar[Sequence[str]] = ()
    """Two accounts, in the cloud's own form, to share an image with."""
    identified: ClassVar[bool] = True
    """Whether nobody can make another image that has the `ref` and `uid` of one that was."""

    def wrong_credentials(self, where: Path) -> Mapping[str, str]:
        """Environment variables that the sandbox must refuse; `where` is scratch space."""
        raise NotImplementedError

    # -- fixtures

    @pytest.fixture(scope="class")
    @classmethod
    def disk(cls, tmp_path_factory: pytest.TempPathFactory) -> Disk:
        size = cls.size or max(64 * MIB, cls.provider.traits.size_multiple)
        return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", size)

    @contextlib.contextmanager
    def _world(self, where: Path, disk: Disk) -> Iterator[World]:
        emulated = cast("type[Emulated]", self.provider)
        sandbox = emulated.sandbox(where / "sandbox")
        sandbox.start()
        before = dict(os.environ)
        try:
            os.environ.update(sandbox.environment)
            options = self.provider.options(
                **cast("dict[str, Any]", {**emulated.sandbox_options(), **self.options})
            )
            yield World(self.provider, sandbox, options, disk, where)
        finally:
            os.environ.clear()
            os.environ.update(before)
            sandbox.stop()

    @pytest.fixture
    def world(self, tmp_path: Path, disk: Disk) -> Iterator[World]:
        with self._world(tmp_path, disk) as world:
            yield world

    # -- the way through

    def test_the_seam_is_kept(self) -> None:
        assert issubclass(self.provider.options, Options)
        assert self.provider.name
        assert self.provider.traits.size_multiple >= 512
        assert self.provider.traits.size_max >= 64 * GIB
        for field, info in self.provider.options.model_fields.items():
            assert info.description, f"option {field} has no description"

    def test_check_is_content_with_a_fresh_cloud(self, world: World) -> None:
        provider = world.provider()
        findings = [*provider.validate(world.spec)]
        findings += provider.check(world.spec, world.options.locations(), world.task())
        assert [f for f in findings if f.severity is Severity.ERROR] == []
        assert not world.sandbox.resources()

    def test_what_is_registered_holds_the_disk_bit_for_bit(self, world: World) -> None:
        image = world.published()
        assert image.state == "available"
        assert image.provider == self.provider.name
        assert image.region == world.options.locations()[0]
        assert (image.version, image.digest) == (world.spec.version, world.disk.sha256)
        assert world.content_digest(image) == world.disk.sha256
        assert image.audience == Audience("private")

    def test_nothing_but_the_image_stays_after_register(self, world: World) -> None:
        image = world.published()
        world.provider().delete(image, world.task())
        assert list(world.sandbox.resources()) == []

    def test_deleting_an_image_that_is_gone_is_fine(self, world: World) -> None:
        image = world.published()
        for _ in range(2):
            world.provider().delete(image, world.task())

    def test_copies_are_available_in_every_region_in_order(self, world: World) -> None:
        image = world.published()
        regions = world.options.locations()
        copies = world.provider().copy(image, regions, world.task("copy"))
        assert [copy.region for copy in copies] == list(regions)
        for copy in copies:
            assert copy.state == "available"
            assert copy.digest == world.disk.sha256
            assert world.content_digest(copy) == world.disk.sha256
            world.provider().verify(copy, world.disk, world.task("verify"))
        found = world.provider().find(Query(name=world.spec.name), world.task("find"))
        assert {image.ref for image in found} == {image.ref for image in copies}

    def test_every_verb_may_be_repeated(self, world: World) -> None:
        upload = world.upload()
        assert world.upload().ref == upload.ref
        assert world.upload(world.task("another machine")).ref == upload.ref
        image = world.register(upload)
        kinds = world.kinds()
        assert world.register(upload).ref == image.ref
        assert world.register(upload, world.task("elsewhere")).ref == image.ref
        assert world.kinds() == kinds
        regions = world.options.locations()
        copies = world.provider().copy(image, regions, world.task("copy"))
        kinds = world.kinds()
        for memory in ("copy", "copy elsewhere"):
            again = world.provider().copy(image, regions, world.task(memory))
            assert [c.ref for c in again] == [c.ref for c in copies]
        assert world.kinds() == kinds
        audience = self._audience()
        for verb in ("release", "release", "withdraw", "withdraw"):
            for copy in copies:
                if verb == "release":
                    world.provider().release(copy, audience, world.task("release"))
                else:
                    world.provider().withdraw(copy, world.task("withdraw"))
        assert world.kinds() == kinds

    def test_a_second_upload_after_registration_is_not_needed(self, world: World) -> None:
        """register finds its image even when the bytes in between are gone."""
        image = world.published()
        (found,) = world.provider().find(Query(digest=world.disk.sha256), world.task())
        assert found.ref == image.ref

    # -- find

    def test_find_sees_what_register_made(self, world: World) -> None:
        image = world.published()
        spec = world.spec
        for query in (
            Query(),
            Query(name=spec.name),
            Query(name=spec.name, version=spec.version),
            Query(digest=spec.digest),
            Query(name=spec.name, run=spec.run),
        ):
            (found,) = world.provider().find(query, world.task())
            assert (found.ref, found.state) == (image.ref, "available")
            assert (found.version, found.digest) == (spec.version, spec.digest)
        for query in (
            Query(name="another"),
            Query(name=spec.name, version="9.9.9"),
            Query(digest="0" * 64),
            Query(run="another"),
        ):
            assert list(world.provider().find(query, world.task())) == []

    def test_other_content_under_the_same_name_is_refused(
        self, world: World, tmp_path: Path
    ) -> None:
        image = world.published()
        other = make_disk(tmp_path / "other.raw", world.disk.size, seed=2)
        kinds = world.kinds()
        again = World(self.provider, world.sandbox, world.options, other, tmp_path / "other")
        with pytest.raises(ConflictError):
            again.published()
        (found,) = world.provider().find(Query(digest=world.disk.sha256), world.task())
        assert found.ref == image.ref
        findings = world.provider().check(
            again.spec, world.options.locations(), world.task("check")
        )
        assert any(f.severity is not Severity.NOTE for f in findings)
        assert world.kinds()[image_kind(kinds)] == kinds[image_kind(kinds)]

    # -- release

    def _audience(self) -> Audience:
        return Audience("shared", tuple(self.accounts))

    def test_release_opens_to_exactly_the_audience_and_withdraw_undoes_it(
        self, world: World
    ) -> None:
        image = world.published()

        def seen() -> Audience:
            (found,) = world.provider().find(Query(name=world.spec.name), world.task())
            return found.audience

        assert seen() == Audience("private")
        shared = self._audience()
        assert len(shared.accounts) == 2, "give the contract two accounts"
        world.provider().release(image, shared, world.task("release"))
        assert seen().kind == "shared"
        assert set(seen().accounts) == set(shared.accounts)
        fewer = Audience("shared", shared.accounts[:1])
        world.provider().release(image, fewer, world.task("release fewer"))
        assert seen() == fewer
        world.provider().release(image, Audience("public"), world.task("release public"))
        assert seen().kind == "public"
        world.provider().withdraw(image, world.task("withdraw"))
        assert seen() == Audience("private")

    # -- verify and download

    @pytest.mark.parametrize("place", ["first byte", "last byte", "hole"])
    def test_verify_catches_a_flipped_bit(self, world: World, place: str) -> None:
        image = world.published()
        world.provider().verify(image, world.disk, world.task("verify"))
        extents = world.disk.extents
        offset = {
            "first byte": 0,
            "last byte": world.disk.size - 1,
            "hole": (extents[1].end + world.disk.size - 65536) // 2,
        }[place]
        world.sandbox.corrupt(image.ref, offset)
        with pytest.raises(VerifyError):
            world.provider().verify(image, world.disk, world.task("verify again"))

    def test_download_gives_the_disk_back(self, world: World, tmp_path: Path) -> None:
        image = world.published()
        kinds = world.kinds()
        source = cast("Source", world.provider())
        spec = source.describe(image.ref, world.task("describe"))
        assert spec.size in (0, world.disk.size)
        assert spec.arch == world.spec.arch
        into = tmp_path / "back.raw"
        disk = source.download(image.ref, into, world.task("download"))
        assert disk.path == into
        assert (disk.size, disk.sha256) == (world.disk.size, world.disk.sha256)
        assert into.stat().st_blocks * 512 < world.disk.size / 2, "holes were filled"
        assert world.kinds() == kinds

    def _differs(self, world: World, image: Image, where: Path, *, content: bool = True) -> str:
        """What an attestation of the private image says of it now."""
        signed = [Subject.of(image, world.disk.size)]
        task = world.task("attest")
        line, *_ = verify(signed, lambda _: world.provider(), task, content=content, scratch=where)
        return line.differs

    def test_an_attestation_holds_until_somebody_changes_something(
        self, world: World, tmp_path: Path
    ) -> None:
        image = world.published()
        assert self._differs(world, image, tmp_path) == ""
        world.provider().release(image, Audience("public"), world.task("release"))
        assert self._differs(world, image, tmp_path) == "it is public, not private"
        world.provider().delete(image, world.task("delete"))
        assert self._differs(world, image, tmp_path) == "it does not exist (any more)"

    def test_an_attestation_sees_other_bytes_under_the_same_tags(
        self, world: World, tmp_path: Path
    ) -> None:
        image = world.published()
        world.sandbox.corrupt(image.ref, 0)
        # by its digest, or by a checksum of the cloud's own
        assert self._differs(world, image, tmp_path).startswith("its content ")

    def test_an_attestation_sees_an_image_that_was_made_anew(
        self, world: World, tmp_path: Path
    ) -> None:
        """Without reading it back: whatever its tags state, it is not the one that was signed."""
        image = world.published()
        world.provider().delete(image, world.task("delete"))
        anew = world.register(world.upload(world.task("again")), world.task("anew"))
        assert (anew.name, anew.version, anew.digest) == (image.name, image.version, image.digest)
        if not self.identified:
            assert (anew.ref, anew.uid) == (image.ref, "")
            return
        assert self._differs(world, image, tmp_path, content=False) in (
            f"it is another one under the same reference: {anew.uid}, not {image.uid}",
            "it does not exist (any more)",
        )

    # -- what goes wrong

    @pytest.mark.parametrize("kind", ["throttle", "fail", "drop", "lose"])
    def test_passing_faults_are_ridden_out(self, world: World, kind: FaultKind) -> None:
        for skip in (0, 2, 5, 9, 14):
            world.sandbox.faults.add(kind, skip=skip)
        image = world.published()
        world.sandbox.faults.add(kind, skip=1)
        world.provider().verify(image, world.disk, world.task("verify"))
        assert any(isinstance(event, StepRetry) for event in world.events)
        assert world.content_digest(image) == world.disk.sha256
        assert sum(world.kinds().values()) == len(self._undisturbed(world))

    def _undisturbed(self, world: World) -> Sequence[str]:
        where = world.where / "undisturbed"
        with self._world(where, world.disk) as fresh:
            fresh.published()
            return list(fresh.sandbox.resources())

    def test_resources_that_show_late_are_waited_for(self, world: World) -> None:
        world.sandbox.faults.visibility_delay = 0.05
        image = world.published()
        world.provider().verify(image, world.disk, world.task("verify"))
        assert world.content_digest(image) == world.disk.sha256

    def test_wrong_credentials_say_so(
        self, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name, value in self.wrong_credentials(tmp_path).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(CredentialsError) as caught:
            world.provider().check(world.spec, world.options.locations(), world.task())
        assert caught.value.hint
        assert not caught.value.transient

    def test_an_endpoint_that_is_not_there_says_so(self, world: World) -> None:
        world.sandbox.stop()
        with pytest.raises(UnreachableError) as caught:
            world.provider().check(world.spec, world.options.locations(), world.task())
        assert caught.value.hint
        world.sandbox.start()

    def test_memory_holds_no_secret(self, world: World) -> None:
        world.published()
        secrets = [value for value in world.sandbox.environment.values() if len(value) > 24]
        for file in world.where.glob("*/*"):
            if "sandbox" in file.parts or not file.is_file():
                continue
            text = file.read_text(errors="replace")
            for marker in ("sig=", "upload_id=", "Bearer ", "X-Goog-Signature"):
                assert marker not in text, f"{file} holds {marker}"
            for secret in secrets:
                if not secret.startswith(("http", "/")):
                    assert secret not in text

    def test_the_sandbox_keeps_its_state_between_starts(self, world: World) -> None:
        image = world.published()
        emulated = cast("type[Emulated]", self.provider)
        world.sandbox.stop()
        again = emulated.sandbox(world.where / "sandbox")
        again.start()
        try:
            os.environ.update(again.environment)
            (found,) = world.provider().find(Query(name=world.spec.name), world.task())
            assert found.ref == image.ref
            assert sum(len(piece) for piece in again.content(image.ref)) == world.disk.size
        finally:
            again.stop()
            world.sandbox.start()

    # -- killed anywhere

    def _prepare(self, world: World, verb: Verb) -> Callable[[Task], object]:
        """All that comes before `verb`, and the verb as a call by a new instance."""
        if verb == "upload":
            return lambda task: world.provider().upload(world.disk, world.spec, task)
        upload = world.upload()
        if verb == "register":
            return lambda task: world.provider().register(upload, world.spec, task)
        image = world.register(upload)
        if verb == "withdraw":
            world.provider().release(image, self._audience(), world.task("release"))
        calls: dict[Verb, Callable[[Task], object]] = {
            "copy": lambda task: world.provider().copy(image, world.options.locations(), task),
            "verify": lambda task: world.provider().verify(image, world.disk, task),
            "release": lambda task: world.provider().release(image, self._audience(), task),
            "withdraw": lambda task: world.provider().withdraw(image, task),
            "delete": lambda task: world.provider().delete(image, task),
            "download": lambda task: cast("Source", world.provider()).download(
                image.ref, world.where / "back.raw", task
            ),
        }
        return calls[verb]

    def _calm(self, where: Path, disk: Disk, verb: Verb) -> tuple[list[str], Counter[str]]:
        """The requests of an undisturbed verb, and how many resources there are after it."""
        with self._world(where / "calm", disk) as world:
            call = self._prepare(world, verb)
            before = len(world.sandbox.faults.requests)
            call(world.task("calm"))
            return world.sandbox.faults.requests[before:], world.kinds()

    @pytest.mark.parametrize("kind", ["drop", "lose"])
    @pytest.mark.parametrize("verb", VERBS)
    def test_a_verb_killed_at_any_request_continues(
        self, tmp_path: Path, disk: Disk, verb: Verb, kind: FaultKind
    ) -> None:
        """Killed at a request before or after it took effect; then done again by
        a new process, with the memory of the first one and without."""
        lines, calm = self._calm(tmp_path, disk, verb)
        requests = len(lines)
        points = spread(requests, 9)
        for number, point in enumerate(points):
            where = tmp_path / f"kill{point}"
            with self._world(where, disk) as world:
                call = self._prepare(world, verb)
                cancellation = Cancellation()
                world.sandbox.faults.add(kind, skip=point, times=10**6, fired=cancellation.cancel)
                first = world.task("first", cancellation)
                with contextlib.suppress(Cancelled, PublishError):
                    call(first)
                first.memory.close()
                world.sandbox.faults.clear()
                survivor = "first" if number % 2 else "another machine"
                if survivor != "first":
                    world.spec = dataclasses.replace(world.spec, run="run2")
                call(world.task(survivor))
                assert world.kinds() == calm, f"killed at request {point} of {requests}"
                if verb not in ("upload", "delete"):
                    (image,) = world.provider().find(Query(digest=disk.sha256), world.task())[:1]
                    assert world.content_digest(image) == disk.sha256
                if verb == "withdraw":
                    assert image.audience == Audience("private")
                if verb == "release":
                    assert set(image.audience.accounts) == set(self.accounts)

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_verb_goes_on_when_any_answer_is_lost(
        self, tmp_path: Path, disk: Disk, verb: Verb
    ) -> None:
        """The request took effect, is sent again, and must do nothing twice."""
        lines, calm = self._calm(tmp_path, disk, verb)
        # what makes and ends something stands at both ends, blocks and pages between them
        ends = sorted({*range(len(lines))[:6], *range(len(lines))[-5:]})
        for point in ends:
            with self._world(tmp_path / f"lost{point}", disk) as world:
                call = self._prepare(world, verb)
                world.sandbox.faults.add("lose", skip=point)
                call(world.task("once"))
                assert world.kinds() == calm, f"lost: {lines[point]}"

    def test_a_cancelled_upload_stops_soon_and_sends_only_the_rest(self, world: World) -> None:
        cancellation = Cancellation()
        calm_world = world.where / "calm"
        with self._world(calm_world, world.disk) as calm:
            calm.upload()
            requests = len(calm.sandbox.faults.requests)
            sent = writes(calm)
        world.sandbox.faults.add(
            "stall", skip=requests * 3 // 5, seconds=0.0, fired=cancellation.cancel
        )
        started = time.monotonic()
        with pytest.raises((Cancelled, ProviderError)):
            world.upload(world.task("upload", cancellation))
        assert time.monotonic() - started < 5
        world.sandbox.faults.clear()
        upload = world.upload(world.task("upload"))
        assert writes(world) < sent
        image = world.register(upload)
        assert world.content_digest(image) == world.disk.sha256


def writes(world: World) -> int:
    """How many requests carried bytes of the disk."""
    return sum(line.startswith("PUT") for line in world.sandbox.faults.requests)


def image_kind(kinds: Counter[str]) -> str:
    """The kind of resource that images are (there is one of them at least)."""
    return next((kind for kind in kinds if "image" in kind or "version" in kind), "image")


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
