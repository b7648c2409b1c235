"""An inventory written down: the same disk gives the same bytes."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.errors import HostError
from publisher.model import Noun
from publisher.proof.inventory import cyclonedx, spdx
from publisher.proof.inventory.component import Inventory

_WRITERS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "cyclonedx": ("sbom.cdx.json", cyclonedx.bom),
    "spdx": ("sbom.spdx.json", spdx.document),
}
FORMATS: Sequence[str] = tuple(_WRITERS)


@dataclass(frozen=True, slots=True)
class Document(Noun):
    """A document that was stored: what a manifest holds of it."""

    format: str
    path: str
    sha256: str
    components: int


def document(
    inventory: Inventory,
    format: str,  # noqa: A002
    *,
    name: str = "disk",
    version: str = "",
    created: int | None = None,
) -> bytes:
    """The inventory as "cyclonedx" (1.6) or "spdx" (2.3) in JSON.

    `created` in seconds since the epoch; without it, when the disk was last written.
    Identifiers come from the disk's digest, name and version.
    """
    seconds = inventory.written if created is None else created
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _, write = _WRITERS[format]
    seed = f"sha256:{inventory.digest} {name} {version}"
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, seed)
    made = write(inventory, name, version, time, namespace)
    return (json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode()


def store(
    inventory: Inventory,
    directory: Path,
    *,
    name: str,
    version: str = "",
    created: int | None = None,
) -> tuple[Document, ...]:
    """Write both formats into a directory (of the state, one a disk). Raises HostError."""
    stored = []
    for kind, (file, _) in _WRITERS.items():
        data = document(inventory, kind, name=name, version=version, created=created)
        path = directory / file
        try:
            directory.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            raise HostError(
                f"cannot write {path}: {error.strerror}", hint="free some space, then run it again"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        stored.append(Document(kind, str(path), digest, len(inventory.components)))
    return tuple(stored)
