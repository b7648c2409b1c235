"""Secrets that are nobody's, what only looks like one, and how a test searches a disk."""

from __future__ import annotations

import base64
import json
import random
import string
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

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

BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
HEX = "0123456789abcdef"


def encoded(size: int) -> str:
    return base64.b64encode(DRAW.randbytes(size)).decode()


def jks() -> bytes:
    """A Java keystore with one key, as keytool wrote it."""
    key = b"\x30\x82\x04\xbc" + DRAW.randbytes(1212)
    entry = struct.pack(">IH5sQI", 1, 5, b"alias", 0, len(key)) + key
    return struct.pack(">III", 0xFEEDFEED, 2, 1) + entry


def pkcs12() -> bytes:
    how = ser.BestAvailableEncryption(b"many words")
    return serialize_key_and_certificates(b"me", RSA, None, None, how)


SECRETS |= {
    "PKCS #12": ("private-key-keystore", pkcs12()),
    "a Java keystore": ("private-key-keystore", jks()),
    "a PEM file in base64, broken into lines": (
        "private-key-encoded",
        base64.encodebytes(written(RSA)),
    ),
    "GnuPG": (
        "private-key-gnupg",
        "Created: 20261130T035136\nKey: (private-key (ecc (curve Ed25519)(flags eddsa)(q\n"
        f"  #40{drawn(64, HEX.upper())}#)\n (d #{drawn(64, HEX.upper())}#)\n ))\n",
    ),
    "GnuPG, canonical": (
        "private-key-gnupg",
        b"(11:private-key(3:rsa(1:n257:\0%b)(1:e3:\1\0\1)(1:d256:%b)))"
        % (DRAW.randbytes(256), DRAW.randbytes(256)),
    ),
    "GnuPG with a passphrase": (
        "private-key-gnupg",
        b"(21:protected-private-key(3:rsa(1:n257:\0%b)(1:e3:\1\0\1)(9:protected"
        b"25:openpgp-s2k3-ocb-aes((4:sha18:%b8:12345678)12:%b)%b)))"
        % tuple(map(DRAW.randbytes, (256, 8, 12, 700))),
    ),
    "JSON Web Key": (
        "private-key-jwk",
        json.dumps({"kty": "EC", "crv": "P-256", "x": drawn(43), "y": drawn(43), "d": drawn(43)}),
    ),
    "JSON Web Key of RSA": (
        "private-key-jwk",
        json.dumps({"d": drawn(342), "e": "AQAB", "n": drawn(342), "p": drawn(171), "kty": "RSA"}),
    ),
    "scrypt": ("password-hash", f"passwd: $7$CU..../....{drawn(22)}${drawn(43)}\n"),
    "htpasswd": ("password-hash", f"admin:$apr1${drawn(8)}${drawn(22)}\n"),
    "md5crypt in a kickstart": ("password-hash", f"rootpw --iscrypted $1${drawn(8)}${drawn(22)}\n"),
    "Argon2": (
        "password-hash",
        f"hash: $argon2id$v=19$m=65536,t=3,p=4${drawn(22)}${drawn(43)}\n",
    ),
    "LDAP": ("password-hash", f"userPassword: {{SSHA}}{encoded(28)}\n"),
    "GRUB": (
        "password-hash",
        f"password_pbkdf2 root grub.pbkdf2.sha512.10000.{drawn(128, HEX.upper())}"
        f".{drawn(128, HEX.upper())}\n",
    ),
    "Google OAuth client": ("gcp-oauth-secret", f"GOCSPX-{drawn(28)}\n"),
    "Google OAuth": ("gcp-oauth-token", f"ya29.a0Af{drawn(180)}\n"),
    "Google's own login": (
        "gcp-oauth-token",
        json.dumps({"type": "authorized_user", "refresh_token": f"1//0{drawn(100)}"}),
    ),
    "Cloud Storage": (
        "gcp-hmac-key",
        f"gs_access_key_id = GOOG1E{drawn(55, BASE32)}\ngs_secret_access_key = {drawn(40)}\n",
    ),
    "Azure storage, by environment": (
        "azure-connection-string",
        f"AZURE_STORAGE_KEY={encoded(64)}\n",
    ),
    "Azure storage, as az shows it": (
        "azure-connection-string",
        json.dumps([{"keyName": "key1", "permissions": "FULL", "value": encoded(64)}], indent=2),
    ),
    "Azure Service Bus": (
        "azure-connection-string",
        f"Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey={encoded(32)}\n",
    ),
    "Azure SAS in JSON": (
        "azure-sas",
        f'"https://x.blob.core.windows.net/c?sv=2022-11-02\\u0026sig={drawn(43)}%3D"\n',
    ),
    "GitLab's runner": ("gitlab-token", f"glrtr-{drawn(20)}\n"),
    "GitLab's registration": ("gitlab-token", f"token: GR1348941{drawn(20)}\n"),
    "Slack app": ("slack-token", f"xapp-1-A{drawn(10, '0123456789ABCDEF')}-17-{drawn(64, HEX)}\n"),
    "Slack, to renew": ("slack-token", f"xoxe-1-{drawn(146)}\n"),
    "Slack, renewable": ("slack-token", f"xoxe.xoxp-1-{drawn(166)}\n"),
    "npm, of one's own registry": ("npm-token", f"//npm.corp/:_authToken={drawn(40)}\n"),
    "npm, of another kind": (
        "npm-token",
        f"//npm.corp/:_auth={base64.b64encode(f'me:{drawn(16)}'.encode()).decode()}\n",
    ),
    "npm's password": ("npm-token", f"//npm.corp/:_password={encoded(16)}\n"),
    "Docker Hub": ("docker-token", f"dckr_pat_{drawn(27)}\n"),
    "Docker's token": ("docker-login", json.dumps({"identitytoken": drawn(60)})),
    "Vault": ("vault-token", f"hvs.{drawn(95)}\n"),
    "Vault, short": ("vault-token", f"hvs.{drawn(24)}\n"),
    "Terraform": ("terraform-token", f"{drawn(14)}.atlasv1.{drawn(67)}\n"),
    "Stripe": ("stripe-key", f"sk_live_{drawn(24)}\n"),
    "SendGrid": ("sendgrid-key", f"SG.{drawn(22)}.{drawn(43)}\n"),
    "DigitalOcean": ("digitalocean-token", f"dop_v1_{drawn(64, HEX)}\n"),
    "OpenAI": ("openai-key", f"sk-proj-{drawn(74)}T3BlbkFJ{drawn(74)}\n"),
    "Anthropic": ("anthropic-key", f"sk-ant-api03-{drawn(93)}AA\n"),
    "Hugging Face": ("huggingface-token", f"hf_{drawn(34, string.ascii_letters)}\n"),
    "Tailscale": ("tailscale-key", f"tskey-auth-{drawn(12)}-{drawn(32)}\n"),
    "netrc in lines": (
        "netrc-password",
        f"machine api.heroku.com\n  login me@x.com\n  password {drawn(36)}\n",
    ),
    "netrc, the password first": (
        "netrc-password",
        f"machine x.org password {drawn(16)} login me\n",
    ),
    "netrc for all others": ("netrc-password", f"default login me password {drawn(16)}\n"),
    "netrc without a digit": (
        "netrc-password",
        f"machine example.net login me password {drawn(16, string.ascii_letters)}\n",
    ),
    "pgpass": ("pgpass-password", f"\ndb.corp:5432:*:app:{drawn(18)}7x\n"),
    "my.cnf": ("settings-password", f"[client]\nuser=root\npassword={drawn(16)}7x\n"),
    "my.cnf, the password first": ("settings-password", f"[client]\npassword={drawn(16)}7x\n"),
    "pypirc": ("settings-password", f"[pypi]\nusername = me\npassword = {drawn(16)}7x\n"),
    "kubeconfig": (
        "kubernetes-token",
        f"users:\n- name: a\n  user:\n    token: {drawn(40)}\n",
    ),
    "kubeadm": (
        "kubernetes-token",
        f"kubeadm join --token {drawn(6, HEX)}.{drawn(16, HEX)}\n",
    ),
}

LOOKALIKES: dict[str, str | bytes] = {
    "a marker in a program": b"-----BEGIN OPENSSH PRIVATE KEY-----\n\0\0-----END OPENSSH PRIV",
    "a key left out": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBAD...\n-----END PRIVATE KEY-----",
    "words for a key": "-----BEGIN RSA PRIVATE KEY-----\n<your key here>\n-----END RSA PRIVATE KEY",
    "half of a key": written(RSA)[:200] + b"...\n-----END PRIVATE KEY-----\n",
    "the template of a key in a program": (
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"
        b"\x30\x47\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x71\x04\x3b\x04\x39../../../lib/dns/a.c"
    ),
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
    "a public JSON Web Key": json.dumps(
        {"keys": [{"kty": "RSA", "n": drawn(342), "e": "AQAB"}, {"d": drawn(43)}]}
    ),
    "a keystore with a certificate": (
        b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\2\0\5alias" + DRAW.randbytes(900)
    ),
    "the digest of a package": json.dumps({"integrity": f"sha512-{encoded(64)}"}),
    "the manual of netrc": "machine example.com login myself password <password> or ${PASSWORD}",
    "kubeadm's manual": "kubeadm join --token abcdef.0123456789abcdef\n",
    "settings with a variable": "\nusername = me\npassword = ${PYPI_PASSWORD_2}\n",
    "a program that takes a password apart": "\nuser = split[0]\npassword = parts2[1:]\n",
    "fields between colons": "one:5432:two:three\nname:*:*:4:what is 2 long\n",
    "an npmrc with a variable": "//registry.npmjs.org/:_authToken=${NPM_TOKEN_OF_OURS_1}\n",
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
