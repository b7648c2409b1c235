"""`publish export`: an image as a disk file for a virtualization platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from publisher.cli.options import Debug, Json, Plain, Sandbox, Set, State, state_directory


def command(
    image: Annotated[
        str,
        typer.Argument(
            help="NAME[@VERSION] of a release, PROVIDER:REFERENCE, or file:DISK.", metavar="IMAGE"
        ),
    ],
    to: Annotated[
        str,
        typer.Option(help="qcow2, vmdk, ova, vhd, vhd-fixed, vhdx, vdi or raw.", metavar="FORMAT"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.", metavar="FILE")
    ] = None,
    controller: Annotated[
        str,
        typer.Option(
            help="Of an OVA: nvme, ide, pvscsi, ahci or lsilogic. nvme for UEFI, else ide.",
            metavar="KIND",
        ),
    ] = "",
    network: Annotated[
        str,
        typer.Option(
            help="Of an OVA: vmxnet3 (VMware), virtio (VirtualBox) or e1000.", metavar="KIND"
        ),
    ] = "vmxnet3",
    cpus: Annotated[int, typer.Option(help="Of an OVA.", metavar="COUNT", min=1, max=128)] = 2,
    memory: Annotated[
        int, typer.Option(help="Of an OVA, in MiB.", metavar="MIB", min=64, max=6291456)
    ] = 2048,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Take options from the [targets.*] of FILE.", metavar="FILE"),
    ] = None,
    settings: Set = None,
    sandbox: Sandbox = False,
    state: State = None,
    json: Json = False,
    plain: Plain = False,
    _debug: Debug = False,
) -> None:
    """Write an image as a file for QEMU, VMware, VirtualBox, Hyper-V."""
    from publisher.cli import exporting

    exporting.run(
        image,
        to,
        output,
        hardware={
            "controller": controller or None,
            "network": network,
            "cpus": cpus,
            "memory": memory,
        },
        pipeline=pipeline,
        settings=settings or [],
        sandbox=sandbox,
        state=state_directory(state),
        json=json,
        plain=plain,
    )
