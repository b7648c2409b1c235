"""The tags that every resource carries: what it is, of which disk, by which run,
and, on a version, to whom it was released."""

from __future__ import annotations

from collections.abc import Mapping

from publisher.model import Audience, AudienceKind, Firmware, Query, Spec

NAME = "publish-name"
VERSION = "publish-version"
DIGEST = "publish-digest"
RUN = "publish-run"
SIZE = "publish-size"
FIRMWARE = "publish-firmware"
_AUDIENCE = "publish-audience"
_PIECE = 256
"""A tag's value has at most 256 characters."""

Tags = dict[str, str]


def identity(spec: Spec) -> Tags:
    """The user's own tags and ours; ours win."""
    return {
        **spec.tags,
        NAME: spec.name,
        VERSION: spec.version,
        DIGEST: spec.digest,
        RUN: spec.run,
        SIZE: str(spec.size),
        FIRMWARE: spec.firmware,
    }


def ours(tags: Mapping[str, str]) -> bool:
    return DIGEST in tags


def matches(query: Query, tags: Mapping[str, str]) -> bool:
    return ours(tags) and query.matches(
        name=tags.get(NAME, ""),
        version=tags.get(VERSION, ""),
        digest=tags[DIGEST],
        run=tags.get(RUN, ""),
    )


def firmware(tags: Mapping[str, str], generation: str) -> Firmware:
    """As it was published; for an image of others what its generation needs."""
    known: dict[str, Firmware] = {"bios": "bios", "uefi": "uefi", "bios+uefi": "bios+uefi"}
    return known.get(tags.get(FIRMWARE, ""), "uefi" if generation == "V2" else "bios")


def with_audience(tags: Mapping[str, str], audience: Audience) -> Tags:
    """The tags with another audience; "private" leaves none."""
    kept = {key: value for key, value in tags.items() if not key.startswith(_AUDIENCE)}
    if audience.kind == "private":
        return kept
    kept[_AUDIENCE] = audience.kind
    text = ""
    number = 0
    for account in sorted(audience.accounts):
        if text and len(text) + 1 + len(account) > _PIECE:
            kept[f"{_AUDIENCE}-{number}"] = text
            text, number = "", number + 1
        text = f"{text},{account}" if text else account
    if text:
        kept[f"{_AUDIENCE}-{number}"] = text
    return kept


def audience(tags: Mapping[str, str]) -> Audience:
    """To whom the version was released, as `with_audience` wrote it. A public one
    may name accounts too: those whose own access is still to be closed."""
    kinds: dict[str, AudienceKind] = {"shared": "shared", "public": "public"}
    kind = kinds.get(tags.get(_AUDIENCE, ""), "private")
    pieces = [value for key, value in tags.items() if key.startswith(f"{_AUDIENCE}-")]
    accounts = sorted(account for piece in pieces for account in piece.split(","))
    return Audience(kind, tuple(accounts))
