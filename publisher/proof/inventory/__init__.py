"""The inventory: which packages a disk holds, read without booting it."""

from publisher.proof.inventory.collect import collect
from publisher.proof.inventory.component import Component, Inventory, System
from publisher.proof.inventory.documents import FORMATS, Document, document, store

__all__ = [
    "FORMATS",
    "Component",
    "Document",
    "Inventory",
    "System",
    "collect",
    "document",
    "store",
]
