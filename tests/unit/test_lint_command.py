"""`publish lint` on real disk files: exit codes, reports, formats."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from publisher import provider
from publisher.errors import PipelineError, ProofError
from publisher.linting import Ignore
from publisher.model import MIB, Severity
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.storage import RawFile
from publisher.proof.lint import Report, examine, lint
from publisher.proof.sarif import document
from publisher.task import detached
from tests.unit import lint_world as world
from tests.unit.cli_fakes import Command
from tests.unit.lint_world import Files, good, good_esp

CLOUDS: list[Any] = [provider.load(name).guest(None) for name in ("aws", "gcp", "azure")]  # type: ignore[attr-defined]


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    command = Command(tmp_path, monkeypatch, capsys)
    monkeypatch.undo()
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(command.state))
    return command


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.disk_file(tmp_path_factory.mktemp("good"), good(), good_esp())


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files: Files = {**good(), "/etc/machine-id": b"0" * 32, "/root/.bash_history": b"ls\n"}
    return world.disk_file(tmp_path_factory.mktemp("broken"), files, good_esp())


def test_a_good_disk_passes(publish: Command, disk: Path) -> None:
    publish("lint", str(disk), "--for", "aws,gcp,azure")
    assert (publish.code, publish.err) == (0, "")
    assert "0 errors, 0 warnings, 1 notes" in publish.out


def test_an_error_ends_with_the_proofs_exit_code(publish: Command, broken: Path) -> None:
    publish("lint", str(broken), "--for", "aws")
    assert publish.code == ProofError.exit_code
    assert "error: identity.machine-id: the image has a machine id" in publish.out
    assert "at: /etc/machine-id:1" in publish.out
    assert "hint: empty /etc/machine-id" in publish.err


def test_what_is_ignored_does_not_fail_and_strict_lets_warnings_fail(
    publish: Command, broken: Path
) -> None:
    publish("lint", str(broken), "--ignore", "identity.machine-id")
    assert publish.code == 0
    assert "ignored: identity.machine-id" in publish.out
    publish("lint", str(broken), "--ignore", "identity.machine-id", "--strict")
    assert publish.code == ProofError.exit_code


@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vhdx", "vpc"])
def test_any_format_is_read_in_place(
    publish: Command, broken: Path, tmp_path: Path, format_: str
) -> None:
    other = tmp_path / f"disk.{format_}"
    subprocess.run(["qemu-img", "convert", "-O", format_, str(broken), str(other)], check=True)
    publish("lint", str(other), "--for", "aws", "--json")
    told = json.loads(publish.out.rpartition("\n}\n")[0] + "\n}")
    assert "identity.machine-id" in [finding["rule"] for finding in told["findings"]]


def test_a_packed_disk_is_unpacked(publish: Command, broken: Path, tmp_path: Path) -> None:
    packed = tmp_path / "disk.raw.gz"
    with packed.open("wb") as file:
        subprocess.run(["gzip", "-1", "-c", str(broken)], stdout=file, check=True)
    assert publish("lint", str(packed)).code == ProofError.exit_code
    assert not list((publish.state / "scratch").iterdir()), "nothing is left behind"


def test_a_rule_is_explained_and_all_are_listed(publish: Command) -> None:
    publish("lint", "--explain", "aws.nvme-timeout")
    assert "https://docs.aws.amazon.com/ebs/" in publish.out
    assert "fix: add nvme_core.io_timeout" in publish.out
    listed = publish("lint", "--rules").out
    assert all(name in listed for name in ("disk.root", "aws.console", "gcp.features"))
    assert publish("lint", "--explain", "aws.nvme-timout").code == 2
    assert "aws.nvme-timeout" in publish.err


@pytest.mark.parametrize(
    "arguments",
    [(), ("/nowhere.raw",), ("{disk}", "--for", "oracle"), ("{disk}", "--ignore", "no.such-rule")],
    ids=["no disk", "no file", "cloud", "rule"],
)
def test_a_wrong_command_line_is_told(
    publish: Command, disk: Path, arguments: tuple[str, ...]
) -> None:
    assert publish("lint", *(a.format(disk=disk) for a in arguments)).code == 2


def report(path: Path, *ignore: Ignore) -> Report:
    budget = Budget()
    return examine(RawFile(path, budget), CLOUDS, ignore, budget)


@pytest.mark.long
def test_a_report_is_valid_sarif(publish: Command, broken: Path, tmp_path: Path) -> None:
    import jsonschema

    into = tmp_path / "lint.sarif"
    publish("lint", str(broken), "--sarif", str(into), "--ignore", "traces.history")
    told = json.loads(into.read_text())
    jsonschema.validate(told, SARIF)
    (run,) = told["runs"]
    results = {result["ruleId"]: result for result in run["results"]}
    machine_id = results["identity.machine-id"]
    place = machine_id["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "etc/machine-id", "uriBaseId": "DISK"}
    assert place["region"] == {"startLine": 1}
    assert run["tool"]["driver"]["rules"][machine_id["ruleIndex"]]["id"] == "identity.machine-id"
    assert results["traces.history"]["suppressions"][0]["kind"] == "external"
    assert {name: results[name]["level"] for name in (*LEVELS, "traces.history")} == {
        **LEVELS,
        "traces.history": "warning",
    }
    rules = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in run_rules(told)}
    assert rules["identity.machine-id"] == "error"
    assert rules["gcp.nvme-driver"] == "warning"
    assert rules["cloud-init.network"] == "note"


LEVELS = {"identity.machine-id": "error", "azure.rootdelay": "note"}


def run_rules(told: dict[str, Any]) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = told["runs"][0]["tool"]["driver"]["rules"]
    return rules


def test_names_that_are_no_uri_are_escaped(broken: Path) -> None:
    run = document(report(broken), "my disk?.raw")["runs"][0]
    uris = {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    }
    assert not any(" " in uri or "?" in uri for uri in uris)


def test_a_pipeline_that_ignores_a_rule_gets_a_note(broken: Path, tmp_path: Path) -> None:
    from publisher.model import Disk

    accepted = Ignore(rule="identity.machine-id", reason="a golden image", path="/etc/machine-id")
    task = detached(tmp_path)
    found = lint(Disk(broken, broken.stat().st_size, "", ()), CLOUDS, [accepted], task)
    (told,) = [finding for finding in found if finding.rule == "identity.machine-id"]
    assert told.severity is Severity.NOTE
    assert "ignored: a golden image" in told.evidence
    with pytest.raises(PipelineError, match="no rule") as raised:
        lint(Disk(broken, 1, "", ()), CLOUDS, [Ignore(rule="disk.rot", reason="x")], task)
    assert raised.value.hint == 'did you mean "disk.root"?'


def test_agents_of_a_cloud_that_the_image_is_for_are_notes(tmp_path: Path) -> None:
    path = world.disk_file(tmp_path, {**good(), "/usr/sbin/waagent": b""}, good_esp())
    told = {f.rule: f.severity for f in report(path).findings}
    assert told["aws.foreign-agent"] is Severity.NOTE
    budget = Budget()
    alone = examine(RawFile(path, budget), CLOUDS[:1], (), budget)
    assert {f.rule: f.severity for f in alone.findings}["aws.foreign-agent"] is Severity.WARNING


# -- hostile disks


def test_zeros_and_noise_are_told_in_one_finding_each(tmp_path: Path) -> None:
    for name, data in (("zeros", bytes(4 * MIB)), ("noise", os.urandom(4 * MIB))):
        path = tmp_path / name
        path.write_bytes(data)
        told = report(path)
        assert told.fails()
        undecided = [f for f in told.findings if f.rule == "lint.unreadable"]
        assert len(undecided) <= 2
        assert "aws.nvme-driver" in undecided[0].evidence, "nothing passes silently"


def test_a_huge_sparse_disk_is_read_where_it_has_something(tmp_path: Path, disk: Path) -> None:
    path = tmp_path / "huge.raw"
    subprocess.run(["cp", "--sparse=always", str(disk), str(path)], check=True)
    try:
        os.truncate(path, 8 * 1024**4)
    except OSError:
        pytest.skip("the file system has no files of 8 TiB")
    told = report(path)
    assert [f.rule for f in told.findings if f.severity is Severity.WARNING] == [
        "disk.partition-table"
    ], "its backup is not at the end"


@pytest.mark.long
def test_a_bomb_of_an_initramfs_is_an_error_and_no_other_rule_suffers(tmp_path: Path) -> None:
    import gzip

    head = world.cpio(["big"])
    bomb = gzip.compress(head[:54] + b"ffffffff" + head[62:116] + bytes(64 * MIB))
    files: Files = {**good(), f"/boot/initrd.img-{world.VERSION}": bomb}
    path = world.disk_file(tmp_path, files, good_esp())
    told = report(path)
    (undecided,) = [f for f in told.findings if f.rule == "lint.unreadable"]
    assert undecided.severity is Severity.ERROR
    assert "initrd.img" in undecided.evidence
    assert "gcp.disk-driver" in undecided.evidence
    assert "boot.root" not in undecided.evidence


def _object(required: str, **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def _list(items: object) -> dict[str, object]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_MESSAGE = _object("text", text=_TEXT)
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_NUMBER = {"type": "integer", "minimum": 1}
_ARTIFACT = _object(
    "uri", uri={"type": "string", "pattern": r"^[^\s?#\\]+$"}, uriBaseId={"const": "DISK"}
)
SARIF = _object(
    "version runs",
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs=_list(
        _object(
            "tool results",
            tool=_object(
                "driver",
                driver=_object(
                    "name",
                    name=_TEXT,
                    version=_TEXT,
                    rules=_list(
                        _object(
                            "id",
                            id=_TEXT,
                            shortDescription=_MESSAGE,
                            fullDescription=_MESSAGE,
                            help=_MESSAGE,
                            helpUri={"type": "string", "format": "uri"},
                            defaultConfiguration=_object("level", level=_LEVEL),
                        )
                    ),
                ),
            ),
            originalUriBaseIds=_object("DISK", DISK=_object("", description=_MESSAGE)),
            results=_list(
                _object(
                    "message",
                    ruleId=_TEXT,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=_LEVEL,
                    message=_MESSAGE,
                    locations=_list(
                        _object(
                            "physicalLocation",
                            physicalLocation=_object(
                                "artifactLocation",
                                artifactLocation=_ARTIFACT,
                                region=_object("startLine", startLine=_NUMBER),
                            ),
                        )
                    ),
                    suppressions=_list(
                        _object(
                            "kind", kind={"enum": ["inSource", "external"]}, justification=_TEXT
                        )
                    ),
                    properties={"type": "object"},
                )
            ),
        )
    ),
)
"""What the standard says of the objects that are written here (SARIF 2.1.0, section 3)."""
