"""Who may use a gallery: release and withdraw.

Azure shares a gallery as a whole: with subscriptions and tenants (a direct
shared gallery, "Groups") or with everybody (a community gallery). So one image
of a gallery can't be more private than another. What is sound under that rule:

- A version carries in its tags to whom it was released, and stays out of
  "latest" until then. The gallery is opened to the union of all releases in it.
- `withdraw` takes the version out of "latest" and closes to whom no other
  released version needs; with none left the gallery is private again.
- Subscriptions that somebody shared with by hand are left alone.
- `find` reports what is true: the gallery's audience. In a gallery that is open
  already, a new version can be used by its number from its registration on.
  Images that must not be seen early need a gallery of their own; `check` says so.

https://learn.microsoft.com/azure/virtual-machines/share-gallery
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from providers.azure import gallery as g
from providers.azure import tags
from providers.azure.api import Body
from providers.azure.options import AzureOptions
from providers.azure.refs import Ref
from publisher.errors import ProviderError
from publisher.model import Audience, AudienceKind
from publisher.task import Task

TENANT = "tenant:"
"""In front of a tenant's id among accounts; a bare id is a subscription."""
_NOT_SHARED = ("TrustedLaunch", "ConfidentialVM")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def audience(gallery: Body | None) -> Audience:
    """Who may use the gallery's images, as Azure has it."""
    profile = _profile(gallery)
    if profile.get("permissions") == "Community":
        enabled = (profile.get("communityGalleryInfo") or {}).get("communityGalleryEnabled")
        return Audience("public") if enabled else Audience("private")
    accounts = _accounts(profile)
    return Audience("shared", tuple(accounts)) if accounts else Audience("private")


def release(
    gallery: g.Gallery, options: AzureOptions, ref: Ref, audience: Audience, task: Task
) -> None:
    """Raises ProviderError, naming the option, where Azure would not share this."""
    if audience.kind == "private":
        withdraw(gallery, ref, task)
        return
    wanted = Audience(audience.kind, tuple(sorted(_union([audience]))))
    _check_accounts(wanted)
    definition = gallery.definition(ref.definition, task)
    if definition is not None and g.security_type(definition) in _NOT_SHARED:
        raise ProviderError(
            f"Azure does not share images of SecurityType {g.security_type(definition)}",
            provider="azure",
            key="targets.azure.security_type",
            hint="use TrustedLaunchSupported and another image definition",
        )
    if wanted.kind == "public" and options.community is None:
        raise ProviderError(
            "a public gallery must name its publisher",
            provider="azure",
            key="targets.azure.community",
            hint="set publisher_uri, publisher_contact, eula and public_name_prefix there",
        )
    found = gallery.settled_version(ref, task)
    if found is None:
        raise g.missing(ref)
    before = tags.audience(found.get("tags") or {})
    others = _released(gallery, task, besides=ref)
    # Marked before anything opens, and with those who are about to lose access
    # until they have: after a crash, `withdraw` knows what to close.
    kind: AudienceKind = "public" if "public" in (before.kind, wanted.kind) else "shared"
    both = Audience(kind, tuple(sorted(_union([before, wanted]))))
    _mark(gallery, ref, both, options.exclude_from_latest, task)
    _share(gallery, options, [*others, wanted], [*others, both], task)
    _mark(gallery, ref, wanted, options.exclude_from_latest, task)


def withdraw(gallery: g.Gallery, ref: Ref, task: Task) -> None:
    found = gallery.settled_version(ref, task)
    if found is None:
        return
    before = tags.audience(found.get("tags") or {})
    others = _released(gallery, task, besides=ref)
    if before.kind != "private":
        _share(gallery, None, others, [*others, before], task)
    _mark(gallery, ref, Audience(), True, task)
    if audience(gallery.get(task)).kind != "private":
        task.note(
            f"gallery {ref.gallery} stays open for its other images: {ref.definition} "
            f"{ref.version} is out of latest, but can be used by its number until it is deleted",
            "warning",
        )


def _check_accounts(audience: Audience) -> None:
    for account in audience.accounts:
        if not _GUID.fullmatch(account.removeprefix(TENANT)):
            raise ProviderError(
                f"{account!r} is neither a subscription nor a tenant",
                provider="azure",
                key="release.audience",
                hint=f"give ids of subscriptions, or of tenants as {TENANT}ID",
            )


def _mark(gallery: g.Gallery, ref: Ref, audience: Audience, excluded: bool, task: Task) -> None:
    def change(body: Body) -> Body | None:
        marked = tags.with_audience(body["tags"], audience)
        profile = body["properties"]["publishingProfile"]
        if marked == body["tags"] and profile.get("excludeFromLatest", False) == excluded:
            return None
        body["tags"] = marked
        profile["excludeFromLatest"] = excluded
        return body

    gallery.change_version(ref, change, task)


def _released(gallery: g.Gallery, task: Task, *, besides: Ref) -> list[Audience]:
    """The audiences of all other versions that were released."""
    found = [
        tags.audience(version.get("tags") or {})
        for definition in gallery.definitions(task)
        for version in gallery.versions(definition["name"], task)
        if (definition["name"], version["name"]) != (besides.definition, besides.version)
    ]
    return [audience for audience in found if audience.kind != "private"]


def _share(
    gallery: g.Gallery,
    options: AzureOptions | None,
    wanted: Sequence[Audience],
    known: Sequence[Audience],
    task: Task,
) -> None:
    """Open the gallery to all of `wanted`, and close it to accounts that are in
    `known` only."""
    found = gallery.get(task)
    profile = _profile(found)
    permissions = profile.get("permissions") or "Private"
    foreign = set(_accounts(profile)) - _union(known)
    accounts = _union(wanted) | foreign
    if any(audience.kind == "public" for audience in wanted):
        _make_public(gallery, found, options, task)
        return
    if permissions == "Community":
        by_hand = audience(found).kind == "public" and not any(
            audience.kind == "public" for audience in known
        )
        if by_hand and accounts:
            raise ProviderError(
                f"gallery {gallery.name} is open to everybody, and not by this program",
                provider="azure",
                key="targets.azure.gallery",
                hint="use another gallery for images that only some may use",
            )
        if by_hand:
            return
        gallery.share({"operationType": "Reset"}, task)
    if accounts or permissions == "Groups":
        _make_shared(gallery, accounts, task)


def _make_public(
    gallery: g.Gallery, found: Body | None, options: AzureOptions | None, task: Task
) -> None:
    profile = _profile(found)
    if profile.get("permissions") == "Groups":
        gallery.share({"operationType": "Reset"}, task)
    if profile.get("permissions") != "Community":
        community = options.community if options else None
        assert community is not None, "release has checked it"
        info = {
            "publisherUri": community.publisher_uri,
            "publisherContact": community.publisher_contact,
            "eula": community.eula,
            "publicNamePrefix": community.public_name_prefix,
        }
        _permit(gallery, {"permissions": "Community", "communityGalleryInfo": info}, task)
        profile = _profile(gallery.get(task))
    if not (profile.get("communityGalleryInfo") or {}).get("communityGalleryEnabled"):
        gallery.share({"operationType": "EnableCommunity"}, task)


def _make_shared(gallery: g.Gallery, accounts: set[str], task: Task) -> None:
    profile = _profile(gallery.get(task))
    if profile.get("permissions") != "Groups":
        _permit(gallery, {"permissions": "Groups"}, task)
        profile = _profile(gallery.get(task))
    has = set(_accounts(profile))
    if accounts - has:
        gallery.share({"operationType": "Add", "groups": _groups(accounts - has)}, task)
    if has - accounts:
        gallery.share({"operationType": "Remove", "groups": _groups(has - accounts)}, task)


def _permit(gallery: g.Gallery, profile: Body, task: Task) -> None:
    found = gallery.get(task)
    if found is None:
        raise ProviderError(f"there is no gallery {gallery.name}", provider="azure")
    properties: Body = {"sharingProfile": profile}
    for key in ("description", "softDeletePolicy"):
        if key in found["properties"]:
            properties[key] = found["properties"][key]
    body = {"location": found["location"], "properties": properties}
    gallery.put({**body, "tags": dict(found.get("tags") or {})}, task)


def _profile(gallery: Body | None) -> Body:
    profile: Any = ((gallery or {}).get("properties") or {}).get("sharingProfile") or {}
    assert isinstance(profile, dict)
    return profile


def _union(audiences: Iterable[Audience]) -> set[str]:
    return {account.lower() for audience in audiences for account in audience.accounts}


def _accounts(profile: Body) -> list[str]:
    """The groups as accounts, in a stable order."""
    found = []
    for group in profile.get("groups") or []:
        prefix = TENANT if group.get("type") == "AADTenants" else ""
        found += [prefix + str(item).lower() for item in group.get("ids") or []]
    return sorted(found)


def _groups(accounts: set[str]) -> list[Body]:
    tenants = sorted(a.removeprefix(TENANT) for a in accounts if a.startswith(TENANT))
    subscriptions = sorted(a for a in accounts if not a.startswith(TENANT))
    groups: list[Body] = []
    if subscriptions:
        groups.append({"type": "Subscriptions", "ids": subscriptions})
    if tenants:
        groups.append({"type": "AADTenants", "ids": tenants})
    return groups
