"""Bytes into Cloud Storage: disk, sparse tar, gzip and upload in one stream.

The archive is cut into parts. Each goes through a resumable session that
declares its CRC32C beforehand, several at a time; then they are composed into
one object, whose CRC32C must be that of the stream. The same disk gives the
same parts, so what a cut-off run left in the bucket is the ledger for the next
one, on any machine, and no session address (a capability) is ever stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from providers.gcp import identity
from providers.gcp.api import PROVIDER
from providers.gcp.objects import COMPOSE_MOST, QUANTUM, Bucket, Resource, encoded_crc
from providers.gcp.options import GLOBAL, GcpOptions
from publisher.disks import sparse_tar
from publisher.disks.raw import Reader
from publisher.errors import ConflictError, ProviderError, VerifyError
from publisher.model import MIB, Disk, Spec, Upload
from publisher.task import Task

LEVEL = 1
WORKERS = 4
PARTS = 64
SMALLEST, LARGEST = 1 * MIB, 16 * MIB


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the archive; `consumed` is how far the tar had been read by then."""

    index: int
    data: bytes
    crc32c: str
    consumed: int


class Archive:
    """A disk's tar.gz in parts, one gzip member. Deterministic: no time in the
    header, and parts are cut by a rule that knows the disk only. After `parts`
    is used up, `crc32c` and `size` are those of the whole."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        wanted = -(-disk.data_bytes // PARTS // QUANTUM) * QUANTUM
        self.part_size = min(max(wanted, SMALLEST), LARGEST)
        self.tar_size = sparse_tar.archive_size(disk)
        self.crc32c = ""
        self.size = 0

    def parts(self) -> Iterator[Part]:
        import google_crc32c
        from isal import isal_zlib

        # wbits 31: gzip, whose header isal writes without a time.
        packer = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, 31)
        waiting = bytearray()
        crc, index, consumed = 0, 0, 0

        def cut(length: int) -> Part:
            nonlocal crc, index
            data = bytes(waiting[:length])
            del waiting[:length]
            crc = google_crc32c.extend(crc, data)
            self.size += length
            index += 1
            return Part(index - 1, data, encoded_crc(google_crc32c.value(data)), consumed)

        with Reader(self._disk) as reader:
            for piece in sparse_tar.write(reader):
                consumed += len(piece)
                waiting += packer.compress(piece)
                while len(waiting) > self.part_size:
                    yield cut(self.part_size)
        waiting += packer.flush()
        while waiting:
            yield cut(min(len(waiting), self.part_size))
        self.crc32c = encoded_crc(crc)


def object_name(image: str, digest: str) -> str:
    """Compute Engine wants names that end in .tar.gz."""
    return f"{image}/{digest}.tar.gz"


def part_prefix(image: str, digest: str) -> str:
    return f"{image}/{digest}/"


def remove(bucket: Bucket, image: str, digest: str, task: Task) -> None:
    """Delete the object and all parts of one image's upload."""
    clear(bucket, part_prefix(image, digest), task)
    task.retry(lambda: bucket.delete(object_name(image, digest)))


def clear(bucket: Bucket, prefix: str, task: Task) -> None:
    for found in task.retry(lambda: bucket.list(prefix)):
        name = str(found["name"])
        task.retry(functools.partial(bucket.delete, name))


def send(
    bucket: Bucket,
    resource: dict[str, Any],
    data: bytes,
    generation: str,
    task: Task,
) -> Resource:
    """One object by a resumable session: continues after a broken request where
    the service says that it stands, and begins again when the session is lost."""
    session = ""
    doubt = False

    def attempt() -> Resource:
        nonlocal session, doubt
        try:
            if not session:
                session = bucket.begin(resource, generation=generation, size=len(data))
                doubt = False
            state = bucket.received(session, len(data)) if doubt else 0
            doubt = True
            if isinstance(state, int):
                state = bucket.put(session, data, state, task)
        except ConflictError:
            # An earlier answer was lost: the object may be ours already.
            made = bucket.get(resource["name"])
            if made is not None and made["crc32c"] == resource["crc32c"]:
                return made
            raise
        except ProviderError as error:
            if not error.transient:
                session = ""
            raise
        if isinstance(state, int):
            raise ProviderError(
                f"{bucket.name} took {state} of {len(data)} bytes",
                provider=PROVIDER,
                transient=True,
            )
        return state

    return task.retry(_restarting(attempt))


def _restarting(attempt: Callable[[], Resource]) -> Callable[[], Resource]:
    """A session that is gone (404, 410) is worth another attempt with a new one."""

    def call() -> Resource:
        try:
            return attempt()
        except ProviderError as error:
            if error.code == "notFound" and not error.transient:
                return attempt()
            raise

    return call


def upload(bucket: Bucket, options: GcpOptions, disk: Disk, spec: Spec, task: Task) -> Upload:
    """The archive of `disk` as one verified object in the bucket."""
    image = options.fill(spec)
    name, prefix = object_name(image, disk.sha256), part_prefix(image, disk.sha256)
    task.phase("looking for an earlier upload")
    made = task.retry(lambda: bucket.get(name))
    if made is None:
        made = _stream(bucket, name, prefix, disk, spec, task)
    elif made["crc32c"] != made.get("metadata", {}).get("crc32c"):
        raise _damaged(bucket, name, task)
    clear(bucket, prefix, task)
    return uploaded(bucket, name, disk.sha256, made)


def uploaded(bucket: Bucket, name: str, digest: str, made: Resource | None = None) -> Upload:
    details = {k: str((made or {}).get(k, "")) for k in ("generation", "crc32c", "size")}
    return Upload(PROVIDER, GLOBAL, f"{bucket.name}/{name}", digest, details)


def _damaged(bucket: Bucket, name: str, task: Task) -> VerifyError:
    task.retry(lambda: bucket.delete(name))
    return VerifyError(
        f"the checksum of {name} in the bucket {bucket.name} is not that of the archive",
        provider=PROVIDER,
        hint="the object was removed: run the same command again",
    )


def _stream(bucket: Bucket, name: str, prefix: str, disk: Disk, spec: Spec, task: Task) -> Resource:
    archive = Archive(disk)
    labels = identity.identity(spec)
    known = {found["name"]: found for found in task.retry(lambda: bucket.list(prefix))}
    task.phase("uploading")

    def bring(part: Part) -> tuple[int, int, Resource]:
        resource = {
            "name": f"{prefix}part-{part.index:06d}",
            "crc32c": part.crc32c,
            "contentType": "application/octet-stream",
            "metadata": labels,
        }
        found = known.get(resource["name"])
        same = (part.crc32c, str(len(part.data)))
        if found is None or (found["crc32c"], found["size"]) != same:
            generation = found["generation"] if found else "0"
            found = send(bucket, resource, part.data, generation, task)
        return part.index, part.consumed, found

    parts: dict[int, Resource] = {}
    done = 0
    for index, consumed, part in task.map(bring, archive.parts(), workers=WORKERS):
        parts[index] = part
        done = max(done, consumed)
        task.progress(done, archive.tar_size)
    task.progress(archive.tar_size, archive.tar_size)
    task.phase("composing the object")
    ordered = [parts[index] for index in sorted(parts)]
    ordered = _join(bucket, prefix, ordered, labels, task)
    resource = {
        "contentType": "application/gzip",
        "metadata": {**labels, "crc32c": archive.crc32c, "sha256": disk.sha256},
    }

    def compose() -> Resource:
        try:
            return bucket.compose(name, ordered, resource, new=True)
        except ConflictError:
            made = bucket.get(name)
            if made is None:
                raise
            return made

    made = task.retry(compose)
    if (made["crc32c"], made["size"]) != (archive.crc32c, str(archive.size)):
        raise _damaged(bucket, name, task)
    return made


def _join(
    bucket: Bucket, prefix: str, parts: list[Resource], labels: dict[str, str], task: Task
) -> list[Resource]:
    """At most 32 objects that hold the parts in order: what one compose takes."""
    level = 0
    while len(parts) > COMPOSE_MOST:
        level += 1
        joined = []
        for at in range(0, len(parts), COMPOSE_MOST):
            compose = functools.partial(
                bucket.compose,
                f"{prefix}join-{level}-{at:06d}",
                parts[at : at + COMPOSE_MOST],
                {"metadata": labels},
                new=False,
            )
            joined.append(task.retry(compose))
        parts = joined
    return parts
