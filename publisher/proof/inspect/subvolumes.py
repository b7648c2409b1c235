"""Which subvolume of a Btrfs is mounted: by options of fstab or of rootflags= (btrfs(5)).
Other file systems are mounted whole."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from publisher.proof.inspect.btrfs import TOP, Btrfs
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.filesystem import FileSystem


@dataclass(frozen=True, slots=True)
class Shown:
    """A subvolume that is mounted: `path` is its own in the top-level one ("" for that),
    `directory` where it is mounted ("" for the root directory)."""

    path: str
    directory: str
    files: FileSystem


def asked(options: Iterable[str]) -> str:
    """The option that names a subvolume, "" if none does."""
    found = [o for o in options if o.partition("=")[0] in ("subvol", "subvolid")]
    # with both, they have to name the same one
    return next((o for o in found if o.startswith("subvol=")), next(iter(found), ""))


def mounted(files: FileSystem, options: Iterable[str]) -> FileSystem | None:
    """What these options mount; None if there is no such subvolume."""
    if not isinstance(files, Btrfs):
        return files
    key, _, value = asked(options).partition("=")
    ident: int | None
    if key == "subvol":
        ident = files.named(value)
    elif key:
        # 0 stands for the top-level one
        ident = (int(value) or TOP) if value.isdecimal() and len(value) <= 20 else None
    else:
        ident = files.default()
    if ident is None or not files.has(ident):
        return None
    return files.subvolume(ident)


def same(one: FileSystem | None, other: FileSystem) -> bool:
    """Whether both show the same subvolume."""
    if isinstance(one, Btrfs) and isinstance(other, Btrfs):
        return one == other and one.ident == other.ident
    return one is other


def candidates(files: FileSystem) -> Iterator[FileSystem]:
    """Where a root directory may be: what is mounted without options first."""
    if not isinstance(files, Btrfs):
        yield files
        return
    default = files.default()
    idents = files.subvolumes()
    for ident in (default, *(i for i in idents if i != default)):
        yield files.subvolume(ident)


def booted(
    found: Sequence[FileSystem],
    own: Callable[[FileSystem], Sequence[str]],
    told: Callable[[FileSystem], Sequence[str]],
) -> FileSystem:
    """Which of several root directories of one file system starts; others are mostly
    snapshots. `own`: the options in the fstab of one; `told`: those of the boot loader
    that it has. They count in the opposite order, with the default in between."""
    guess = found[0]
    if not same(mounted(guess, ()), guess):
        claims = (one for one in found if same(mounted(one, _quietly(own, one)), one))
        guess = next(claims, guess)
    flags = _quietly(told, guess)
    wanted = mounted(guess, flags) if asked(flags) else None
    return next((one for one in found if same(wanted, one)), guess)


def _quietly(ask: Callable[[FileSystem], Sequence[str]], files: FileSystem) -> Sequence[str]:
    # whoever asks for more than the options will be told
    with contextlib.suppress(Unreadable, struct.error, ValueError, LookupError):
        return ask(files)
    return ()
