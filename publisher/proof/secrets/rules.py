"""What is looked for: an anchor that the engine finds fast, and a judge for each hit."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from publisher.proof.secrets import keys, tokens

Verdict: TypeAlias = tuple[int, int, bytes]
"""(start within the window, length, the secret itself: what tells it from others)."""
Judge: TypeAlias = Callable[[bytes], Verdict | None]

KEY = "make it where it is used (at first boot, or from the cloud's own store) and revoke this one"
REVOKE = "revoke it with its issuer; hand secrets to a step with `secrets`, which keeps them out"


@dataclass(frozen=True, slots=True)
class Rule:
    """`anchor` is a regular expression (in Hyperscan's subset of PCRE) of at most
    REACH bytes. The judge sees `before` bytes ahead of the anchor's end (zeros
    where the disk has none), and up to `after` behind it."""

    id: str
    title: str
    anchor: bytes
    judge: Judge
    fix: str = REVOKE
    before: int = 256
    after: int = 1024
    caseless: bool = False


REACH = 256
"""The longest match of an anchor."""


def _exactly(
    pattern: bytes, sound: Callable[[bytes], bool] = lambda _: True, *, before: int = 256
) -> Judge:
    """A judge for what one expression describes: its group 1 is the secret."""
    expression = re.compile(pattern, re.DOTALL)

    def judge(window: bytes) -> Verdict | None:
        for match in expression.finditer(window):
            # what ends ahead of the anchor's end was judged before
            if match.start() < before <= match.end():
                secret = match[1]
                return (match.start(1), len(secret), secret) if sound(secret) else None
        return None

    return judge


def _at(offset: int, judge: Judge, *, before: int = 256) -> Judge:
    """A judge that wants the window from `offset` bytes ahead of the anchor's end on."""

    def moved(window: bytes) -> Verdict | None:
        start = before - offset
        found = judge(window[start:])
        return (found[0] + start, found[1], found[2]) if found else None

    return moved


def _from(mark: bytes, judge: Judge, *, before: int = 256) -> Judge:
    """A judge that wants the window from the last `mark` ahead of the anchor's end on."""

    def moved(window: bytes) -> Verdict | None:
        start = window.rfind(mark, 0, before)
        found = judge(window[start:]) if start >= 0 else None
        return (found[0] + start, found[1], found[2]) if found else None

    return moved


def _token(
    ident: str,
    title: str,
    prefix: bytes,
    body: bytes,
    sound: Callable[[bytes], bool] = tokens.random,
    *,
    least: int = 8,
    alphabet: bytes = rb"[A-Za-z0-9_-]",
) -> Rule:
    """A token that tells its kind: prefix and body, and nothing else around them."""
    return Rule(
        ident,
        title,
        prefix + alphabet + b"{%d}" % least,
        _exactly(
            rb"(?<![A-Za-z0-9_])(" + prefix + body + rb")(?![A-Za-z0-9_-])", sound, before=256
        ),
    )


_HASH = (
    rb"\$(?:5\$(?:rounds=\d+\$)?[^$:\s]{0,16}\$[./A-Za-z0-9]{43}"
    rb"|6\$(?:rounds=\d+\$)?[^$:\s]{0,16}\$[./A-Za-z0-9]{86}"
    rb"|2[abxy]\$\d\d\$[./A-Za-z0-9]{53}"
    rb"|(?:g?y|7)\$[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43})"
)
_SHADOW = (
    rb"(?:^|[\n\0])[a-z_][a-z0-9_.-]{0,31}:!{0,2}(\$[1-9a-z][^:\s]{8,200}|[./A-Za-z0-9]{13})"
    rb":\d{1,6}:\d*:\d*:\d*:\d*:\d*:\d*(?=[\n\0]|$)"
)


def _aws(window: bytes) -> Verdict | None:
    """An access key id with a secret access key near it."""
    found = re.search(rb"(?<![A-Z0-9])A[KS]IA[A-Z2-7]{16}(?![A-Z0-9])", window[492:540])
    if found is None or b"EXAMPLE" in found[0]:
        return None
    around = re.finditer(rb"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])", window)
    secret = next((m[0] for m in around if tokens.entropy(m[0]) > 4.0 and _aws_like(m[0])), None)
    return (492 + found.start(), 20, found[0]) if secret else None


def _aws_like(secret: bytes) -> bool:
    """No hash in hex, no path, no example of the manual."""
    return (
        not re.fullmatch(rb"[0-9a-f]{40}|[0-9A-F]{40}", secret)
        and b"EXAMPLE" not in secret
        and secret.count(b"/") <= 6
        and any(65 <= c <= 90 for c in secret)
        and any(97 <= c <= 122 for c in secret)
        and any(48 <= c <= 57 for c in secret)
    )


def _azure_key(key: bytes) -> bool:
    # of the storage emulator, the same for everybody:
    # https://learn.microsoft.com/azure/storage/common/storage-use-azurite
    return tokens.random(key) and not key.startswith(b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50u")


def _encoded_pem(window: bytes) -> Verdict | None:
    """A PEM file in base64, as kubeconfig holds it."""
    found = re.match(rb"[A-Za-z0-9+/=]+", window)
    inner = keys.pem(keys.decode(found[0])) if found else None
    return (0, len(found[0]), inner[2]) if found and inner else None


def _public_key(key: bytes) -> bool:
    try:
        blob = base64.b64decode(key + b"=" * (-len(key) % 4), validate=True)
    except ValueError:
        return False
    return len(blob) >= 51 and blob[:3] == b"\0\0\0" and keys.various(blob, 24)


AUTHORIZED = Rule(
    "ssh-authorized-key",
    "key that may log in over SSH",
    rb"(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|"
    rb"sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) AAAA",
    _exactly(
        rb"(?:ssh-(?:rsa|dss|ed25519)|nistp(?:256|384|521)|@openssh\.com) "
        rb"(AAAA[A-Za-z0-9+/]{60,4096})",
        _public_key,
        before=256,
    ),
    "remove the file at the end of the build: the clouds bring the user's keys at first boot",
    after=4200,
)
"""Only where it stands makes it one: in authorized_keys, or in erased space."""

RULES: tuple[Rule, ...] = (
    Rule(
        "private-key",
        "private key",
        rb"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY",
        _from(b"-----BEGIN", keys.pem),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-putty",
        "private key of PuTTY",
        rb"PuTTY-User-Key-File-[123]: ",
        _from(b"PuTTY-User-Key-File-", keys.putty),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-der",
        "private RSA key in DER",
        rb"\x30\x82..\x02\x01\x00\x02(?:\x81.|\x82..)\x00[\x80-\xff]",
        _from(b"\x30\x82", keys.der_rsa),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-der",
        "private EC key in DER",
        rb"\x02\x01\x01\x04[\x20\x30\x42].{32,66}"
        rb"(?:\xa0[\x07\x0a]\x06[\x05\x08]\x2a\x86\x48\xce|\xa0\x07\x06\x05\x2b\x81\x04\x00"
        rb"|\xa1[\x44\x64]\x03[\x42\x62]\x00\x04|\xa1\x81\x89\x03\x81\x86\x00\x04)",
        _from(b"\x02\x01\x01\x04", keys.der_curve),
        KEY,
    ),
    Rule(
        "private-key-der",
        "private Ed25519 key in DER",
        rb"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65[\x6e\x70]\x04\x22\x04\x20",
        _at(16, keys.der_edwards),
        KEY,
    ),
    Rule(
        "private-key-keystore",
        "private key in a PKCS #12 keystore",
        rb"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02\xa0\x82",
        _at(13, keys.keystore),
        KEY,
        after=keys.PEM_MAX,
    ),
    Rule(
        "private-key-encoded",
        "private key in base64, as in a kubeconfig",
        rb"LS0tLS1CRUdJTi",
        _from(b"LS0tLS1CRUdJTi", _encoded_pem),
        KEY,
        after=2 * keys.PEM_MAX,
    ),
    Rule(
        "private-key-age",
        "identity of age",
        rb"AGE-SECRET-KEY-1[A-Z0-9]{58}",
        _exactly(
            rb"(AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})",
            tokens.random,
        ),
        KEY,
    ),
    Rule(
        "private-key-wireguard",
        "private key of WireGuard",
        rb"PrivateKey\s{0,4}=\s{0,4}[A-Za-z0-9+/]{43}=",
        _exactly(rb"PrivateKey\s{0,4}=\s{0,4}([A-Za-z0-9+/]{43}=)", tokens.random),
        KEY,
    ),
    Rule(
        "password-hash",
        "password hash of an account",
        rb":!{0,2}(?:\$[1-9a-z][^:\s]{8,200}|[./A-Za-z0-9]{13}):\d{1,6}:\d{0,6}:\d{0,6}:",
        _exactly(_SHADOW, before=300),
        "lock the account (passwd --lock --delete USER), or give it a key at first boot",
        before=300,
    ),
    Rule(
        "password-hash",
        "password hash",
        rb"\$(?:[567y]|gy|2[abxy])\$[^:\s]{22,}?[./A-Za-z0-9]{31}",
        _exactly(rb"(" + _HASH + rb")(?![./A-Za-z0-9])", tokens.random),
        "take it out of the file, and change the password where else it is used",
    ),
    Rule(
        "aws-access-key",
        "AWS access key with its secret",
        rb"A[KS]IA[A-Z2-7]{16}",
        _aws,
        "delete the key in IAM; give instances a role instead",
        before=512,
    ),
    Rule(
        "aws-secret-key",
        "AWS secret access key",
        rb"aws_?secret_?(?:access_?)?key[\"']?\s{0,4}[=:]\s{0,4}[\"']?[A-Za-z0-9/+]{40}",
        _exactly(
            rb"(?i:aws_?secret_?(?:access_?)?key)[\"']?\s{0,4}[=:]\s{0,4}[\"']?"
            rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
            lambda key: _aws_like(key) and tokens.random(key),
        ),
        "delete the key in IAM; give instances a role instead",
        caseless=True,
    ),
    Rule(
        "gcp-service-account",
        "key file of a Google service account",
        rb"\"private_key_id\":\s{0,4}\"[0-9a-f]{40}\"",
        _exactly(rb"\"private_key_id\":\s{0,4}\"([0-9a-f]{40})\"", tokens.random),
        "delete the key (gcloud iam service-accounts keys delete); attach the account instead",
    ),
    _token("gcp-api-key", "Google API key", rb"AIza", rb"[0-9A-Za-z_-]{35}"),
    _token("gcp-oauth-secret", "Google OAuth client secret", rb"GOCSPX-", rb"[0-9A-Za-z_-]{28}"),
    _token("gcp-oauth-token", "Google OAuth token", rb"ya29\.", rb"[0-9A-Za-z_-]{60,2048}"),
    Rule(
        "azure-connection-string",
        "Azure connection string with its key",
        rb"(?:Account|SharedAccess|Access)Key=[A-Za-z0-9+/]{43}",
        _exactly(
            rb"(?:Account|SharedAccess|Access)Key=([A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)",
            _azure_key,
        ),
        "rotate the key of the account; use a managed identity instead",
    ),
    Rule(
        "azure-sas",
        "Azure shared access signature",
        rb"[?&;\"']sig=[A-Za-z0-9%+/]{40}",
        _exactly(rb"[?&;\"']sig=([A-Za-z0-9%+/]{40,80}(?:%3[Dd]|=))", tokens.random, before=256),
        "rotate the key that signed it, or its stored access policy",
    ),
    Rule(
        "azure-client-secret",
        "secret of an Entra application",
        rb"[0-9]Q~[A-Za-z0-9_~.-]{31}",
        _exactly(
            rb"(?<![A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34})"
            rb"(?![A-Za-z0-9_~.-])",
            tokens.random,
        ),
        "remove the secret from the application; use a managed identity instead",
    ),
    _token("github-token", "GitHub token", rb"gh[opsur]_", rb"[A-Za-z0-9]{36}", tokens.checksummed),
    _token("github-token", "fine-grained GitHub token", rb"github_pat_", rb"\w{22}_\w{59}"),
    _token(
        "gitlab-token",
        "GitLab token",
        rb"gl(?:pat|dt|rt|cbt|ptt|ft|agent|soat|oas)-",
        rb"[A-Za-z0-9_-]{20,300}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?",
    ),
    _token("slack-token", "Slack token", rb"xox[abeoprs]-", rb"(?:\d-)?\d{8,14}-[A-Za-z0-9-]{10,}"),
    _token("slack-token", "Slack app token", rb"xapp-", rb"\d-[A-Z0-9]+-\d+-[a-z0-9]+"),
    Rule(
        "slack-webhook",
        "Slack webhook",
        rb"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z0-9]",
        _exactly(
            rb"hooks\.slack\.com/\w+/([A-Z0-9]{8,14}/[A-Za-z0-9]{8,18}/[A-Za-z0-9]{18,48})",
            tokens.random,
        ),
    ),
    _token("npm-token", "npm token", rb"npm_", rb"[A-Za-z0-9]{36}", tokens.checksummed),
    Rule(
        "npm-token",
        "npm token",
        rb":_authToken\s{0,4}=\s{0,4}[\"']?[A-Za-z0-9-]{36}",
        _exactly(
            rb":_authToken\s{0,4}=\s{0,4}[\"']?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
            tokens.random,
        ),
    ),
    _token("pypi-token", "PyPI token", rb"pypi-AgE", rb"[A-Za-z0-9_-]{60,1000}"),
    _token("docker-token", "Docker Hub token", rb"dckr_pat_", rb"[A-Za-z0-9_-]{27,}"),
    Rule(
        "jwt",
        "JSON Web Token that is still good",
        rb"eyJ[A-Za-z0-9_-]{10,200}\.eyJ[A-Za-z0-9_-]{5}",
        _exactly(
            rb"(?<![A-Za-z0-9_-])"
            rb"(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})",
            lambda token: tokens.jwt(token, time.time()),
        ),
        after=4096,
    ),
    Rule(
        "docker-login",
        "login to a container registry",
        rb"\"auth\"\s{0,4}:\s{0,4}\"[A-Za-z0-9+/]{12}",
        _exactly(
            rb"\"auth\"\s{0,4}:\s{0,4}\"([A-Za-z0-9+/]{12,512}={0,2})\"",
            tokens.basic,
        ),
    ),
    _token("vault-token", "Vault token", rb"hv[sb]\.", rb"[A-Za-z0-9_-]{90,300}"),
    _token("terraform-token", "HCP Terraform token", rb"\.atlasv1\.", rb"[A-Za-z0-9_=-]{60,70}"),
    _token("stripe-key", "Stripe key", rb"[rs]k_live_", rb"[A-Za-z0-9]{24,200}"),
    _token(
        "sendgrid-key", "SendGrid key", rb"SG\.", rb"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", least=22
    ),
    _token("digitalocean-token", "DigitalOcean token", rb"do[opr]_v1_", rb"[0-9a-f]{64}"),
    _token(
        "openai-key",
        "OpenAI key",
        rb"sk-",
        rb"[A-Za-z0-9_-]{16,}T3BlbkFJ[A-Za-z0-9_-]{16,}",
        least=20,
    ),
    _token("anthropic-key", "Anthropic key", rb"sk-ant-", rb"[a-z]+\d\d-[A-Za-z0-9_-]{80,120}"),
    _token(
        "huggingface-token",
        "Hugging Face token",
        rb"hf_",
        rb"[A-Za-z]{34}",
        least=34,
        alphabet=rb"[A-Za-z]",
    ),
    _token("tailscale-key", "Tailscale key", rb"tskey-[a-z]+-", rb"[A-Za-z0-9]+-[A-Za-z0-9]{20,}"),
    Rule(
        "url-password",
        "password in a URL",
        rb"://[^\s:@/\"'<>$\x00]{1,64}:[^\s@:/\"'<>$\x00]{8,64}@[A-Za-z0-9]",
        _exactly(
            rb"[a-z]://[^\s:@/\"'<>$\0]{1,64}:([^\s@:/\"'<>$\0]{8,64})@[A-Za-z0-9][A-Za-z0-9.-]",
            tokens.password,
        ),
    ),
    Rule(
        "netrc-password",
        "password in a netrc file",
        rb"machine\s{1,8}\S{1,64}\s{1,8}login\s{1,8}\S{1,64}\s{1,8}password\s{1,8}\S{8}",
        _exactly(
            rb"machine\s{1,8}\S{1,64}\s{1,8}login\s{1,8}\S{1,64}\s{1,8}password\s{1,8}(\S{8,128})",
            tokens.password,
        ),
    ),
    AUTHORIZED,
)
