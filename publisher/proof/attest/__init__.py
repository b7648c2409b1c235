"""Attestation: signed statements that bind a disk and what was proved of it to every
image that was made of it, and the check of those against the clouds."""

from publisher.proof.attest.signing import Signing, read_signed, sign
from publisher.proof.attest.statement import Subject, statements, subjects
from publisher.proof.attest.verify import Line, verify

__all__ = [
    "Line",
    "Signing",
    "Subject",
    "read_signed",
    "sign",
    "statements",
    "subjects",
    "verify",
]
