"""CycloneDX 1.6 (ECMA-424), JSON: https://cyclonedx.org/docs/1.6/json/"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from publisher import __version__
from publisher.proof.inventory.component import Component, Inventory
from publisher.proof.inventory.licenses import KNOWN

_IRI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s<>\"{}|\\^`]+")


def bom(inventory: Inventory, name: str, version: str, created: str, namespace: uuid.UUID) -> Any:
    """`created` is an ISO 8601 time in UTC, `namespace` what the serial is made from."""
    system = inventory.system
    disk: dict[str, Any] = {
        "type": "file",
        "bom-ref": f"disk:sha256:{inventory.digest}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": inventory.digest}],
        "properties": [{"name": "publisher:size", "value": str(inventory.size)}],
    }
    if version:
        disk["version"] = version
    components = [_component(component) for component in inventory.components]
    if system.id:
        components.insert(0, _system(inventory))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(namespace, "cyclonedx").urn,
        "version": 1,
        "metadata": {
            "timestamp": created,
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "cloud-image-publisher",
                        "version": __version__,
                    }
                ]
            },
            "component": disk,
            "properties": [{"name": "publisher:gap", "value": gap} for gap in inventory.gaps],
        },
        "components": components,
        "compositions": [
            {
                "aggregate": "incomplete" if inventory.gaps else "complete",
                "assemblies": [disk["bom-ref"]],
            }
        ],
    }


def _system(inventory: Inventory) -> Mapping[str, Any]:
    system = inventory.system
    shown = {"name": system.id, "version": system.version, "description": system.title}
    return {
        "type": "operating-system",
        "bom-ref": f"os:{system.distro}",
        **{key: value for key, value in shown.items() if value},
    }


def _component(component: Component) -> Mapping[str, Any]:
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.supplier:
        made["supplier"] = {"name": component.supplier}
    if component.licenses:
        made["licenses"] = [{"license": _license(name)} for name in component.licenses]
    if _IRI.fullmatch(component.homepage):
        made["externalReferences"] = [{"type": "website", "url": component.homepage}]
    if component.paths:
        made["evidence"] = {"occurrences": [{"location": path} for path in component.paths]}
    return made


def _license(name: str) -> Mapping[str, str]:
    return {"id": name} if name in KNOWN else {"name": name}
