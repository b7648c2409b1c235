"""SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/), JSON."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from publisher import __version__
from publisher.proof.inventory.component import Component, Inventory
from publisher.proof.inventory.licenses import KNOWN

_URL = re.compile(r"(?:https?|ftp)://[A-Za-z0-9.-]+(?::\d+)?(?:/[^\s<>\"{}|\\^`]*)?")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


def document(
    inventory: Inventory, name: str, version: str, created: str, namespace: uuid.UUID
) -> Any:
    """`created` is an ISO 8601 time in UTC, `namespace` what the document's URI is made from."""
    disk: dict[str, Any] = {
        "SPDXID": "SPDXRef-disk",
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": inventory.digest}],
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "comment": inventory.system.title or "operating system unknown",
    }
    if version:
        disk["versionInfo"] = version
    packages = {_id(component): _package(component) for component in inventory.components}
    others = sorted({c.licenses[0] for c in inventory.components if len(c.licenses) == 1} - KNOWN)
    made: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name} {version}".strip(),
        "documentNamespace": uuid.uuid5(namespace, "spdx").urn,
        "creationInfo": {
            "created": created,
            "creators": [f"Tool: cloud-image-publisher-{__version__}"],
            "comment": "; ".join(inventory.gaps) or "nothing was left out",
        },
        "documentDescribes": ["SPDXRef-disk"],
        "packages": [disk, *packages.values()],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-disk"),
            *(_relation("SPDXRef-disk", "CONTAINS", ident) for ident in packages),
        ],
    }
    if others:
        made["hasExtractedLicensingInfos"] = [
            {
                "licenseId": _reference(name),
                "name": name,
                "extractedText": f"The package names its licence {name!r}; its text is in the "
                "package's own documentation.",
            }
            for name in others
        ]
    return made


def _relation(one: str, kind: str, other: str) -> Mapping[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _id(component: Component) -> str:
    """Readable, and unique by the package URL."""
    readable = _UNSAFE.sub("-", f"{component.kind}-{component.name}")
    return f"SPDXRef-{readable}-{uuid.uuid5(uuid.NAMESPACE_URL, component.purl).hex[:12]}"


def _reference(name: str) -> str:
    return f"LicenseRef-{_UNSAFE.sub('-', name)}-{uuid.uuid5(uuid.NAMESPACE_URL, name).hex[:8]}"


def _package(component: Component) -> Mapping[str, Any]:
    names = [name if name in KNOWN else _reference(name) for name in component.licenses]
    made: dict[str, Any] = {
        "SPDXID": _id(component),
        "name": component.name,
        "versionInfo": component.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": names[0] if len(names) == 1 else "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl,
            }
        ],
    }
    if len(component.licenses) > 1:
        # how they go together (both, or one to choose) only the text tells
        made["licenseComments"] = f"it names these: {', '.join(component.licenses)}"
    if component.supplier:
        made["supplier"] = f"Organization: {component.supplier}"
    if _URL.fullmatch(component.homepage):
        made["homepage"] = component.homepage
    if component.paths:
        made["sourceInfo"] = f"described in {', '.join(component.paths)}"
    return made
