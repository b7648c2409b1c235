"""What rules look at, one subject a file: rules of every image as RULES, and what
the clouds' own rules are made of as functions."""

from __future__ import annotations

from publisher.proof.checks import (
    boot,
    cloud_init,
    disk,
    fstab,
    initramfs,
    locale,
    lvm,
    network,
    power,
    ssh,
    traces,
)
from publisher.proof.rules import Rule

RULES: tuple[Rule, ...] = (
    *disk.RULES,
    *boot.RULES,
    *initramfs.RULES,
    *lvm.RULES,
    *fstab.RULES,
    *cloud_init.RULES,
    *network.RULES,
    *locale.RULES,
    *power.RULES,
    *ssh.RULES,
    *traces.RULES,
)
"""The rules of every image, whatever cloud it is for."""
