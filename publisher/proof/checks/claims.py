"""What a pipeline says of the disk, against what the disk shows."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.model import Spec
from publisher.proof.checks import boot
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rules import ERROR, Evidence, Rule


def rules(spec: Spec | None) -> tuple[Rule, ...]:
    """The same rules with and without a pipeline; without, nothing is claimed."""

    def architecture(disk: Inspection) -> Iterator[Evidence]:
        found = disk.arch() if spec else None
        if spec and found and found != spec.arch:
            yield Evidence(f"the disk is for {found}, not for {spec.arch}", key="image.arch")

    def firmware(disk: Inspection) -> Iterator[Evidence]:
        if spec:
            wanted = "uefi" if spec.arch == "aarch64" else spec.firmware
            yield from boot.claimed(wanted, "build.firmware")(disk)

    return (
        Rule(
            "claims.arch",
            ERROR,
            "The disk is for the architecture that the pipeline says",
            "Clouds offer machine types by the architecture that an image is registered with; "
            "the other kind stops at the first instruction.",
            "https://docs.kernel.org/arch/",
            "set image.arch to the disk's own architecture",
            architecture,
        ),
        Rule(
            "claims.firmware",
            ERROR,
            "The disk boots by the firmware that the pipeline says",
            "Images are registered with boot modes that follow from build.firmware; a machine "
            "whose firmware finds nothing to start stays dark.",
            "https://uefi.org/specs/UEFI/2.10/03_Boot_Manager.html",
            "set build.firmware to what the disk can do, or install the missing loader",
            firmware,
        ),
    )
