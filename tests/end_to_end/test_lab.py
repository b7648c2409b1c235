"""The built image in throwaway machines, saved and put back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.model import Disk
from tests.end_to_end.command import PUBLISH, Ended

pytestmark = pytest.mark.qemu


def lab(*words: str, state: Path) -> subprocess.CompletedProcess[str]:
    argv = [*PUBLISH, "lab", *words, "--state", str(state)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)


def test_a_machine_is_saved_put_back_and_leaves_no_trace(
    demo: Ended, state: Path, sealed: Disk, tmp_path: Path
) -> None:
    assert not demo.code
    before = sealed.path.stat()
    script = tmp_path / "lesson.sh"
    # what a user does in a second terminal, while the first command waits for its end
    script.write_text(f"""set -eu
lab() {{ verb=$1; shift; {sys.executable} -m publisher lab "$verb" "$@" --state {state}; }}
lab ssh web "echo memory >/dev/shm/mark; echo disk | sudo tee /root/mark"
lab save web lesson
lab ssh web "rm /dev/shm/mark; sudo rm /root/mark"
lab restore web lesson
lab ssh web "cat /dev/shm/mark; sudo cat /root/mark; date +%s"
date +%s
lab stop web
""")
    argv = [*PUBLISH, "lab", "demo", "--name", "web", "--plain", "--state", str(state)]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stderr is not None
        said = []
        for line in owner.stderr:
            said.append(line)
            if "Ctrl-C ends" in line:
                break
        done = subprocess.run(
            ["sh", str(script)], capture_output=True, text=True, check=False, timeout=600
        )
        said.append(owner.stderr.read())
    assert done.returncode == 0, (done.stderr, said)
    assert owner.returncode == 0, said
    _, memory, disk, theirs, ours = done.stdout.split()
    assert (memory, disk) == ("memory", "disk")
    assert abs(int(theirs) - int(ours)) < 30

    again = lab("--restore", "lesson", "--exec", "cat /dev/shm/mark; exit 7", state=state)
    assert again.returncode == 7, again.stderr
    assert again.stdout == "memory\n"

    assert json.loads(lab("ls", "--json", state=state).stdout)["machines"] == []
    assert lab("rm", "lesson", state=state).returncode == 0
    assert not list((state / "labs").rglob("*.qcow2"))
    after = sealed.path.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)
