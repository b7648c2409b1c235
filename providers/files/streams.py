"""The index in simplestreams' form: which released files there are, for programs.

Format: https://canonical-simplestreams.readthedocs-hosted.com/ (index:1.0, products:1.0).
It is derived: whoever changes a mark writes it anew from what the place holds.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping, Sequence
from typing import Any

from providers.files.api import Place
from providers.files.releases import Record, marked, records
from providers.files.signing import Signer
from publisher.model import Arch

DIRECTORY = "streams/v1"
INDEX = f"{DIRECTORY}/index.json"
PRODUCTS = f"{DIRECTORY}/images.json"

_ARCHITECTURES: Mapping[Arch, str] = {"x86_64": "amd64", "aarch64": "arm64"}
# Names that clients filter by (uvtool, MAAS) where there are some; others say the format.
_TYPES = {"qcow2": "disk1.img", "vhd-fixed": "vhd", "raw": "disk.raw"}


def products(released: Sequence[Record], domain: str) -> dict[str, Any]:
    """The products file without its time."""
    found: dict[str, Any] = {}
    for record in released:
        arch = _ARCHITECTURES[record.arch]
        product = found.setdefault(
            f"{domain}:{record.name}:{arch}", {"arch": arch, "os": record.name, "versions": {}}
        )
        product["versions"][record.version] = {
            "label": "release",
            "pubname": record.key,
            "items": {
                file.format: {
                    "ftype": _TYPES.get(file.format, file.format),
                    "path": f"{record.key}/{file.name}",
                    "sha256": file.sha256,
                    "size": file.size,
                }
                for file in record.files
            },
        }
    return {
        "content_id": f"{domain}:images:download",
        "datatype": "image-downloads",
        "format": "products:1.0",
        "products": found,
    }


def index(document: Mapping[str, Any]) -> dict[str, Any]:
    """The index file of one products file, without its time."""
    entry = {
        "datatype": document["datatype"],
        "format": document["format"],
        "path": PRODUCTS,
        "products": sorted(document["products"]),
    }
    return {"format": "index:1.0", "index": {document["content_id"]: entry}}


def listed(place: Place) -> frozenset[str]:
    """The names of the images that the index lists."""
    document = _parse(place.read(PRODUCTS))
    return frozenset(
        str(version.get("pubname", ""))
        for product in document.get("products", {}).values()
        for version in product.get("versions", {}).values()
    )


def refresh(place: Place, domain: str, signer: Signer | None) -> None:
    """Write the index of what is released now, unless it says so already.

    Several machines may do this at once: each looks again after it has written,
    so the last one to write has seen every mark.
    """
    while True:
        now = marked(place)
        released = [record for record in records(place) if record.key in now]
        document = products(released, domain)
        _write(place, PRODUCTS, document, signer)
        _write(place, INDEX, index(document), signer)
        if marked(place) == now:
            return


def _write(place: Place, path: str, document: dict[str, Any], signer: Signer | None) -> None:
    signed = path.removesuffix(".json") + ".sjson"
    before = _parse(place.read(path))
    before.pop("updated", None)
    if before == document and (signer is None or place.size(signed) is not None):
        return
    updated = email.utils.formatdate(place.task.clock.now())
    text = json.dumps({**document, "updated": updated}, indent=1, sort_keys=True) + "\n"
    place.write(path, text.encode())
    # Both forms in one file, or a client may see a new text with an old signature.
    if signer is not None:
        place.write(signed, signer.clear(text.encode(), place.task))
    else:
        place.remove(signed)


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(data or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
