"""Files of somebody else's making that a source names: brought here and checked."""

from __future__ import annotations

from pathlib import Path

from publisher.fetch import Digest, Fetched, SignedSums, Trust, fetch, resolve
from publisher.locations import Original
from publisher.recipe import local_file
from publisher.task import Task


def trust(original: Original, directory: Path, key: str) -> Trust | None:
    """What the file must be; None for a local file without a digest. `key` is the
    pipeline's key path of `original`."""
    if original.sums is not None and original.key is not None:
        key_file = local_file(directory, original.key, f"{key}.key")
        return SignedSums(original.sums, original.signature, key_file)
    given = original.sha256 or original.sha512
    return Digest.parse(given) if given else None


def digest(original: Original, directory: Path, task: Task, key: str) -> Digest | None:
    """The digest that a signed list has for the file, asked for now; None where no
    list vouches for it. Raises BuildError, PipelineError."""
    believed = trust(original, directory, key)
    if not isinstance(believed, SignedSums):
        return None
    return resolve(original.file, believed, directory=directory, task=task, key=f"{key}.sums")


def bring(
    original: Original,
    known: Digest | None,
    *,
    directory: Path,
    cache: Path,
    task: Task,
    key: str,
) -> Fetched:
    """The file itself; downloads stay in `cache`. `known` is what `digest` gave.

    Raises BuildError, HostError, PipelineError."""
    return fetch(
        original.file,
        trust=known or trust(original, directory, key),
        directory=directory,
        cache=cache,
        task=task,
        key=f"{key}.file",
    )
