"""Btrfs on one device, read only.

Layout: https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html. The log tree is
not replayed; what is not yet written back is told as a remark. Blocks of metadata are
checked, as their copies are for; the checksums of data are not: what a file says is
judged by who reads it.
"""

from publisher.proof.inspect.btrfs.volume import TOP, Btrfs

__all__ = ["TOP", "Btrfs"]
