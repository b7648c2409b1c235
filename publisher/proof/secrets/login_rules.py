"""Logins in the files of programs that remember them."""

from __future__ import annotations

from publisher.proof.secrets import tokens
from publisher.proof.secrets.rule import Rule, exactly

_SETS = rb"\s{0,4}=\s{0,4}[\"']?"
_IS = rb"[\"']?\s{0,4}[=:]\s{0,4}[\"']?"
_USER = rb"\n[ \t]{0,8}(?:user|username|login)" + _SETS + rb"\S{1,64}\s{1,8}"
_WORD = rb"[^\s\"'()\[\]\x00]"
"""What a password is written with that no program's source writes there."""
_PASSWORD = rb"pass(?:word|wd)?" + _SETS

_NETRC = (
    rb"(?:machine\s{1,6}\S{1,48}|default\s{1,6}login\s{1,6}\S{1,48})\s{1,6}"
    rb"(?:(?:login|account)\s{1,6}\S{1,48}\s{1,6}){0,2}password\s{1,6}"
)


def _in_settings(title: str, anchor: bytes, before: bytes) -> Rule:
    """A password behind `anchor`, which the search finds, and `before`, which its judge
    reads from there."""
    return Rule(
        "settings-password",
        title,
        anchor + _PASSWORD + _WORD + rb"{8}",
        exactly(
            rb"(?P<login>"
            + before
            + _PASSWORD
            + rb"(?P<secret>"
            + _WORD
            + rb"{8,128})(?=[\s\0\"']))",
            tokens.password,
        ),
    )


LOGINS: tuple[Rule, ...] = (
    Rule(
        "url-password",
        "password in a URL",
        rb"://[^\s:@/\"'<>$\x00]{1,64}:[^\s@:/\"'<>$\x00]{8,128}@[A-Za-z0-9]",
        exactly(
            rb"[a-z]:(?P<login>//[^\s:@/\"'<>$\0]{1,64}:(?P<secret>[^\s@:/\"'<>$\0]{8,128})"
            rb"@[A-Za-z0-9][A-Za-z0-9.-]+)",
            tokens.password,
        ),
    ),
    Rule(
        "netrc-password",
        "password in a netrc file",
        _NETRC + rb"[!-~]{8}",
        exactly(rb"(?P<login>" + _NETRC + rb"(?P<secret>[!-~]{8,128})(?=[\s\0]|$))", tokens.chosen),
    ),
    Rule(
        "pgpass-password",
        "password of PostgreSQL",
        rb":(?:5432|\*):[A-Za-z0-9_.*-]{1,64}:[A-Za-z0-9_.*-]{1,64}:[!-9;-~]{8}",
        exactly(
            rb"(?<![^\n\0])(?P<login>[A-Za-z0-9_.*-]{1,128}:(?:5432|\*):[A-Za-z0-9_.*-]{1,64}:"
            rb"[A-Za-z0-9_.*-]{1,64}:(?P<secret>[!-9;-~]{8,128}))(?=[\n\0\r]|$)",
            tokens.password,
        ),
    ),
    _in_settings("password in a file of settings, as of MySQL or PyPI", _USER, _USER),
    _in_settings(
        "password in the settings of a client of MySQL",
        rb"\[(?:client|mysql|mysqldump|mysqladmin|mariadb|client-mariadb)\]\s{1,8}",
        rb"\[[a-z-]+\]\s+",
    ),
    Rule(
        "docker-login",
        "login to a container registry",
        rb"\"auth\"\s{0,4}:\s{0,4}\"[A-Za-z0-9+/]{12}",
        exactly(rb"\"auth\"\s{0,4}:\s{0,4}\"([A-Za-z0-9+/]{12,512}={0,2})\"", tokens.basic),
    ),
    Rule(
        "docker-login",
        "token for a container registry",
        rb"\"(?:identity|registry)token\"\s{0,4}:\s{0,4}\"[A-Za-z0-9._~+/-]{20}",
        exactly(
            rb"\"(?:identity|registry)token\"\s{0,4}:\s{0,4}\"([A-Za-z0-9._~+/=-]{20,4096})\"",
            tokens.random,
        ),
        after=4200,
    ),
    Rule(
        "npm-token",
        "login in an npmrc file",
        rb":_(?:authToken|auth|password)\s{0,4}=\s{0,4}[\"']?[A-Za-z0-9+/._-]{16}",
        exactly(
            rb":_(?:authToken|auth|password)\s{0,4}=\s{0,4}[\"']?([A-Za-z0-9+/._-]{16,1024}={0,2})"
            rb"(?=[\s\0\"']|$)",
            tokens.random,
        ),
    ),
    Rule(
        "kubernetes-token",
        "token in a kubeconfig",
        rb"user:\s{1,32}token:\s{1,4}[\"']?[A-Za-z0-9._~+/-]{16}",
        exactly(
            rb"user:\s{1,32}token:\s{1,4}[\"']?([A-Za-z0-9._~+/=-]{16,4096})(?=[\s\0\"'])",
            tokens.random,
        ),
        after=4200,
    ),
    Rule(
        "kubernetes-token",
        "token to join a Kubernetes cluster",
        rb"token[\"']?[ :=]{1,4}[\"']?[a-z0-9]{6}\.[a-z0-9]{16}",
        exactly(
            rb"token[\"']?[ :=]{1,4}[\"']?([a-z0-9]{6}\.[a-z0-9]{16})(?![a-z0-9.])", tokens.random
        ),
    ),
)
