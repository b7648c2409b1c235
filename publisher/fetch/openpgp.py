"""OpenPGP signatures, checked by gpgv against one key file and no other keyring."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from pathlib import Path

from publisher.errors import BuildError, HostError
from publisher.task import Task
from publisher.vm import host, process

_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n"
    rb"(.*?)(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_REASONS = {
    "BADSIG": "the signature does not belong to these bytes",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "it was made with another key",
    "ERRSIG": "it can't be checked",
    "NODATA": "there is no OpenPGP signature in it",
}


def dearmor(data: bytes) -> bytes:
    """Public keys as packets, which is what gpgv reads. Raises ValueError."""
    if b"BEGIN PGP PRIVATE KEY" in data:
        raise ValueError("it holds a private key; export the public one")
    if b"-----BEGIN PGP" not in data:
        if not data or not data[0] & 0x80:  # every packet's first bit (RFC 9580, 4.2)
            raise ValueError("it holds no OpenPGP public key")
        return data
    blocks = _ARMOR.findall(data)
    try:
        keys = b"".join(base64.b64decode(b"".join(b.split()), validate=True) for b in blocks)
    except binascii.Error as error:
        raise ValueError("its armor is damaged") from error
    if not keys:
        raise ValueError("it holds no OpenPGP public key")
    return keys


def verify(signed: bytes, signature: bytes | None, key_file: Path, task: Task, what: str) -> bytes:
    """The bytes that a key of `key_file` signed: `signed` itself when `signature`
    is detached, otherwise what `signed` carries inside (clear-signed or packed).

    Signatures by unknown keys beside a good one do no harm. Raises BuildError.
    """
    if host.which("gpgv") is None:
        raise HostError(
            "gpgv is not installed: it checks OpenPGP signatures",
            hint="install the Debian package gpgv",
        )
    try:
        keys = dearmor(key_file.read_bytes())
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise BuildError(
            f"{key_file} is no key file: {said}",
            hint="export it with: gpg --export --armor FINGERPRINT",
        ) from error
    with tempfile.TemporaryDirectory(prefix="gpgv-") as name:
        home = Path(name)
        (home / "keys.gpg").write_bytes(keys)
        (home / "signed").write_bytes(signed)
        argv = ["gpgv", "--homedir", name, "--keyring", str(home / "keys.gpg")]
        argv += ["--weak-digest", "SHA1", "--status-fd", "1"]
        if signature is None:
            argv += ["--output", str(home / "content"), str(home / "signed")]
        else:
            (home / "signature").write_bytes(signature)
            argv += [str(home / "signature"), str(home / "signed")]
        ended = process.run(argv, task)
        status = [line.split()[1] for line in ended.tail if line.startswith("[GNUPG:] ")]
        if "GOODSIG" not in status or "VALIDSIG" not in status or "BADSIG" in status:
            reason = next((text for code, text in _REASONS.items() if code in status), "")
            last = ended.tail[-1] if ended.tail else f"gpgv ended with status {ended.status}"
            raise BuildError(
                f"the signature of {what} is not good: {reason or last}",
                hint=f"{key_file} must hold the key of those who publish the file",
            )
        return signed if signature is not None else (home / "content").read_bytes()
