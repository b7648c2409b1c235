"""How an image is named: SUBSCRIPTION/GROUP/GALLERY/DEFINITION/VERSION."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from publisher.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ref:
    subscription: str
    group: str
    gallery: str
    definition: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UsageError. Takes the resource id of a gallery image version too."""
        parts = text.strip("/").split("/")
        if len(parts) == 12 and parts[0].lower() == "subscriptions":
            parts = [parts[i] for i in (1, 3, 7, 9, 11)]
        if len(parts) != 5 or not all(parts):
            raise UsageError(
                f"{text!r} names no image in Azure",
                hint="write SUBSCRIPTION/GROUP/GALLERY/DEFINITION/VERSION",
            )
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(
            (self.subscription, self.group, self.gallery, self.definition, self.version)
        )

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.Compute/galleries/{self.gallery}"
            f"/images/{self.definition}/versions/{self.version}"
        )
