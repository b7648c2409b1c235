"""The archives that apt reads: Debian's own, at a moment of the past, and further ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import HostError, PipelineError
from publisher.fetch.openpgp import dearmor
from publisher.recipe import Debian, local_file

MIRROR = "http://deb.debian.org/debian"
SNAPSHOTS = "https://snapshot.debian.org"
ROLLING = ("sid", "unstable", "testing", "experimental")
KEYRINGS = "etc/apt/keyrings"
FURTHER = "etc/apt/sources.list.d/further.list"
SEALED = "etc/apt/sources.list.sealed"
"""Takes the place of sources.list when the image is sealed."""


@dataclass(frozen=True, slots=True)
class Official:
    """URLs of the archive and of its security updates; `options` go in front of them."""

    archive: str
    security: str
    options: str = ""

    def line(self, suite: str, components: Sequence[str], *, security: bool = False) -> str:
        url = self.security if security else self.archive
        return " ".join(filter(None, ("deb", self.options, url, suite, *components)))


def official(source: Debian) -> Official:
    """Where Debian's own packages come from. The archive of a past moment is out of
    date by intent, so its date is not checked (https://snapshot.debian.org/)."""
    if source.snapshot is None:
        mirror = (source.mirror or MIRROR).rstrip("/")
        return Official(mirror, f"{mirror}-security")
    server = (source.mirror or SNAPSHOTS).rstrip("/")
    return Official(
        f"{server}/archive/debian/{source.snapshot}",
        f"{server}/archive/debian-security/{source.snapshot}",
        "[check-valid-until=no]",
    )


def live(source: Debian) -> list[str]:
    """Lines of sources.list by which an image stays up to date."""
    suite, components = source.suite, source.components
    found = official(source.model_copy(update={"snapshot": None, "mirror": None}))
    lines = [found.line(suite, components)]
    if suite not in ROLLING:
        lines.append(found.line(f"{suite}-updates", components))
        lines.append(found.line(f"{suite}-security", components, security=True))
    return lines


@dataclass(frozen=True, slots=True)
class Further:
    """A further archive; `name` is the key's file name in the image."""

    url: str
    suite: str
    components: tuple[str, ...]
    name: str
    key: bytes

    def line(self, keyrings: Path) -> str:
        parts = () if self.suite.endswith("/") else self.components
        signed = f"[signed-by={keyrings / self.name}]"
        return " ".join(("deb", signed, self.url, self.suite, *parts))


def further(source: Debian, directory: Path) -> list[Further]:
    """The source's further archives with their keys' files read.

    Raises PipelineError for a file that is missing or holds no public key."""
    found = []
    for number, repository in enumerate(source.repositories):
        key = f"build.source.debian.repositories[{number}].key"
        data = local_file(directory, repository.key, key).read_bytes()
        try:
            dearmor(data)
        except ValueError as error:
            raise PipelineError(
                f"{repository.key} is no key file: {error}",
                key=key,
                hint="export it with: gpg --export --armor FINGERPRINT",
            ) from error
        # apt tells the two forms apart by the name
        suffix = "asc" if b"-----BEGIN PGP" in data else "gpg"
        url = repository.url.rstrip("/") + ("/" if repository.suite.endswith("/") else "")
        name = f"further-{number}.{suffix}"
        found.append(Further(url, repository.suite, repository.components, name, data))
    return found


def digest(archives: Sequence[Further]) -> str:
    """What decides which packages the archives give, as one text."""
    return json.dumps(
        [[a.url, a.suite, a.components, hashlib.sha256(a.key).hexdigest()] for a in archives]
    )


def stage(source: Debian, archives: Sequence[Further], ours: Path) -> list[str]:
    """Write what the image has of its archives under `ours`, the tree of our own
    files; returns the lines by which they are read while it is installed.

    Raises HostError where apt could not read a key's path."""
    keyrings = ours / KEYRINGS
    if archives and re.search(r"[\s,\[\]]", str(keyrings)):
        raise HostError(
            f"apt reads no keys from {keyrings}, a path with spaces, commas or brackets",
            hint="choose another state directory with --state",
        )
    written: dict[str, bytes] = {f"{KEYRINGS}/{a.name}": a.key for a in archives}
    if archives:
        lines = [archive.line(Path("/") / KEYRINGS) for archive in archives]
        written[FURTHER] = "".join(f"{line}\n" for line in lines).encode()
    if source.snapshot is not None:
        written[SEALED] = "".join(f"{line}\n" for line in live(source)).encode()
    for name, content in written.items():
        path = ours / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    return [archive.line(keyrings) for archive in archives]
