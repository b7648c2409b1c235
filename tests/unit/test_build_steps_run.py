"""Scripts in the guest: interpreter, variables, directory, time limit, retries, evidence.

They really run, in a shell of this computer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from publisher.build import steps
from publisher.build.steps import Evidence
from publisher.errors import BuildError
from publisher.events import StepPhase
from tests.unit.local_guest import LocalGuest, step


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalGuest:
    return LocalGuest(tmp_path, monkeypatch, "tmpfs")


def run(guest: LocalGuest, directory: Path, **given: Any) -> tuple[steps.Outcome, list[str]]:
    said: list[str] = []
    done = steps.run(step(**given), directory, guest, said.append)
    assert done is not None
    return done, said


def test_a_script_runs_with_its_interpreter_variables_and_directory(
    guest: LocalGuest, tmp_path: Path
) -> None:
    text = "import os, sys\nprint(os.environ['WHO'], os.getcwd(), repr(sys.stdin.read()))"
    table = {
        "inline": text,
        "interpreter": "python3",
        "environment": {"WHO": "it's\n$HOME"},
        "directory": "/usr",
    }
    done, said = run(guest, tmp_path, run=table)
    assert done.status == 0
    assert said == ["it's", "$HOME /usr ''"]
    assert guest.left() == []


def test_a_script_in_a_file_takes_the_same_options(guest: LocalGuest, tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text('echo "$WHO"\nfalse | true\n')
    table = {"file": "setup.sh", "interpreter": "bash -eu -o pipefail", "environment": {"WHO": "x"}}
    done, said = run(guest, tmp_path, run=table)
    assert (done.status, said) == (1, ["x"])


def test_the_short_form_stops_at_the_first_error(guest: LocalGuest, tmp_path: Path) -> None:
    done, said = run(guest, tmp_path, run="echo one\nfalse\necho two")
    assert (done.status, said) == (1, ["one"])


def test_a_directory_that_is_missing_fails_before_the_script(
    guest: LocalGuest, tmp_path: Path
) -> None:
    done, said = run(guest, tmp_path, run={"inline": "echo ran", "directory": "/no/such"})
    assert done.status
    assert "ran" not in said


@pytest.mark.long
def test_a_time_limit_ends_the_script_with_its_children(guest: LocalGuest, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = f"sh -c 'echo $$ > {pid}; trap \"\" TERM; sleep 60; sleep 60' & echo waiting; wait"
    started = time.monotonic()
    limited = step(run={"inline": text, "timeout": 1})
    said: list[str] = []
    done = steps.run(limited, tmp_path, guest, said.append)
    assert time.monotonic() - started < 20
    assert done is not None
    assert done.late
    error = steps.failure(2, limited, done)
    assert error.key == "build.steps[2].run.timeout"
    assert "took longer than 1 s and was killed with all that it had started" in error.message
    assert "  waiting" in error.message
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not state.exists() or ") Z " in state.read_text()
    assert guest.left() == []


def test_a_script_that_fails_in_time_is_not_called_late(guest: LocalGuest, tmp_path: Path) -> None:
    done, said = run(guest, tmp_path, run={"inline": "echo quick; exit 124", "timeout": "1min"})
    assert (done.status, done.late, said) == (124, False, ["quick"])
    again, _ = run(guest, tmp_path, run={"inline": "true", "timeout": 60})
    assert again.status == 0


def test_a_script_is_tried_again_as_often_as_it_says(guest: LocalGuest, tmp_path: Path) -> None:
    text = f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3"
    done, _ = run(guest, tmp_path, run={"inline": text, "retries": 5, "pause": 0})
    assert done.status == 0
    assert len((tmp_path / "tries").read_text().split()) == 3
    phases = [event.phase for event in guest.told if isinstance(event, StepPhase)]
    assert phases[0] == "attempt 1 of 6 ended with status 1: again in 0 s"
    done, _ = run(guest, tmp_path, run={"inline": "exit 7", "retries": 1, "pause": 0})
    assert done.status == 7
    assert sum("exit 7" not in c and "publisher-script" in c for c in guest.commands) == 5


def test_a_check_that_succeeds_is_evidence(guest: LocalGuest, tmp_path: Path) -> None:
    done, said = run(guest, tmp_path, check="echo nginx/1.22\necho ok", name="Version")
    assert done.evidence == Evidence("Version", "echo nginx/1.22\necho ok", ("nginx/1.22", "ok"))
    assert said == ["nginx/1.22", "ok"]
    text = f"test -e {tmp_path}/seen || {{ touch {tmp_path}/seen; echo early; exit 1; }}; echo ok"
    done, said = run(guest, tmp_path, check={"inline": text, "retries": 1, "pause": 0})
    assert said == ["early", "ok"]
    assert done.evidence is not None
    assert done.evidence.lines == ("ok",)
    failed, _ = run(guest, tmp_path, check="echo bad; exit 3")
    assert (failed.status, failed.evidence) == (3, None)
    plain, _ = run(guest, tmp_path, run="echo no evidence")
    assert plain.evidence is None


def test_only_a_check_leaves_the_machine_as_it_was() -> None:
    assert not step(check="true").changes
    assert step(run="true").changes


class Rebooting(LocalGuest):
    rebooted = 0

    def reboot(self) -> None:
        self.rebooted += 1


def test_reboot_restarts_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Rebooting(tmp_path, monkeypatch, "tmpfs")
    assert steps.run(step(reboot=True), tmp_path, guest, lambda _: None) is None
    assert guest.rebooted == 1


def test_variables_never_go_to_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = LocalGuest(tmp_path, monkeypatch, "ext2/ext3")
    table = {"inline": "true", "environment": {"WHO": "x"}}
    with pytest.raises(BuildError, match="/run is on the guest's disk"):
        run(guest, tmp_path, run=table)
    assert guest.left() == []


def test_variables_never_go_where_memory_is_swapped_out(guest: LocalGuest, tmp_path: Path) -> None:
    table = {"inline": "true", "environment": {"WHO": "x"}}
    guest.swaps.write_text("Filename Type\n/dev/zram0 partition\n")
    assert run(guest, tmp_path, run=table)[0].status == 0
    guest.swaps.write_text("Filename Type\n/dev/zram0 partition\n/swapfile file\n")
    with pytest.raises(BuildError, match="swaps to its disk") as caught:
        run(guest, tmp_path, run=table)
    assert "swapoff" in caught.value.hint
    assert guest.left() == []
