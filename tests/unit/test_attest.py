"""Attestation: what is signed, by whom, and whether the clouds still agree."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from publisher import manifest, provider
from publisher.attesting import Attest
from publisher.cli.main import run
from publisher.disks import raw
from publisher.errors import HostError, ProofError, UsageError
from publisher.manifest import Flavour, Manifest
from publisher.model import MIB, Audience, Disk, Image, Spec, Upload
from publisher.proof.attest import Line, Signing, Subject, read, read_signed, sign, statements
from publisher.proof.attest import verify as look
from publisher.proof.attest.statement import PROOF, PROVENANCE, payload
from publisher.proof.attest.verify import refuse
from publisher.task import detached
from tests.unit import nimbus

SHARED = Audience("shared", ("111", "222"))
PASSPHRASE = "open sesame"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"boot" * 1000 + bytes(2 * MIB - 4000))
    return raw.inspect(path)


@pytest.fixture(autouse=True)
def clouds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nimbus, "CLOUDS", {})
    monkeypatch.setattr(provider, "names", lambda: list(nimbus.PROVIDERS))
    monkeypatch.setattr(provider, "load", lambda name: nimbus.PROVIDERS[name])
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def release(disk: Disk, tmp_path: Path) -> Manifest:
    """Images in two regions of one cloud and in another cloud."""
    images: list[Image] = []
    spec = Spec("web", "1.0.0", size=disk.size, digest=disk.sha256)
    task = detached(tmp_path / "memory")
    for name, kind in (("nimbus", nimbus.Nimbus), ("stratus", nimbus.Stratus)):
        made = kind(nimbus.NimbusOptions(name=name, regions=("north", "south")))
        made.upload(disk, spec, task)
        image = made.register(Upload(name, "north", disk.sha256, disk.sha256), spec, task)
        copies = made.copy(image, ["north", "south"] if name == "nimbus" else ["north"], task)
        for copy in copies:
            made.release(copy, SHARED, task)
            images.append(dataclasses.replace(copy, audience=SHARED))
    flavour = Flavour(
        "web",
        "x86_64",
        "uefi",
        disk.sha256,
        disk.size,
        disk.data_bytes,
        source={"disk": {"file": "base.qcow2", "sha256": "a" * 64}},
        references=tuple(dict.fromkeys(image.reference for image in images)),
        proofs={"lint": {"findings": []}, "secrets": {"findings": []}},
    )
    return Manifest("web", "1.0.0", "run1", "2026-01-01T00:00:00Z", (flavour,), tuple(images))


@pytest.fixture
def signer(tmp_path: Path) -> Signing:
    key = ed25519.Ed25519PrivateKey.generate()
    return write_key(tmp_path / "key", key)


def write_key(
    path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: str = ""
) -> Signing:
    """PATH.pem and PATH.pub."""
    how = ser.BestAvailableEncryption(passphrase.encode()) if passphrase else ser.NoEncryption()
    secret = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, how)
    public = key.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pem").write_bytes(secret)
    path.with_suffix(".pub").write_bytes(public)
    return Signing(str(path.with_suffix(".pem")), passphrase or None)


def public(by: Signing) -> Signing:
    return Signing(str(Path(by.key).with_suffix(".pub")))


# -- what is signed


def test_both_statements_name_the_disk_and_every_image_in_every_cloud(release: Manifest) -> None:
    signed = list(statements(release))
    assert [statement["predicateType"] for statement in signed] == [PROVENANCE, PROOF]
    for statement in signed:
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert [subject["name"] for subject in statement["subject"]] == [
            "web 1.0.0",
            "nimbus:north/img0",
            "nimbus:south/img1",
            "stratus:north/img0",
        ]
        digests = {subject["digest"]["sha256"] for subject in statement["subject"]}
        assert digests == {release.flavours[0].digest}


def test_the_results_of_the_proofs_are_signed(release: Manifest) -> None:
    assert list(statements(release))[1]["predicate"]["proofs"] == (release.flavours[0].proofs)


def test_one_reference_in_several_regions_is_several_subjects(release: Manifest) -> None:
    twice = [
        dataclasses.replace(release.images[0], ref="gallery/web", region=region)
        for region in ("north", "south")
    ]
    flavour = dataclasses.replace(release.flavours[0], references=("nimbus:gallery/web",))
    other = dataclasses.replace(release, images=tuple(twice), flavours=(flavour,))
    names = [subject.name for subject in read(list(statements(other))).subjects]
    assert names == [
        "web 1.0.0",
        "nimbus:gallery/web in north",
        "nimbus:gallery/web in south",
    ]


# -- who signed


@pytest.mark.parametrize("kind", ["ed25519", "ECDSA", "with a passphrase"])
def test_what_a_key_signed_its_public_half_reads(
    release: Manifest, tmp_path: Path, kind: str
) -> None:
    made = {
        "ed25519": lambda: write_key(tmp_path / "a", ed25519.Ed25519PrivateKey.generate()),
        "ECDSA": lambda: write_key(tmp_path / "a", ec.generate_private_key(ec.SECP256R1())),
        "with a passphrase": lambda: write_key(
            tmp_path / "a", ed25519.Ed25519PrivateKey.generate(), PASSPHRASE
        ),
    }[kind]()
    signed = sign(statements(release), made)
    assert read_signed(signed, public(made)) == json.loads(json.dumps(list(statements(release))))


def test_the_envelope_is_one_that_other_tools_can_check(
    release: Manifest, signer: Signing, tmp_path: Path
) -> None:
    """DSSE's pre-authentication encoding, checked with OpenSSL."""
    line = json.loads(sign(statements(release), signer).splitlines()[0])
    body = base64.b64decode(line["payload"])
    kind = line["payloadType"].encode()
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signed.write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body))
    signature.write_bytes(base64.b64decode(line["signatures"][0]["sig"]))
    subprocess.run(
        [
            *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public(signer).key, "-rawin"),
            *("-in", signed, "-sigfile", signature),
        ],
        check=True,
        capture_output=True,
    )


def test_a_changed_statement_is_refused(release: Manifest, signer: Signing) -> None:
    first, second = sign(statements(release), signer).splitlines()
    envelope = json.loads(second)
    body = json.loads(base64.b64decode(envelope["payload"]))
    body["predicate"]["proofs"]["lint"]["findings"] = [7]
    envelope["payload"] = base64.b64encode(payload(body)).decode()
    with pytest.raises(ProofError, match="line 2: it is not signed by the key"):
        read_signed(first + b"\n" + json.dumps(envelope).encode(), public(signer))


def test_another_key_is_refused(release: Manifest, signer: Signing, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(ProofError, match="not signed by the key in"):
        read_signed(sign(statements(release), signer), public(other))


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b"[1]", b"\xff", b'{"payload": 1}'])
def test_what_is_no_attestation_is_told_of(data: bytes, signer: Signing) -> None:
    with pytest.raises(ProofError):
        read_signed(data, public(signer))


def test_a_statement_that_hides_an_image_is_refused(release: Manifest) -> None:
    fewer = dataclasses.replace(release, images=release.images[:1])
    mixed = [next(iter(statements(release))), list(statements(fewer))[1]]
    with pytest.raises(ProofError, match="name different images"):
        read(mixed)
    with pytest.raises(ProofError, match="lacks https://"):
        read(mixed[:1])


@pytest.fixture
def twofold(release: Manifest) -> Manifest:
    """A release of two disks, one for each cloud."""
    (whole,) = release.flavours
    first, second = (
        dataclasses.replace(
            whole,
            name=f"web-{cloud}",
            label=cloud,
            references=tuple(r for r in whole.references if r.startswith(cloud)),
        )
        for cloud in ("nimbus", "stratus")
    )
    return dataclasses.replace(release, flavours=(first, second))


def test_a_disk_whose_statements_are_cut_off_is_missed(twofold: Manifest) -> None:
    whole = list(statements(twofold))
    assert {s.name for s in read(whole).subjects if not s.provider} == {
        "web-nimbus 1.0.0",
        "web-stratus 1.0.0",
    }
    for left in (whole[:2], whole[2:], whole[:3]):
        with pytest.raises(ProofError, match=r"attestation of web-\w+ 1.0.0 lacks https"):
            read(left)


def test_a_disk_that_no_statement_counts_in_is_refused(twofold: Manifest) -> None:
    stated = json.loads(json.dumps(list(statements(twofold))))
    for statement in stated:
        predicate = statement["predicate"]
        definition = predicate.get("buildDefinition", {}).get("internalParameters", predicate)
        del definition["release"]["disks"][1]
    with pytest.raises(ProofError, match=r"web-stratus 1\.0\.0 is no disk of the release"):
        read(stated)


@pytest.mark.parametrize("kind", [0, 1])
def test_of_two_statements_of_one_kind_none_wins(release: Manifest, kind: int) -> None:
    whole = list(statements(release))
    with pytest.raises(ProofError, match=r"two statements of https://.* about web 1\.0\.0"):
        read([*whole, whole[kind]])


def test_proofs_of_another_run_do_not_go_with_a_provenance(release: Manifest) -> None:
    other = dataclasses.replace(release, run="run2")
    mixed = [next(iter(statements(release))), list(statements(other))[1]]
    with pytest.raises(ProofError, match="not of one release and one run"):
        read(mixed)


def test_a_disk_has_the_digest_that_its_release_names(release: Manifest) -> None:
    stated = json.loads(json.dumps(list(statements(release))))
    for statement in stated:
        statement["subject"][0]["digest"]["sha256"] = "d" * 64
        del statement["subject"][1:]
    with pytest.raises(ProofError, match="do not agree on the digest"):
        read(stated)


def test_statements_of_other_kinds_are_left_alone_and_other_documents_refused(
    release: Manifest,
) -> None:
    whole = list(statements(release))
    assert read([{**whole[0], "predicateType": "https://example.com"}, *whole]) == read(whole)
    with pytest.raises(ProofError, match="no in-toto statement"):
        read([{**whole[0], "_type": "https://in-toto.io/Statement/v0.1"}, whole[1]])
    with pytest.raises(ProofError, match="no statement about a release"):
        read([{**whole[0], "predicateType": "https://example.com"}])


def test_an_envelope_of_another_type_is_refused(release: Manifest, signer: Signing) -> None:
    """Whatever the key signed as something else is no statement."""
    from securesystemslib.dsse import Envelope

    from publisher.proof.attest import keys

    envelope = Envelope(payload(next(iter(statements(release)))), "application/json", {})
    envelope.sign(keys.signer(signer.key, None))
    with pytest.raises(ProofError, match="holds application/json, and no in-toto statement"):
        read_signed(json.dumps(envelope.to_dict()).encode(), public(signer))


@pytest.mark.parametrize("listed", [True, False])
def test_an_image_that_is_not_of_its_disk_is_not_left_out_in_silence(
    release: Manifest, listed: bool
) -> None:
    if listed:
        strange = dataclasses.replace(release.images[0], digest="c" * 64)
        other = dataclasses.replace(release, images=(strange, *release.images[1:]))
    else:
        flavour = dataclasses.replace(release.flavours[0], references=())
        other = dataclasses.replace(release, flavours=(flavour,))
    with pytest.raises(ProofError, match=r"nimbus:north/img0 is of the disk .*nothing is signed"):
        list(statements(other))


def test_problems_with_keys_are_told_without_showing_them(
    release: Manifest, tmp_path: Path
) -> None:
    by = write_key(tmp_path / "key", ed25519.Ed25519PrivateKey.generate(), PASSPHRASE)
    assert PASSPHRASE not in repr(by)
    for wrong, message in (
        (Signing(by.key), "is encrypted"),
        (Signing(by.key, "something else"), "the passphrase is another one"),
        (Signing(public(by).key), "no private key"),
        (Signing(str(tmp_path / "none")), "cannot read the key"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            sign(statements(release), wrong)
        assert PASSPHRASE not in str(caught.value)
        assert "something else" not in str(caught.value)
    with pytest.raises(UsageError, match="only the public one is needed"):
        read_signed(b"{}", Signing(by.key))


def test_without_the_package_it_says_which_extra_brings_it(
    release: Manifest, signer: Signing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    with pytest.raises(HostError) as caught:
        sign(statements(release), signer)
    assert "cloud-image-publisher[attest]" in caught.value.hint


class Kms(BaseHTTPRequestHandler):
    """AWS KMS's GetPublicKey and Sign with one key, named "mine". (moto's Sign hashes
    again what is a digest already.)"""

    key = ec.generate_private_key(ec.SECP256R1())

    def do_POST(self) -> None:
        verb = self.headers["X-Amz-Target"].partition(".")[2]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = {"__type": "NotFoundException", "message": "no such key"}
        if asked["KeyId"] == "mine" and verb == "GetPublicKey":
            public = self.key.public_key().public_bytes(
                ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo
            )
            answer = {
                "PublicKey": base64.b64encode(public).decode(),
                "SigningAlgorithms": ["ECDSA_SHA_256"],
            }
        elif asked["KeyId"] == "mine" and verb == "Sign":
            assert (asked["MessageType"], asked["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")
            how = ec.ECDSA(Prehashed(SHA256()))
            signature = self.key.sign(base64.b64decode(asked["Message"]), how)
            answer = {"Signature": base64.b64encode(signature).decode()}
        body = json.dumps(answer).encode()
        self.send_response(400 if "__type" in answer else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kms)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "awskms:mine"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_key_in_a_kms_signs_and_never_comes_here(release: Manifest, kms: str) -> None:
    signed = sign(statements(release), Signing(kms))
    assert len(read_signed(signed, Signing(kms))) == 2
    with pytest.raises(HostError, match="can't be used"):
        sign(statements(release), Signing("awskms:none"))


def test_sigstore_wants_to_know_whose_signature() -> None:
    with pytest.raises(UsageError, match="whose signature"):
        read_signed(b"{}", Signing("sigstore"))


def test_the_section_of_a_pipeline() -> None:
    assert Attest(key="key.pem").passphrase == "PUBLISH_ATTEST_PASSPHRASE"


# -- the clouds


def lines(
    release: Manifest, tmp_path: Path, *, content: bool = False
) -> Mapping[str, tuple[str, str]]:
    """(checked, what differs) by subject."""

    def connect(subject: Subject) -> Any:
        return nimbus.PROVIDERS[subject.provider](nimbus.NimbusOptions(regions=(subject.region,)))

    named = read(list(statements(release))).subjects
    task = detached(tmp_path / "verify")
    regions = {"stratus": ["south"]}
    found = look(named, connect, task, content=content, scratch=tmp_path, regions=regions)
    return {line.subject: (line.checked, line.differs) for line in found}


NORTH = "nimbus:north/img0"


def change(**values: Any) -> None:
    """Something happens to the image in the cloud."""
    cloud = nimbus.CLOUDS["nimbus"]
    cloud.images["north/img0"] = dataclasses.replace(cloud.images["north/img0"], **values)


def test_untouched_images_are_as_signed(release: Manifest, tmp_path: Path) -> None:
    found = lines(release, tmp_path, content=True)
    assert list(found) == [NORTH, "nimbus:south/img1", "stratus:north/img0"]
    assert set(found.values()) == {("identity, stated digest, state, audience, content", "")}


@pytest.mark.parametrize(
    ("values", "differs"),
    [
        ({"digest": "c" * 64}, "its tags state the disk cccccccccccc…"),
        ({"uid": "77"}, "it is another one under the same reference: 77, not 0"),
        ({"state": "failed"}, "it is failed"),
        ({"audience": Audience("public")}, "it is public, not shared"),
        ({"audience": Audience("shared", ("111", "222", "333"))}, "it is open to 333 too"),
        ({"audience": Audience("shared", ("111",))}, "it is not open to 222"),
    ],
)
def test_what_was_changed_in_a_cloud_is_told(
    release: Manifest, tmp_path: Path, values: Mapping[str, Any], differs: str
) -> None:
    change(**values)
    found = lines(release, tmp_path)
    assert found[NORTH][1].startswith(differs)
    assert [line for line, (_, what) in found.items() if what] == [NORTH]


def test_an_image_that_is_gone_is_told(release: Manifest, tmp_path: Path) -> None:
    del nimbus.CLOUDS["nimbus"].images["north/img0"]
    assert "does not exist" in lines(release, tmp_path)[NORTH][1]


def test_a_cloud_that_does_not_answer_is_told_and_the_others_are_asked(
    release: Manifest, tmp_path: Path
) -> None:
    nimbus.fail("nimbus", "find")
    found = lines(release, tmp_path)
    assert "nimbus refuses to find" in found[NORTH][1]
    assert found["stratus:north/img0"][1] == ""


def test_bytes_that_were_exchanged_under_the_same_tags_are_seen_when_read(
    release: Manifest, tmp_path: Path
) -> None:
    held = nimbus.CLOUDS["nimbus"].bytes
    held["north/img0"] = b"evil" + held["north/img0"][4:]
    assert lines(release, tmp_path)[NORTH][1] == ""
    assert "its content has the digest" in lines(release, tmp_path, content=True)[NORTH][1]


def test_zeros_that_a_cloud_adds_are_no_difference_and_anything_else_is(
    release: Manifest, tmp_path: Path
) -> None:
    held = nimbus.CLOUDS["nimbus"].bytes
    held["north/img0"] += bytes(MIB)
    assert lines(release, tmp_path, content=True)[NORTH][1] == ""
    held["north/img0"] += b"more"
    assert "its content has the digest" in lines(release, tmp_path, content=True)[NORTH][1]


def test_what_an_old_statement_does_not_name_is_not_said_to_be_checked(
    release: Manifest, tmp_path: Path
) -> None:
    unnamed = tuple(dataclasses.replace(image, uid="") for image in release.images)
    found = lines(dataclasses.replace(release, images=unnamed), tmp_path)
    assert set(found.values()) == {("stated digest, state, audience", "")}


@pytest.mark.parametrize(("cloud", "region"), [("nimbus", "south"), ("stratus", "south")])
def test_an_image_that_passes_for_one_of_the_release_is_told(
    release: Manifest, tmp_path: Path, cloud: str, region: str
) -> None:
    """In a region of the release's images, or in another one that is looked at."""
    held = nimbus.CLOUDS[cloud].images
    evil = dataclasses.replace(held["north/img0"], ref=f"{region}/evil", region=region)
    held[evil.ref] = dataclasses.replace(evil, digest="e" * 64, audience=Audience("public"))
    held["other"] = dataclasses.replace(evil, ref=f"{region}/other", version="1.0.1")
    found = lines(release, tmp_path)
    assert [line for line, (_, what) in found.items() if what] == [f"{cloud}:{region}/evil"]
    assert found[f"{cloud}:{region}/evil"][1] == (
        "it is named web 1.0.0, and no statement names it"
    )


def test_a_difference_or_nothing_to_check_is_an_error() -> None:
    refuse([Line("a", "digest")])
    with pytest.raises(ProofError, match="a: it is gone"):
        refuse([Line("b", "digest"), Line("a", "", "it is gone")])
    with pytest.raises(ProofError, match="names no image"):
        refuse([])


# -- the command


def command(*words: str) -> int:
    return run(["attest", *words])


@pytest.fixture
def signed(release: Manifest, signer: Signing) -> Path:
    """A release in the state directory, signed."""
    path = manifest.manifest_path(Path(os.environ["PUBLISH_STATE_DIR"]), "web", "1.0.0")
    path.parent.mkdir(parents=True)
    manifest.write(release, path)
    assert command("sign", "web", "--key", signer.key) == 0
    return path.with_name("attestation.intoto.jsonl")


def test_sign_and_verify(signed: Path, signer: Signing, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command("verify", str(signed), "--key", public(signer).key, "--bytes") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"as signed {NORTH} (identity, stated digest, state, audience, content)",
        "as signed nimbus:south/img1 (identity, stated digest, state, audience, content)",
        "as signed stratus:north/img0 (identity, stated digest, state, audience, content)",
        "lint       web 1.0.0: passed",
        "secrets    web 1.0.0: passed",
        "inventory  web 1.0.0: not done",
        "rehearsals web 1.0.0: not done",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--release", "web@1.0.0"), ""),
        (("--release", "web"), ""),
        (("--release", "web@1.0.1"), "is of web@1.0.0, not of web@1.0.1"),
        (("--release", "db@1.0.0"), "is of web@1.0.0, not of db@1.0.0"),
        (("--digest", "d" * 64), "is of no disk with the digest ddd"),
        (("--require", "lint,secrets"), ""),
        (("--require", "lint,rehearsals"), "web 1.0.0: rehearsals: not done"),
    ],
)
def test_verify_is_told_what_to_expect(
    signed: Path,
    signer: Signing,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    told: str,
) -> None:
    code = command("verify", str(signed), "--key", public(signer).key, *words)
    assert code == (ProofError.exit_code if told else 0)
    out, err = capsys.readouterr()
    assert told in " ".join((out + err).split())


def test_the_digest_of_a_disk_may_be_expected(
    signed: Path, signer: Signing, release: Manifest
) -> None:
    digest = release.flavours[0].digest
    for known in (digest, f"sha256:{digest}"):
        words = ("--digest", known)
        assert command("verify", str(signed), "--key", public(signer).key, *words) == 0
    wrong = ("--require", "speed")
    assert command("verify", str(signed), "--key", public(signer).key, *wrong) == (
        UsageError.exit_code
    )


def test_a_release_is_signed_as_a_whole_also_by_the_name_of_one_image(
    twofold: Manifest, signer: Signing
) -> None:
    path = manifest.manifest_path(Path(os.environ["PUBLISH_STATE_DIR"]), "web", "1.0.0")
    path.parent.mkdir(parents=True)
    manifest.write(twofold, path)
    assert command("sign", "web-stratus", "--key", signer.key) == 0
    signed = path.with_name("attestation.intoto.jsonl").read_bytes()
    assert len(read_signed(signed, public(signer))) == 4


def test_verify_fails_with_what_differs(
    signed: Path, signer: Signing, capsys: pytest.CaptureFixture[str]
) -> None:
    change(audience=Audience("public"))
    capsys.readouterr()
    assert command("verify", str(signed), "--key", public(signer).key, "--json") == (
        ProofError.exit_code
    )
    out, err = capsys.readouterr()
    document, _ = json.JSONDecoder().raw_decode(out)
    assert [line["differs"] for line in document["images"]] == [
        "it is public, not shared",
        "",
        "",
    ]
    assert f"{NORTH}: it is public, not shared" in out + err
    assert document["release"] == {"name": "web", "version": "1.0.0"}
    assert document["proofs"]["web 1.0.0"][0] == {"proof": "lint", "passed": True, "told": "passed"}


def test_a_manifest_by_its_path_and_the_passphrase_by_its_variable(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = write_key(tmp_path / "own", ed25519.Ed25519PrivateKey.generate(), PASSPHRASE)
    made, into = str(signed.with_name("manifest.json")), tmp_path / "a.jsonl"
    assert command("sign", made, "--key", by.key, "-o", str(into)) == UsageError.exit_code
    monkeypatch.setenv("MY_WORD", PASSPHRASE)
    words: Sequence[str] = ("--passphrase", "MY_WORD", "-o", str(into))
    assert command("sign", made, "--key", by.key, *words) == 0
    assert command("verify", str(into), "--key", public(by).key) == 0
