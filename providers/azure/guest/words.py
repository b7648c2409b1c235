"""What agents send: health reports, role properties, telemetry, status blobs."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Health:
    incarnation: str
    container: str
    role_instance: str
    state: str
    detail: str
    """SubStatus and Description of a machine that is not ready."""


def parse(body: bytes) -> ElementTree.Element | None:
    """Nobody sends document types; their entities could fill memory."""
    if b"<!DOCTYPE" in body:
        return None
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - no entities: refused above
    except ElementTree.ParseError:
        return None


def health(body: bytes) -> Health | None:
    root = parse(body)
    if root is None or root.tag != "Health":
        return None
    role = "Container/RoleInstanceList/Role"
    details = f"{role}/Health/Details"
    described = [root.findtext(f"{details}/{name}", "") for name in ("SubStatus", "Description")]
    return Health(
        incarnation=root.findtext("GoalStateIncarnation", "").strip(),
        container=root.findtext("Container/ContainerId", "").strip(),
        role_instance=root.findtext(f"{role}/InstanceId", "").strip(),
        state=root.findtext(f"{role}/Health/State", "").strip(),
        detail=": ".join(filter(None, (text.strip() for text in described))),
    )


def properties(root: ElementTree.Element) -> Iterator[str]:
    for item in root.iter("Property"):
        yield f"{item.get('name', '')} = {item.get('value', '')}"


def events(root: ElementTree.Element) -> Iterator[str]:
    """Each event's operation, success and message."""
    for event in root.iter("Event"):
        inner = parse(b"<Event>" + (event.text or "").encode() + b"</Event>")
        if inner is None:
            continue
        told = {param.get("Name"): param.get("Value", "") for param in inner.iter("Param")}
        operation = told.get("Operation") or told.get("Context1") or "event"
        failed = told.get("OperationSuccess", "").lower() == "false"
        message = told.get("Message") or told.get("Context2") or ""
        yield f"{operation}{' failed' if failed else ''}: {message}".rstrip(": ")


def status(body: bytes) -> str | None:
    """What a status blob says of the agent; None for what is no request to store one."""
    try:
        request = json.loads(body)
        if not isinstance(request, dict) or "requestUri" not in request:
            return None
        content = base64.b64decode(request.get("content", ""), validate=True)
        blob = json.loads(content) if content else {}
    except (ValueError, TypeError, binascii.Error):
        return None
    agent = _within(blob, "aggregateStatus", "guestAgentStatus")
    message = _within(agent, "formattedMessage").get("message", "")
    words = (agent.get("version", ""), agent.get("status", ""), message)
    return " ".join(str(word) for word in words if word) or "an empty status"


def _within(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
