"""The disk's bytes into a managed disk: direct upload, page by page.

https://learn.microsoft.com/azure/virtual-machines/linux/disks-upload-vhd-to-managed-disk-cli
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

from providers.azure import api, tags
from providers.azure.api import Body
from providers.azure.disks import Disks
from providers.azure.gallery import architecture
from providers.azure.options import AzureOptions, disk_name, normal_region
from providers.azure.pages import Pages, pieces
from publisher.disks import extents as ext
from publisher.disks import raw, vhd
from publisher.errors import ProviderError
from publisher.model import SECTOR, Disk, Extent, Spec
from publisher.task import Task

_SECURITY = "supportedSecurityOption"
_FINISHED = ("Unattached", "ActiveSAS", "Reserved", "Attached")


def upload(disks: Disks, options: AzureOptions, disk: Disk, spec: Spec, task: Task) -> str:
    """Returns the name of a disk that holds all bytes.

    Azure makes a disk of an upload (Unattached) only when its footer is valid,
    and the footer goes last: so such a disk is complete. An upload that was cut
    off goes on behind the pages that the disk already has; its name holds the
    digest, so that what is there came from the same bytes.
    """
    name = name_of(disk, spec)
    wanted = _body(options, disk, spec)
    found = disks.get(name, task)
    if found is not None and _differs(found, wanted):
        disks.remove(name, task)
        found = None
    if found is None or found["properties"].get("provisioningState") != "Succeeded":
        disks.create(name, wanted, task)
        found = disks.get(name, task)
    if found is None or found["properties"].get("diskState") not in _FINISHED:
        try:
            with disks.opened(name, "Write", task) as pages:
                _send(pages, disk, options.workers, task)
        except ProviderError as error:
            # A run that was killed may have closed the whole disk just now.
            found = disks.get(name, task) if error.code == "OperationNotAllowed" else None
            if found is None or found["properties"].get("diskState") not in _FINISHED:
                raise
    _wait_until_closed(disks, name, task)
    return name


def name_of(disk: Disk, spec: Spec) -> str:
    return disk_name("upload", spec.name, spec.version, disk.sha256)


def _body(options: AzureOptions, disk: Disk, spec: Spec) -> Body:
    security = options.security_for(spec)
    generation = options.generation_for(spec)
    capabilities: Body = {
        "architecture": architecture(spec),
        "acceleratedNetwork": options.accelerated_for(spec),
    }
    if generation == "V2":
        capabilities["diskControllerTypes"] = "SCSI, NVMe" if options.nvme_for(spec) else "SCSI"
    # Without it Azure refuses the disk as the source of a definition that
    # supports trusted launch (packer-plugin-azure 304).
    if security in ("TrustedLaunchSupported", "TrustedLaunch"):
        capabilities[_SECURITY] = "TrustedLaunchSupported"
    elif security != "Standard":
        capabilities[_SECURITY] = "TrustedLaunchAndConfidentialVMSupported"
    properties: Body = {
        "osType": "Linux",
        "hyperVGeneration": generation,
        "supportedCapabilities": capabilities,
        "creationData": {"createOption": "Upload", "uploadSizeBytes": disk.size + vhd.FOOTER},
    }
    if security == "TrustedLaunch":
        properties["securityProfile"] = {"securityType": "TrustedLaunch"}
    return {
        "location": options.locations()[0],
        "sku": {"name": options.disk_sku},
        "tags": tags.identity(spec),
        "properties": properties,
    }


def _differs(found: Body, wanted: Body) -> bool:
    """True for a disk that can't be continued: it failed, goes, or options have changed."""
    has, wants = found["properties"], wanted["properties"]
    made, make = has["creationData"], wants["creationData"]
    can, should = has.get("supportedCapabilities") or {}, wants["supportedCapabilities"]
    return (
        has.get("provisioningState") in ("Failed", "Canceled", "Deleting")
        or normal_region(found["location"]) != wanted["location"]
        or made["createOption"] != "Upload"
        or made.get("uploadSizeBytes", make["uploadSizeBytes"]) != make["uploadSizeBytes"]
        or has.get("hyperVGeneration") != wants["hyperVGeneration"]
        or has.get("securityProfile") != wants.get("securityProfile")
        or any(can.get(key) != should.get(key) for key in ("architecture", _SECURITY))
    )


def _send(pages: Pages, disk: Disk, workers: int, task: Task) -> None:
    """All data pages that are not there yet, in parallel, then the footer.

    Holes and zeros are left out, which is right because the disk was empty.
    """
    length = pages.length()
    if length != disk.size + vhd.FOOTER:
        raise ProviderError(
            f"the disk in Azure has {length} bytes, the VHD {disk.size + vhd.FOOTER}",
            provider="azure",
            hint="delete the disk, then run the same command again",
        )
    task.phase("sending pages")
    present = pages.ranges()
    extents = ext.align(disk.extents, SECTOR, disk.size)
    total = sum(extent.length for extent in extents)
    done = 0
    lock = threading.Lock()

    def advance(piece: Extent) -> None:
        nonlocal done
        with lock:
            done += piece.length
            task.progress(done, total)

    with raw.Reader(disk) as reader:

        def send(piece: Extent) -> None:
            task.check()
            if not covered(piece, present):
                data = reader.read(piece.offset, piece.length)
                if not raw.is_zero(data):
                    pages.put(piece.offset, data)
            advance(piece)

        for _ in task.map(send, pieces(extents), workers=workers):
            pass
    task.phase("sending the footer")
    pages.put(disk.size, vhd.footer(disk.size, disk.sha256))


def covered(piece: Extent, present: Sequence[Extent]) -> bool:
    """True when all of `piece` lies in one of the merged, ascending ranges."""
    at = bisect.bisect_right(present, piece.offset, key=lambda extent: extent.offset) - 1
    return at >= 0 and piece.end <= present[at].end


def _wait_until_closed(disks: Disks, name: str, task: Task) -> None:
    def look() -> tuple[float, bool]:
        found = disks.get(name, task)
        state = found["properties"].get("diskState") if found else None
        if state == "ActiveSAS":
            disks.revoke(name, task)
        return 0.0, state in ("Unattached", "Reserved", "Attached")

    api.patiently(task, look, what=f"waiting for disk {name}", timeout=900.0)
