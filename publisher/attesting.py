"""The section [attest] of a pipeline file: who signs what was proved of a release."""

from __future__ import annotations

from pydantic import Field

from publisher.section import Section

PASSPHRASE = "PUBLISH_ATTEST_PASSPHRASE"  # noqa: S105 (it names a variable)
REMOTE = ("awskms", "gcpkms", "azurekms")
"""What the name of a key in a key management service begins with."""


class Attest(Section):
    """The attestation that a run signs when the release is complete."""

    key: str = Field(
        min_length=1,
        description="Who signs: a private key in PEM, relative to this file; a key in a KMS "
        "(awskms:ID, gcpkms:NAME, azurekms://VAULT.vault.azure.net/keys/NAME); or sigstore.",
    )
    passphrase: str = Field(
        PASSPHRASE,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the passphrase of the key's file.",
    )

    @property
    def is_remote(self) -> bool:
        """Whether `key` is no file."""
        return self.key == "sigstore" or self.key.partition(":")[0] in REMOTE
