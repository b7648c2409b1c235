"""IAM policies of images: get, set with etag, test."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from providers.gcp.sandbox.store import Document
from providers.gcp.sandbox.web import Refused

MEMBER = re.compile(
    r"allAuthenticatedUsers"
    r"|(user|serviceAccount|group):[^@\s:]+@[^@\s:]+\.[^@\s:]+"
    r"|domain:[a-z0-9.-]+\.[a-z]+"
    r"|project(Owner|Editor|Viewer):[a-z0-9:.-]+"
    r"|principal(Set)?://\S+"
)
ROLE = re.compile(r"roles/[a-zA-Z.]+|(projects|organizations)/[^/]+/roles/[\w.]+")


def policy(image: Document) -> Document:
    number = int(image.get("_policy_version", 0))
    found: Document = {"version": 1, "etag": base64.b64encode(number.to_bytes(8, "big")).decode()}
    if image.get("_bindings"):
        found["bindings"] = image["_bindings"]
    return found


def changed(image: Document, body: Mapping[str, Any]) -> Document:
    """The image with the policy of a setIamPolicy request. Raises Refused for
    another etag than the current one (409), roles and members that are none."""
    wanted = body.get("policy", {})
    etag = wanted.get("etag") or body.get("etag")
    if etag and _plain(etag) != _plain(policy(image)["etag"]):
        raise Refused(
            409,
            "There were concurrent policy changes. Please retry the whole "
            "read-modify-write with exponential backoff.",
            "aborted",
        )
    bindings = wanted.get("bindings", body.get("bindings", []))
    for binding in bindings:
        if not ROLE.fullmatch(binding.get("role", "")):
            raise Refused(400, f"Role {binding.get('role')} is not supported for this resource.")
        for member in binding.get("members", ()):
            if not MEMBER.fullmatch(member):
                raise Refused(400, f"Invalid principal '{member}' in the policy.")
    kept = [binding for binding in bindings if binding.get("members")]
    return {**image, "_bindings": kept, "_policy_version": image.get("_policy_version", 0) + 1}


def _plain(etag: str) -> str:
    return etag.replace("-", "+").replace("_", "/").rstrip("=")
