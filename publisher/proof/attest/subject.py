"""What a statement is about: a disk, or an image that was made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from publisher.errors import ProofError
from publisher.model import Audience, Image, Noun

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Subject(Noun):
    """A disk, or an image that was made of it: then `provider`, `ref`, `region`,
    `image` (its name), `version`, `audience` and `uid` are what the cloud must say of
    it. `size` is the disk's virtual size in bytes."""

    name: str
    digest: str
    size: int
    provider: str = ""
    ref: str = ""
    region: str = ""
    image: str = ""
    version: str = ""
    audience: Audience = field(default_factory=Audience)
    uid: str = ""

    @classmethod
    def of(cls, image: Image, size: int) -> Self:
        return cls(
            title(image),
            image.digest,
            size,
            image.provider,
            image.ref,
            image.region,
            image.name,
            image.version,
            image.audience,
            image.uid,
        )

    @property
    def place(self) -> tuple[str, str, str]:
        """As Image.place, among those of all clouds."""
        return self.provider, self.ref, self.region

    def describe(self) -> Mapping[str, Any]:
        """As in-toto's ResourceDescriptor."""
        known = self.to_json()
        annotations = {key: known[key] for key in known if key not in ("name", "digest")}
        if not self.provider:
            annotations = {"size": self.size}
        made: dict[str, Any] = {"name": self.name, "digest": {"sha256": self.digest}}
        return {**made, "annotations": annotations}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Raises ProofError for what is no subject of ours."""
        try:
            values = dict(data["annotations"])
            values["audience"] = Audience.from_json(values.get("audience", {"kind": "private"}))
            digest = data["digest"]["sha256"]
            if not SHA256.fullmatch(digest):
                raise ValueError(digest)
            return cls(str(data["name"]), digest, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise ProofError(f"a subject of the attestation is malformed: {error}") from error


def title(image: Image) -> str:
    """An image's reference, which may stand for images in several regions."""
    where = "" if image.region in image.ref else f" in {image.region}"
    return f"{image.reference}{where}"
