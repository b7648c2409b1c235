"""The secret gate: real secrets are found, look-alikes are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from publisher.model import Finding
from publisher.proof.secrets import Known, engine
from publisher.proof.secrets.engine import Engine
from publisher.proof.secrets.rule import Rule
from publisher.proof.secrets.rules import AUTHORIZED, RULES
from tests.unit.ext_disk import ext_disk
from tests.unit.secret_samples import (
    DRAW,
    LOOKALIKES,
    RSA,
    SECRETS,
    SWAP,
    drawn,
    found,
    public_key,
    secrets,
    written,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Finding]:
    """What is found on a disk with all SECRETS and all LOOKALIKES."""
    place = tmp_path_factory.mktemp("planted")
    files = {f"/secret/{n}.txt": text for n, (_, text) in enumerate(SECRETS.values())}
    files |= {f"/lookalike/{n}.txt": text for n, text in enumerate(LOOKALIKES.values())}
    return found(ext_disk(place, files), place)


@pytest.mark.parametrize("title", SECRETS)
def test_a_secret_is_found_with_its_file_and_a_way_out(
    planted: Sequence[Finding], title: str
) -> None:
    rule, _ = SECRETS[title]
    path = f"/secret/{list(SECRETS).index(title)}.txt"
    here = [f for f in secrets(planted) if path in f.evidence]
    assert f"secrets.{rule}" in {finding.rule for finding in here}
    assert all(finding.fix.startswith(f"sudo rm -rf {path}") for finding in here)


class Bytes:
    """A sample on a disk by itself."""

    def __init__(self, text: str | bytes) -> None:
        self._data = text if isinstance(text, bytes) else text.encode()
        self.size = len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length].ljust(length, b"\0")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.id}: {rule.title}")
def test_each_rule_finds_a_sample_of_its_own(rule: Rule) -> None:
    samples = [text for ident, text in SECRETS.values() if ident == rule.id]
    if rule is AUTHORIZED:
        samples = [public_key()]
    engine._of_rules.cache_clear()
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(engine, "RULES", (rule,))
        one = Engine(Known())
    engine._of_rules.cache_clear()
    found = [one.scan(Bytes(text), 0, engine.CHUNK) for text in samples]
    assert any(found), "write a sample for it"


@pytest.mark.parametrize("title", LOOKALIKES)
def test_what_only_looks_like_a_secret_is_none(planted: Sequence[Finding], title: str) -> None:
    path = f"/lookalike/{list(LOOKALIKES).index(title)}.txt"
    assert [f for f in planted if path in f.evidence] == []


CERTIFICATE = "-----BEGIN CERTIFICATE-----\n" + drawn(900) + "\n-----END CERTIFICATE-----\n"
AROUND: dict[str, bytes] = {
    "zeros": bytes(8192),
    "random bytes": DRAW.randbytes(4096),
    "a certificate": CERTIFICATE.encode(),
    "zeros and a certificate": bytes(9000) + CERTIFICATE.encode(),
    "a text and a certificate": b"A text that says something. " * 20 + CERTIFICATE.encode(),
}


@pytest.mark.parametrize("behind", AROUND)
def test_a_key_is_found_though_its_end_was_overwritten(tmp_path: Path, behind: str) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(SWAP + b"\n" + written(RSA)[:500] + b"\n" + AROUND[behind] + bytes(8192))
    assert [finding.rule for finding in found(disk, tmp_path)] == ["secrets.private-key"]


def test_no_finding_shows_more_than_four_characters(planted: Sequence[Finding]) -> None:
    told = json.dumps([finding.to_json() for finding in planted])
    for _, text in SECRETS.values():
        content = text.decode("latin-1") if isinstance(text, bytes) else text
        for word in content.replace('"', " ").replace("=", " ").split():
            if len(word) >= 20 and not word.startswith(("http", "machine")):
                assert word[-12:] not in told
