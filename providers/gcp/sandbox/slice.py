"""Cuts the methods and schemas that the stand-in serves out of Google's discovery documents.

    python -m providers.gcp.sandbox.slice DOCUMENTS

DOCUMENTS is `googleapiclient/discovery_cache/documents` of google-api-python-client.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METHODS = {
    "compute.v1": [
        "disks.delete",
        "disks.get",
        "disks.insert",
        "disks.list",
        "disks.setLabels",
        "globalOperations.get",
        "globalOperations.list",
        "globalOperations.wait",
        "images.delete",
        "images.deprecate",
        "images.get",
        "images.getFromFamily",
        "images.getIamPolicy",
        "images.insert",
        "images.list",
        "images.patch",
        "images.setIamPolicy",
        "images.setLabels",
        "images.testIamPermissions",
        "instances.attachDisk",
        "instances.delete",
        "instances.get",
        "instances.getSerialPortOutput",
        "instances.insert",
        "instances.list",
        "projects.get",
        "zoneOperations.get",
        "zoneOperations.list",
        "zoneOperations.wait",
        "zones.get",
        "zones.list",
    ],
    "storage.v1": [
        "buckets.delete",
        "buckets.get",
        "buckets.insert",
        "buckets.list",
        "buckets.testIamPermissions",
        "objects.compose",
        "objects.delete",
        "objects.get",
        "objects.insert",
        "objects.list",
        "objects.patch",
    ],
}
DROPPED = ("description", "enumDescriptions", "enumDeprecated")


def strip(value: Any) -> Any:
    """Without the prose (a property may itself be called "description")."""
    if isinstance(value, dict):
        return {
            key: strip(item)
            for key, item in value.items()
            if key not in DROPPED or isinstance(item, dict)
        }
    return [strip(item) for item in value] if isinstance(value, list) else value


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def cut(document: Mapping[str, Any], methods: list[str]) -> dict[str, Any]:
    """{"revision", "methods": {name: {"parameters", "request"}}, "schemas"}: request
    bodies only, with everything that they refer to."""
    kept: dict[str, Any] = {}
    wanted: list[str] = []
    for name in methods:
        resource, method = name.split(".")
        found = document["resources"][resource]["methods"][method]
        request = found.get("request", {}).get("$ref")
        kept[name] = {"parameters": strip(found.get("parameters", {})), "request": request}
        wanted += [request] if request else []
    schemas: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in schemas:
            schemas[name] = strip(document["schemas"][name])
            wanted.extend(references(schemas[name]))
    return {
        "revision": document["revision"],
        "common": sorted(document["parameters"]),
        "methods": kept,
        "schemas": dict(sorted(schemas.items())),
    }


def main(documents: Path) -> None:
    for name, methods in METHODS.items():
        document = json.loads((documents / f"{name}.json").read_text())
        target = Path(__file__).parent / "schemas" / f"{name}.json"
        text = json.dumps(cut(document, sorted(methods)), indent=1, sort_keys=True)
        target.write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
