"""The secret gate: real secrets are found wherever they lie, look-alikes are not."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from publisher.disks import raw
from publisher.errors import ProofError
from publisher.model import GIB, MIB, Disk, Extent, Finding, Severity
from publisher.proof.secrets import Known, engine, refuse, search
from publisher.proof.secrets import trace as traces
from publisher.proof.secrets.trace import Trace
from publisher.task import detached
from tests.unit.ext_disk import START, ext_disk

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


@pytest.mark.parametrize("title", LOOKALIKES)
def test_what_only_looks_like_a_secret_is_none(planted: Sequence[Finding], title: str) -> None:
    path = f"/lookalike/{list(LOOKALIKES).index(title)}.txt"
    assert [f for f in planted if path in f.evidence] == []


def test_no_finding_shows_more_than_four_characters(planted: Sequence[Finding]) -> None:
    told = json.dumps([finding.to_json() for finding in planted])
    for _, text in SECRETS.values():
        content = text.decode("latin-1") if isinstance(text, bytes) else text
        for word in content.replace('"', " ").replace("=", " ").split():
            if len(word) >= 20 and not word.startswith(("http", "machine")):
                assert word[-12:] not in told


# -- where it lies


def plant(disk: Path, offset: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)


TOKEN = checksummed("ghp").encode()


def test_an_erased_file_is_found(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/etc/hostname": "web\n"})
    plant(disk, START + 12 * MIB, b"token=" + TOKEN + b"\n")
    [finding] = secrets(found(disk, tmp_path))
    assert f"byte {12 * MIB + 6} of partition 1 (ext4), in no file" in finding.evidence
    assert "fstrim" in finding.fix


def test_slack_behind_the_end_of_a_file_is_searched(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/etc/marker": "a line that is on no other disk\n"})
    at = disk.read_bytes().index(b"a line that is on no other disk")
    plant(disk, at + 100, TOKEN)
    [finding] = secrets(found(disk, tmp_path))
    assert "/etc/marker, behind its end" in finding.evidence


def test_bytes_outside_of_partitions_are_searched(tmp_path: Path) -> None:
    disk = ext_disk(tmp_path, {"/x": "x"})
    plant(disk, 512 * 1024, b" " + TOKEN)
    [finding] = secrets(found(disk, tmp_path))
    assert f"byte {512 * 1024 + 1} of the disk, outside of partitions" in finding.evidence


@pytest.mark.parametrize("back", [1, 4, 20, 39, 40])
def test_a_border_between_chunks_hides_nothing(tmp_path: Path, back: int) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"." * (engine.CHUNK + MIB))
    plant(disk, engine.CHUNK - back, b" " + TOKEN + b" ")
    assert len(secrets(found(disk, tmp_path))) == 1


def test_a_key_longer_than_the_rest_of_a_chunk_is_read_to_its_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"\n" * (engine.CHUNK + MIB))
    plant(disk, engine.CHUNK - 100, written(RSA))
    assert [f.rule for f in secrets(found(disk, tmp_path))] == ["secrets.private-key"]


def test_the_first_and_the_last_byte_are_searched(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(TOKEN + b" " * MIB + checksummed("gho").encode())
    [finding] = secrets(found(disk, tmp_path))
    assert "(2 of them)" in finding.evidence


def test_holes_are_not_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.touch()
    plant(disk, 512 * GIB, TOKEN)
    started = time.monotonic()
    known = Disk(disk, 512 * GIB + len(TOKEN), "", (Extent(512 * GIB, len(TOKEN)),))
    assert len(secrets(search(known, Known(), detached(tmp_path / "memory")))) == 1
    assert time.monotonic() - started < 10


def test_a_disk_full_of_lookalikes_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOOKALIKES_MOST", 50)
    disk = tmp_path / "disk.raw"
    disk.write_bytes((b"ghp_" + b"a" * 36 + b" ") * 100)
    assert "secrets.unexamined" in {finding.rule for finding in found(disk, tmp_path)}


# -- what tells by its place


def test_keys_that_let_somebody_in_are_found(tmp_path: Path) -> None:
    disk = ext_disk(
        tmp_path, {"/root/.ssh/authorized_keys": public_key(), "/etc/known": public_key()}
    )
    [finding] = secrets(found(disk, tmp_path))
    assert finding.rule == "secrets.ssh-authorized-key"
    assert "/root/.ssh/authorized_keys" in finding.evidence


def test_histories_and_logins_are_found_and_empty_ones_are_not(tmp_path: Path) -> None:
    files = {
        "/etc/passwd": "svc:x:1:1::/srv/svc:/bin/sh\n",
        "/root/.bash_history": "ls\n",
        "/srv/svc/.python_history": "1\n",
        "/home/me/.config/gcloud/credentials.db": "x",
        "/home/me/.bash_history": "",
    }
    evidence = [f.evidence for f in secrets(found(ext_disk(tmp_path, files), tmp_path))]
    assert [text.rpartition(" ")[2] for text in evidence] == [
        "/home/me/.config/gcloud/credentials.db",
        "/root/.bash_history",
        "/srv/svc/.python_history",
    ]


def test_a_fix_can_be_pasted_whatever_the_file_is_called(tmp_path: Path) -> None:
    # a short file lies in its inode, right behind a checksum that may end in a letter
    disk = ext_disk(tmp_path, {"/srv/a b; reboot": b"token=" + TOKEN})
    [finding] = secrets(found(disk, tmp_path))
    assert finding.fix.startswith("sudo rm -rf '/srv/a b; reboot' in the last build step")


# -- what everybody has


def packaged(content: bytes, digest_of: bytes) -> dict[str, str | bytes]:
    digest = hashlib.md5(digest_of).hexdigest()
    return {
        "/usr/lib/demo/test.pem": content,
        "/var/lib/dpkg/info/demo.md5sums": f"{digest}  usr/lib/demo/test.pem\n",
        "/usr/lib/demo/__pycache__/test.pyc": b"\0\0" + content,
    }


def test_a_test_key_in_an_unchanged_package_is_public_also_where_it_was_compiled(
    tmp_path: Path,
) -> None:
    key = written(RSA)
    [finding] = found(ext_disk(tmp_path, packaged(key, key)), tmp_path)
    assert finding.severity is Severity.NOTE
    assert "package demo" in finding.evidence


def test_a_changed_file_of_a_package_is_no_excuse(tmp_path: Path) -> None:
    findings = found(ext_disk(tmp_path, packaged(written(RSA), b"what it was")), tmp_path)
    assert len(secrets(findings)) == 2


# -- the build's own


OWN = drawn(32) + "\n"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces whose digests cost nothing."""
    monkeypatch.setattr(traces, "COST", 2)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda value: value,
    "in hex": lambda value: value.hex().encode(),
    "in base64": base64.b64encode,
    "in base64, behind a byte": lambda value: base64.b64encode(b":" + value),
    "in base64, behind two bytes": lambda value: base64.b64encode(b"x:" + value),
    "in UTF-16": lambda value: value.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("kept", [False, True], ids=["at hand", "by its trace"])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_of_the_build_is_found_in_any_form(tmp_path: Path, form: str, kept: bool) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + FORMS[form](OWN.strip().encode()) + b"#" * 5000)
    known = Known({"secret TOKEN of build.steps[1]": OWN})
    if kept:
        stored = json.dumps([trace.to_json() for trace in known.keep()])
        for start in range(len(OWN) - 6):
            assert OWN[start : start + 5] not in stored
        known = Known(traces=[Trace.from_json(trace) for trace in json.loads(stored)])
    findings = secrets(found(disk, tmp_path, known))
    assert findings
    assert {finding.rule for finding in findings} == {"secrets.build-secret"}
    assert "secret TOKEN of build.steps[1]" in findings[0].evidence
    assert OWN.strip()[:5] not in findings[0].evidence


LINES = "\n".join(drawn(14) for _ in range(5))
"""Each too short to be looked for by itself."""


@pytest.mark.parametrize("kept", [False, True], ids=["at hand", "by its trace"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n")], ids=["CRLF", "LF"])
def test_a_secret_of_several_lines_is_found_with_other_ends_of_lines(
    tmp_path: Path, form: str, ends: tuple[str, str], kept: bool
) -> None:
    given, on_disk = (LINES.replace("\n", end) for end in ends)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + FORMS[form](on_disk.encode()) + b"#" * 5000)
    known = Known({"TOKEN": given})
    if kept:
        stored = json.dumps([trace.to_json() for trace in known.keep()])
        known = Known(traces=[Trace.from_json(trace) for trace in json.loads(stored)])
    [finding] = secrets(found(disk, tmp_path, known))
    assert finding.rule == "secrets.build-secret"
    assert "TOKEN (with other ends of lines)" in finding.evidence


def test_a_value_with_both_ends_of_lines_is_looked_for_as_it_is(tmp_path: Path) -> None:
    value = LINES.replace("\n", "\r\n", 2)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"#" * 5000 + value.encode() + b"#" * 5000)
    kept = Known({"TOKEN": value}).keep()
    [finding] = secrets(found(disk, tmp_path, Known(traces=kept)))
    assert "other ends" not in finding.evidence
    assert (kept[0].longer, kept[0].later) == (0, 0)


def test_another_value_with_the_same_start_is_not_taken_for_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes((OWN[:20] + drawn(12)).encode() * 20)
    known = Known({"TOKEN": OWN})
    assert secrets(found(disk, tmp_path, known)) == []
    assert secrets(found(disk, tmp_path, Known(traces=known.keep()))) == []


@pytest.mark.parametrize("length", [12, 15, 19, 20, 64])
def test_a_trace_finds_values_of_any_length_that_is_kept(tmp_path: Path, length: int) -> None:
    value = drawn(length)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"password=" + value.encode() + b"\n" + b"password=" * 1000)
    kept = Known({"PASSWORD": value}).keep()
    assert len(secrets(found(disk, tmp_path, Known(traces=kept)))) == 1


def test_a_value_too_short_for_a_trace_is_told_of_when_only_traces_are_left(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"hunter2hunter" * 100)
    kept = Known({"PASSWORD": "hunter2h"}).keep()
    assert [(trace.anchor, trace.digest) for trace in kept] == [("", "")]
    told = found(disk, tmp_path, Known(traces=kept))
    assert ("secrets.too-short", "PASSWORD is too short to be looked for") in {
        (finding.rule, finding.evidence) for finding in told
    }


def test_known_secrets_do_not_show_themselves_and_short_ones_are_told_of(tmp_path: Path) -> None:
    known = Known({"TOKEN": OWN, "PIN": "1234"})
    assert str(known) == repr(known) == "Known(TOKEN, PIN)"
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"1234" * 100)
    [finding] = found(disk, tmp_path, known)
    assert (finding.rule, finding.severity) == ("secrets.too-short", Severity.NOTE)


# -- the gate


def test_a_public_release_refuses_what_a_private_one_is_warned_of() -> None:
    finding = Finding("secrets.private-key", Severity.ERROR, "private key in /x", "rm /x")
    refuse([finding], public=False)
    with pytest.raises(ProofError, match="private key in /x") as caught:
        refuse([finding], public=True)
    assert caught.value.hint == "rm /x"


def test_what_is_public_anyway_does_not_stop_a_public_release() -> None:
    refuse([Finding("secrets.published", Severity.NOTE, "a test key")], public=True)
