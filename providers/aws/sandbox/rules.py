"""Rules that several of the sandbox's services share: tags, filters, pages, ids."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from providers.aws.sandbox.wire import Refused

T = TypeVar("T")

SETTLE = 0.04
"""Seconds that a snapshot or a copy stays pending: long enough for a poll or two."""


def settle_time() -> float:
    return time.time() + SETTLE


def check_tags(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions"""
    checked: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not 1 <= len(key) <= 127 or len(value) > 255:
            raise Refused("InvalidParameterValue", f"Tag {key!r} is too long")
        if key.lower().startswith("aws:"):
            raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved")
        if key in checked:
            raise Refused("InvalidParameterValue", f"Duplicate tag key {key!r}")
        checked[key] = value
    if len(checked) > 50:
        raise Refused("TagLimitExceeded", "A resource has at most 50 tags")
    return checked


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def specified_tags(
    parameters: Mapping[str, Any], allowed: Iterable[str]
) -> dict[str, dict[str, str]]:
    """Tags by resource type from TagSpecifications, only of the types that the action takes."""
    allowed = set(allowed)
    found: dict[str, dict[str, str]] = {kind: {} for kind in allowed}
    for specification in parameters.get("TagSpecifications", ()):
        kind = specification.get("ResourceType", "")
        if kind not in allowed:
            raise Refused(
                "InvalidParameterValue", f"'{kind}' is not a valid taggable resource type here."
            )
        found[kind].update(check_tags(specification.get("Tags", ())))
    return found


Field = Callable[[Any], Iterable[str]]


def check_filters(filters: Sequence[Mapping[str, Any]], fields: Mapping[str, Field]) -> None:
    for entry in filters:
        name = entry.get("Name", "")
        if not name.startswith("tag:") and name != "tag-key" and name not in fields:
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
        if not entry.get("Values"):
            raise Refused("InvalidParameterValue", f"The filter '{name}' has no values")


def matches(
    item: Any,
    filters: Sequence[Mapping[str, Any]],
    fields: Mapping[str, Field],
    tags: Mapping[str, str],
) -> bool:
    """EC2 filters: all must match, any value of each, * and ? as wildcards. They were
    checked by `check_filters`."""
    for entry in filters:
        name, values = entry.get("Name", ""), entry.get("Values", ())
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            have: Iterable[str] = [tags[key]] if key in tags else []
        elif name == "tag-key":
            have = tags
        else:
            have = fields[name](item)
        patterns = [_wildcard(value) for value in values]
        if not any(pattern.fullmatch(value) for value in have for pattern in patterns):
            return False
    return True


def _wildcard(text: str) -> re.Pattern[str]:
    """* and ? as wildcards, a backslash before what is meant literally."""
    pattern = re.sub(
        r"\\(.)|(\*)|(\?)|(.)",
        lambda m: ".*" if m[2] else "." if m[3] else re.escape(m[1] or m[4]),
        text,
        flags=re.DOTALL,
    )
    return re.compile(pattern, re.DOTALL)


def paginate(
    items: Sequence[T],
    parameters: Mapping[str, Any],
    least: int,
    seal: Callable[[str], str],
    open_seal: Callable[[str], str],
) -> tuple[Sequence[T], str | None]:
    """One page and the NextToken."""
    most = parameters.get("MaxResults")
    if most is not None and not least <= most <= 1000:
        raise Refused(
            "InvalidParameterValue", f"Value ( {most} ) for parameter maxResults is invalid."
        )
    start = 0
    if token := parameters.get("NextToken"):
        try:
            start = int(open_seal(token))
        except ValueError as error:
            raise Refused("InvalidNextToken", "The token is not valid") from error
    end = start + (most or 1000)
    return items[start:end], seal(str(end)) if end < len(items) else None


def dry_run(parameters: Mapping[str, Any]) -> None:
    """After permissions and before anything else: DryRun never does anything."""
    if parameters.get("DryRun"):
        raise Refused(
            "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
        )
