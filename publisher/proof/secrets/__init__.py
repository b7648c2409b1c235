"""The secret gate: what must not leave with a disk, looked for in all of its bytes."""

from publisher.proof.secrets.known import Known
from publisher.proof.secrets.search import refuse, search

__all__ = ["Known", "refuse", "search"]
