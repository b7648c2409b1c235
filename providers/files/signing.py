"""OpenPGP signatures by gpg: its keyring (GNUPGHOME), its agent for passphrases."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from providers.files.api import NAME
from publisher.errors import CredentialsError, HostError, VerifyError
from publisher.task import Task


class Signer:
    """Signs and checks with one key, named as gpg names keys."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._fingerprint = ""

    def fingerprint(self, task: Task) -> str:
        """Of the primary key. Raises CredentialsError when gpg has no such secret key."""
        if not self._fingerprint:
            answer = _gpg(["--with-colons", "--list-secret-keys", "--", self.key], b"", task)
            lines = [line.split(":") for line in answer.stdout.decode().splitlines()]
            found = [fields[9] for fields in lines if fields[0] == "fpr"]
            primaries = sum(fields[0] == "sec" for fields in lines)
            if answer.returncode != 0 or primaries != 1:
                raise CredentialsError(
                    f"gpg has {primaries} secret keys for {self.key!r}",
                    provider=NAME,
                    key="signing_key",
                    hint="name one key of gpg --list-secret-keys; is GNUPGHOME set?",
                )
            self._fingerprint = found[0]
        return self._fingerprint

    def detached(self, data: bytes, task: Task) -> bytes:
        """An ASCII-armoured signature of the data."""
        return self._sign(["--armor", "--detach-sign"], data, task)

    def clear(self, data: bytes, task: Task) -> bytes:
        """The text with its signature around it (the .sjson of simplestreams)."""
        return self._sign(["--clearsign"], data, task)

    def _sign(self, how: Sequence[str], data: bytes, task: Task) -> bytes:
        key = self.fingerprint(task)
        answer = _gpg(["--yes", "--local-user", key, *how, "--output", "-"], data, task)
        if answer.returncode != 0 or not answer.stdout:
            raise CredentialsError(
                f"gpg could not sign with {self.key!r}: {_last_line(answer.stderr)}",
                provider=NAME,
                key="signing_key",
                hint="unlock the key in gpg-agent, or use one without a passphrase in CI",
            )
        return answer.stdout

    def verify(self, data: bytes, signature: bytes, what: str, task: Task) -> None:
        """Raises VerifyError unless this key signed exactly the data."""
        with tempfile.TemporaryDirectory(prefix="publisher-") as scratch:
            file = Path(scratch) / "signature"
            file.write_bytes(signature)
            answer = _gpg(["--status-fd", "1", "--verify", str(file), "-"], data, task)
        valid = [
            line.split()
            for line in answer.stdout.decode(errors="replace").splitlines()
            if line.startswith("[GNUPG:] VALIDSIG ")
        ]
        signers = {fields[-1] for fields in valid}
        if answer.returncode != 0 or signers != {self.fingerprint(task)}:
            raise VerifyError(f"the signature of {what} is not valid", provider=NAME)


def _gpg(arguments: Sequence[str], data: bytes, task: Task) -> subprocess.CompletedProcess[bytes]:
    task.check()
    try:
        return subprocess.run(
            ["gpg", "--batch", "--no-tty", "--quiet", *arguments],
            input=data,
            capture_output=True,
            check=False,
            timeout=120,
        )
    except FileNotFoundError as error:
        raise HostError("gpg is not installed", hint="apt install gpg") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(
            "gpg did not answer for two minutes", hint="does its agent wait for a passphrase?"
        ) from error


def _last_line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or ["no details"])[-1]
