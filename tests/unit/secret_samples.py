"""Secrets that are nobody's, what only looks like one, and how a test searches a disk."""

from __future__ import annotations

import base64
import json
import random
import string
import zlib
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from publisher.disks import raw
from publisher.model import Finding, Severity
from publisher.proof.secrets import Known, search
from publisher.task import detached

DRAW = random.Random(4)  # the same secrets in every run; they are nobody's
WORDS = string.ascii_letters + string.digits
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def drawn(count: int, alphabet: str = WORDS) -> str:
    return "".join(DRAW.choices(alphabet, k=count))


def checksummed(prefix: str) -> str:
    body = drawn(30)
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = BASE62[digit] + check
    return f"{prefix}_{body}{check}"


def written(
    key: Key,
    form: ser.PrivateFormat = ser.PrivateFormat.PKCS8,
    password: bytes = b"",
    encoding: ser.Encoding = ser.Encoding.PEM,
) -> bytes:
    how = ser.BestAvailableEncryption(password) if password else ser.NoEncryption()
    return key.private_bytes(encoding, form, how)


def jwt(**claims: object) -> str:
    def part(data: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.{drawn(86)}"


def public_key() -> str:
    data = ED.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH)
    return data.decode()


def putty() -> str:
    lines = [base64.b64encode(DRAW.randbytes(48)).decode() for _ in range(4)]
    return (
        "PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nComment: me\nPublic-Lines: 1\nAAAA\n"
        "Private-Lines: 4\n" + "\n".join(lines) + "\nPrivate-MAC: 00\n"
    )


def hashed(method: str, length: int, salt: str = "saltSALT12") -> str:
    return f"${method}${salt}${drawn(length)}"


SECRETS: dict[str, tuple[str, str | bytes]] = {
    "PKCS #8": ("private-key", written(RSA)),
    "PKCS #1": ("private-key", written(RSA, ser.PrivateFormat.TraditionalOpenSSL)),
    "SEC 1": ("private-key", written(EC, ser.PrivateFormat.TraditionalOpenSSL)),
    "Ed25519": ("private-key", written(ED)),
    "OpenSSH": ("private-key", written(ED, ser.PrivateFormat.OpenSSH)),
    "PKCS #8 with a passphrase": ("private-key", written(RSA, password=b"many words")),
    "PEM with a passphrase": (
        "private-key",
        written(RSA, ser.PrivateFormat.TraditionalOpenSSL, b"many words"),
    ),
    "PEM indented, as in YAML": (
        "private-key",
        "key: |\n    " + written(RSA).decode().replace("\n", "\n    "),
    ),
    "PEM within JSON": ("private-key", json.dumps({"private_key": written(RSA).decode()})),
    "PEM in base64": ("private-key-encoded", base64.b64encode(written(EC))),
    "PuTTY": ("private-key-putty", putty()),
    "RSA in DER": ("private-key-der", written(RSA, encoding=ser.Encoding.DER)),
    "EC in DER": ("private-key-der", written(EC, encoding=ser.Encoding.DER)),
    "Ed25519 in DER": ("private-key-der", written(ED, encoding=ser.Encoding.DER)),
    "shadow": ("password-hash", f"root:{hashed('6', 86)}:19000:0:99999:7:::\n"),
    "yescrypt": ("password-hash", f"passwd: {hashed('y$j9T', 43)}\n"),
    "a locked account's": ("password-hash", f"joe:!{hashed('5', 43)}:19000:0:99999:7:::\n"),
    "DES": ("password-hash", "old:ab8hF1kq0ZzQw:19000:0:99999:7:::\n"),
    "bcrypt": ("password-hash", f"me:$2y$10${drawn(53)}\n"),
    "AWS": (
        "aws-access-key",
        f"id = AKIA{drawn(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}\nsecret = {drawn(40)}\n",
    ),
    "AWS, the secret alone": ("aws-secret-key", f'AWS_SECRET_ACCESS_KEY="{drawn(40)}"\n'),
    "GCP": (
        "gcp-service-account",
        f'{{"type": "service_account", "private_key_id": "{drawn(40, "0123456789abcdef")}"}}',
    ),
    "Google API": ("gcp-api-key", f"key=AIza{drawn(35)}\n"),
    "Azure storage": (
        "azure-connection-string",
        "DefaultEndpointsProtocol=https;AccountName=x;AccountKey="
        + base64.b64encode(DRAW.randbytes(64)).decode(),
    ),
    "Azure SAS": (
        "azure-sas",
        f"https://x.blob.core.windows.net/c?sv=2022-11-02&sig={drawn(43)}%3D\n",
    ),
    "Entra": ("azure-client-secret", f"{drawn(3)}8Q~{drawn(34)}\n"),
    "GitHub": ("github-token", checksummed("ghp") + "\n"),
    "GitHub, fine-grained": ("github-token", f"github_pat_{drawn(22)}_{drawn(59)}\n"),
    "GitLab": ("gitlab-token", f"glpat-{drawn(20)}\n"),
    "Slack": ("slack-token", f"xoxb-{drawn(12, string.digits)}-{drawn(24)}\n"),
    "Slack webhook": (
        "slack-webhook",
        f"https://hooks.slack.com/services/T{drawn(9, '0123456789ABCDEF')}"
        f"/B{drawn(9, '0123456789ABCDEF')}/{drawn(24)}\n",
    ),
    "npm": ("npm-token", checksummed("npm") + "\n"),
    "PyPI": ("pypi-token", f"password = pypi-AgEIcHlwaS5vcmc{drawn(80)}\n"),
    "JWT": ("jwt", jwt(sub="me", exp=4_000_000_000)),
    "Docker": (
        "docker-login",
        json.dumps({"auth": base64.b64encode(f"me:{drawn(20)}".encode()).decode()}),
    ),
    "URL": ("url-password", f"https://me:{drawn(12)}7x@git.example.net/repository\n"),
    "netrc": ("netrc-password", f"machine example.net login me password {drawn(12)}7x\n"),
    "WireGuard": (
        "private-key-wireguard",
        f"PrivateKey = {base64.b64encode(DRAW.randbytes(32)).decode()}\n",
    ),
    "age": (
        "private-key-age",
        f"AGE-SECRET-KEY-1{drawn(58, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L')}\n",
    ),
}

LOOKALIKES: dict[str, str | bytes] = {
    "a marker in a program": b"-----BEGIN OPENSSH PRIVATE KEY-----\n\0\0-----END OPENSSH PRIV",
    "a key left out": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBAD...\n-----END PRIVATE KEY-----",
    "words for a key": "-----BEGIN RSA PRIVATE KEY-----\n<your key here>\n-----END RSA PRIVATE KEY",
    "half of a key": written(RSA)[:200] + b"...\n-----END PRIVATE KEY-----\n",
    "a certificate": b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(DRAW.randbytes(300)),
    "a locked account": "daemon:*:19000:0:99999:7:::\nroot:!:19000:0:99999:7:::\n",
    "AWS's example": "AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "an access key id alone": "AKIAQ7W3MZK2XH4TBV5N\n",
    "a wrong checksum": "ghp_" + drawn(36) + "\n",
    "a row of digits": "glpat-12345678901234567890\n",
    "the storage emulator's key": (
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/"
        "KBHBeksoGMGw==\n"
    ),
    "an expired token": jwt(sub="me", exp=1_500_000_000),
    "the example of a manual": jwt(some="payload"),
    "a placeholder in a URL": "https://user:password@example.com/ https://me:${PASSWORD1}@x.com\n",
    "a public key": "hosts.example.net " + public_key(),
    "a hash of a commit": "aws_secret_access_key = " + drawn(40, "0123456789abcdef") + "\n",
}


def found(disk: Path, tmp_path: Path, known: Known | None = None) -> Sequence[Finding]:
    return search(raw.inspect(disk), known or Known(), detached(tmp_path / "memory"))


def secrets(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


SWAP = bytes(4086) + b"SWAPSPACE2"
"""The start of a disk that holds swap alone: no file is to be found by its name."""


def plant(disk: Path, offset: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)
