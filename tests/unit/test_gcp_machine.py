"""The stand-in's machines end with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from providers.gcp.sandbox.machine import Machine

SCRIPT = "#!/bin/sh\necho $$ >pid.part\nmv pid.part pid\nsleep 60 & wait\n"


def started(directory: Path) -> int:
    """The number of the process that runs the startup script in `directory`."""
    file = directory / "pid"
    for _ in range(500):
        if file.exists():
            return int(file.read_text())
        time.sleep(0.01)
    pytest.fail("the startup script did not start")


def ended(pid: int) -> bool:
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_machine_that_is_stopped_ends_its_script(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "vm", {"startup-script": SCRIPT})
    machine.start()
    pid = started(tmp_path / "vm")

    machine.stop()

    assert ended(pid)


def test_a_machine_ends_when_its_stand_in_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from providers.gcp.sandbox.machine import Machine\n"
        f"Machine(Path(sys.argv[1]), {{'startup-script': {SCRIPT!r}}}).start()\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "vm"], cwd=root) as standin:
        pid = started(tmp_path / "vm")
        standin.kill()
        standin.wait()

    assert ended(pid)
