"""Attestation: signed statements that bind a disk and what was proved of it to every
image that was made of it, and the check of those against the clouds."""

from publisher.proof.attest.attested import Attested, read
from publisher.proof.attest.results import PROOFS, Result
from publisher.proof.attest.signing import Signing, read_own, read_signed, sign
from publisher.proof.attest.statement import statements
from publisher.proof.attest.subject import Subject
from publisher.proof.attest.verify import Line, verify

__all__ = [
    "PROOFS",
    "Attested",
    "Line",
    "Result",
    "Signing",
    "Subject",
    "read",
    "read_own",
    "read_signed",
    "sign",
    "statements",
    "verify",
]
