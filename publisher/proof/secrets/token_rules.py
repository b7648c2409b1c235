"""Credentials of the clouds, tokens of services, passwords in files of settings."""

from __future__ import annotations

import re
import time

from publisher.proof.secrets import tokens
from publisher.proof.secrets.rule import Rule, Verdict, exactly, token


def _aws(window: bytes) -> Verdict | None:
    """An access key id with a secret access key near it."""
    return _pair(rb"A[KS]IA[A-Z2-7]{16}", 20, window)


def _gcp_hmac(window: bytes) -> Verdict | None:
    """An access id of Cloud Storage with its secret near it."""
    return _pair(rb"GOOG1E[A-Z2-7]{55}", 61, window)


def _pair(ident: bytes, length: int, window: bytes) -> Verdict | None:
    start = 512 - length
    found = re.compile(rb"(?<![A-Z0-9])" + ident + rb"(?![A-Z0-9])").match(window, start)
    if found is None or b"EXAMPLE" in found[0]:
        return None
    around = re.finditer(rb"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])", window)
    secret = next((m[0] for m in around if tokens.entropy(m[0]) > 4.0 and _aws_like(m[0])), None)
    return (start, length, found[0]) if secret else None


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


_IS = rb"[\"']?\s{0,4}[=:]\s{0,4}[\"']?"
_AZURE_FIX = "rotate the key of the account; use a managed identity instead"

TOKENS: tuple[Rule, ...] = (
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
        exactly(
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
        exactly(rb"\"private_key_id\":\s{0,4}\"([0-9a-f]{40})\"", tokens.random),
        "delete the key (gcloud iam service-accounts keys delete); attach the account instead",
    ),
    token("gcp-api-key", "Google API key", rb"AIza", rb"[0-9A-Za-z_-]{35}"),
    token("gcp-oauth-secret", "Google OAuth client secret", rb"GOCSPX-", rb"[0-9A-Za-z_-]{28}"),
    token("gcp-oauth-token", "Google OAuth token", rb"ya29\.", rb"[0-9A-Za-z_-]{60,2048}"),
    token(
        "gcp-oauth-token", "refresh token of Google", rb"1//0", rb"[0-9A-Za-z_-]{40,250}", least=40
    ),
    Rule(
        "gcp-hmac-key",
        "HMAC key of Google Cloud Storage with its secret",
        rb"GOOG1E[A-Z2-7]{55}",
        _gcp_hmac,
        "delete the key (gcloud storage hmac delete); use a service account instead",
        before=512,
    ),
    Rule(
        "azure-connection-string",
        "key of an Azure account",
        rb"(?:account|access|storage)_?key" + _IS + rb"[A-Za-z0-9+/]{43}",
        exactly(
            rb"(?i:account|access|storage)_?(?i:key)"
            + _IS
            + rb"([A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)(?![A-Za-z0-9+/=])",
            _azure_key,
        ),
        _AZURE_FIX,
        caseless=True,
    ),
    Rule(
        "azure-connection-string",
        "key of an Azure account, as az shows it",
        rb"\"value\":\s{0,4}\"[A-Za-z0-9+/]{86}==\"",
        exactly(rb"\"keyName\":[^{}]{1,160}\"value\":\s{0,4}\"([A-Za-z0-9+/]{86}==)\"", _azure_key),
        _AZURE_FIX,
    ),
    Rule(
        "azure-sas",
        "Azure shared access signature",
        rb"(?:[?&;\"']|\\u0026)sig=[A-Za-z0-9%+/]{40}",
        exactly(
            rb"(?:[?&;\"']|\\u0026)sig=([A-Za-z0-9%+/]{40,80}(?:%3[Dd]|=))",
            tokens.random,
            before=256,
        ),
        "rotate the key that signed it, or its stored access policy",
    ),
    Rule(
        "azure-client-secret",
        "secret of an Entra application",
        rb"[0-9]Q~[A-Za-z0-9_~.-]{31}",
        exactly(
            rb"(?<![A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34})"
            rb"(?![A-Za-z0-9_~.-])",
            tokens.random,
        ),
        "remove the secret from the application; use a managed identity instead",
    ),
    token("github-token", "GitHub token", rb"gh[opsur]_", rb"[A-Za-z0-9]{36}", tokens.checksummed),
    token("github-token", "fine-grained GitHub token", rb"github_pat_", rb"\w{22}_\w{59}"),
    token(
        "gitlab-token",
        "GitLab token",
        rb"gl(?:pat|dt|rtr?|cbt|ptt|ft|imt|ffct|wt|agent|soat|oas)-",
        rb"[A-Za-z0-9_-]{20,300}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?",
    ),
    token(
        "gitlab-token", "GitLab token of a runner", rb"GR1348941", rb"[A-Za-z0-9_-]{20}", least=20
    ),
    token(
        "slack-token",
        "Slack token that renews others",
        rb"xoxe(?:\.xox[bp])?-\d-",
        rb"[A-Za-z0-9_-]{60,400}",
    ),
    token("slack-token", "Slack token", rb"xox[abeoprs]-", rb"(?:\d-)?\d{8,14}-[A-Za-z0-9-]{10,}"),
    token("slack-token", "Slack app token", rb"xapp-", rb"\d-[A-Z0-9]+-\d+-[a-z0-9]+"),
    Rule(
        "slack-webhook",
        "Slack webhook",
        rb"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z0-9]",
        exactly(
            rb"hooks\.slack\.com/\w+/([A-Z0-9]{8,14}/[A-Za-z0-9]{8,18}/[A-Za-z0-9]{18,48})",
            tokens.random,
        ),
    ),
    token("npm-token", "npm token", rb"npm_", rb"[A-Za-z0-9]{36}", tokens.checksummed),
    token("pypi-token", "PyPI token", rb"pypi-AgE", rb"[A-Za-z0-9_-]{60,1000}"),
    token("docker-token", "Docker Hub token", rb"dckr_pat_", rb"[A-Za-z0-9_-]{27,}"),
    Rule(
        "jwt",
        "JSON Web Token that is still good",
        rb"eyJ[A-Za-z0-9_-]{10,200}\.eyJ[A-Za-z0-9_-]{5}",
        exactly(
            rb"(?<![A-Za-z0-9_-])"
            rb"(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})",
            lambda text: tokens.jwt(text, time.time()),
        ),
        after=8192,
    ),
    token("vault-token", "Vault token", rb"hv[sb]\.", rb"[A-Za-z0-9_-]{24,300}", least=24),
    token(
        "terraform-token",
        "HCP Terraform token",
        rb"[A-Za-z0-9]{14}\.atlasv1\.",
        rb"[A-Za-z0-9_=-]{60,70}",
    ),
    token("stripe-key", "Stripe key", rb"[rs]k_live_", rb"[A-Za-z0-9]{24,200}"),
    token(
        "sendgrid-key", "SendGrid key", rb"SG\.", rb"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", least=22
    ),
    token("digitalocean-token", "DigitalOcean token", rb"do[opr]_v1_", rb"[0-9a-f]{64}"),
    token(
        "openai-key",
        "OpenAI key",
        rb"sk-",
        rb"[A-Za-z0-9_-]{16,}T3BlbkFJ[A-Za-z0-9_-]{16,}",
        least=20,
    ),
    token("anthropic-key", "Anthropic key", rb"sk-ant-", rb"[a-z]+\d\d-[A-Za-z0-9_-]{80,120}"),
    token(
        "huggingface-token",
        "Hugging Face token",
        rb"hf_",
        rb"[A-Za-z]{34}",
        least=34,
        alphabet=rb"[A-Za-z]",
    ),
    token("tailscale-key", "Tailscale key", rb"tskey-[a-z]+-", rb"[A-Za-z0-9]+-[A-Za-z0-9]{20,}"),
)
