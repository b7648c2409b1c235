"""Reading an image out of Azure, for `migrate`: also one that we did not make."""

from __future__ import annotations

import threading
from pathlib import Path

from providers.azure import gallery as g
from providers.azure import tags
from providers.azure.disks import Disks
from providers.azure.options import AzureOptions, normal_region
from providers.azure.pages import pieces
from providers.azure.refs import Ref
from providers.azure.verify import data_extents, opened, virtual_size
from publisher.disks import raw
from publisher.model import Arch, Disk, Extent, Spec
from publisher.task import Task

_GAP = 64 * 1024
_ARCHES: dict[str, Arch] = {"x64": "x86_64", "Arm64": "aarch64"}


def describe(gallery: g.Gallery, ref: Ref, task: Task) -> Spec:
    version = gallery.version(ref, task)
    definition = gallery.definition(ref.definition, task)
    if version is None or definition is None:
        raise g.missing(ref)
    held = version.get("tags") or {}
    properties = definition["properties"]
    size = held.get(tags.SIZE, "")
    return Spec(
        name=held.get(tags.NAME, ref.definition),
        version=held.get(tags.VERSION, ref.version),
        arch=_ARCHES[properties.get("architecture") or "x64"],
        firmware=tags.firmware(held, properties.get("hyperVGeneration", "V1")),
        size=int(size) if size.isdigit() else 0,
        description=properties.get("description", ""),
        digest=held.get(tags.DIGEST, ""),
    )


def download(
    gallery: g.Gallery, disks: Disks, options: AzureOptions, ref: Ref, into: Path, task: Task
) -> Disk:
    version = gallery.settled_version(ref, task)
    if version is None:
        raise g.missing(ref)
    places = g.target_regions(version)
    near = [region for region in options.locations() if region in places]
    region = (near or places or [normal_region(version["location"])])[0]
    with opened(disks, options, ref, version, region, task) as pages:
        size = virtual_size(pages)
        todo = list(pieces(data_extents(pages, size), gap=_GAP))
        total = sum(piece.length for piece in todo)
        done = 0
        lock = threading.Lock()
        writer = raw.SparseWriter(into, size, task)
        task.phase("reading pages")

        def fetch(piece: Extent) -> None:
            nonlocal done
            task.check()
            if not writer.has(piece.offset, piece.length):
                writer.write(piece.offset, pages.read(piece.offset, piece.length))
            with lock:
                done += piece.length
                task.progress(done, total)

        with writer:
            for _ in task.map(fetch, todo, workers=options.workers):
                pass
            writer.finish()
    task.phase("hashing the disk")
    return raw.inspect(into, task.check)
