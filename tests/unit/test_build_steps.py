"""Build steps: what each kind sends into the guest, and what a failure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.build import steps
from publisher.errors import BuildError, PipelineError
from publisher.events import Event, StepOutput, StepPhase
from publisher.memory import Memory
from publisher.recipe import Recipe
from publisher.task import Task
from publisher.vm.process import Completed


class Guest:
    """Stands for a Shell: notes what it is asked, answers with `status`."""

    def __init__(self, status: int = 0, lines: tuple[str, ...] = ()) -> None:
        self.status = status
        self.lines = lines
        self.scripts: list[str] = []
        self.copied: list[tuple[object, ...]] = []

    def script(self, text: str, *, on_line: object = None, **options: object) -> Completed:
        self.scripts.append(text)
        for line in self.lines:
            on_line(line)  # type: ignore[operator]
        return Completed(self.status, self.lines)

    def copy(self, source: Path, to: str, *, mode: int | None, owner: str) -> None:
        if self.status:
            raise BuildError(f"there is no user or group {owner!r} in the guest")
        self.copied.append((source, to, mode, owner))


def recipe(*given: dict[str, object]) -> Recipe:
    return Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": given})


def run(guest: Guest, directory: Path, *given: dict[str, object]) -> list[Event]:
    told: list[Event] = []
    task = Task("build", Memory(directory / "memory"), sink=told.append)
    steps.run_all(recipe(*given), directory, guest, task)  # type: ignore[arg-type]
    return told


def test_the_three_kinds_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text("echo from a file\n")
    guest = Guest(lines=("a line",))
    told = run(
        guest,
        tmp_path,
        {"packages": ["nginx", "g++"]},
        {"run": {"file": "setup.sh"}},
        {"copy": {"from": "tree", "to": "/opt/x", "mode": "0640", "owner": "root:adm"}},
        {"run": "echo inline"},
    )
    assert "install --no-install-recommends -- nginx g++" in guest.scripts[0]
    assert guest.scripts[1:] == ["echo from a file\n", "echo inline"]
    assert guest.copied == [(tmp_path / "tree", "/opt/x", 0o640, "root:adm")]
    phases = [event.phase for event in told if isinstance(event, StepPhase)]
    assert phases[0] == "step 1/4: packages nginx g++"
    assert phases[1].startswith("step 1/4: packages nginx g++ · ")
    assert phases[1].endswith(" s")
    assert [e.line for e in told if isinstance(e, StepOutput)] == ["a line"] * 3


def test_steps_before_the_checkpoint_are_not_run_and_each_other_one_is_told(
    tmp_path: Path,
) -> None:
    guest = Guest(lines=("nginx/1.22",))
    seen: list[tuple[int, object]] = []
    steps.run_all(
        recipe({"run": "one"}, {"run": "two"}, {"name": "Version", "check": "nginx -v"}),
        tmp_path,
        guest,  # type: ignore[arg-type]
        Task("build", Memory(tmp_path / "memory")),
        first=1,
        after=lambda number, shown: seen.append((number, shown)),
    )
    assert guest.scripts == ["two", "nginx -v"]
    assert seen == [(1, None), (2, steps.Evidence("Version", "nginx -v", ("nginx/1.22",)))]


def test_a_failed_step_shows_its_status_and_last_lines(tmp_path: Path) -> None:
    lines = tuple(f"line {number}" for number in range(50))
    guest = Guest(status=100, lines=lines)
    with pytest.raises(BuildError) as caught:
        run(guest, tmp_path, {"run": "make it"}, {"run": "never"})
    error = caught.value
    assert error.key == "build.steps[0]"
    assert "step 1 (run make it) ended with status 100" in error.message
    assert error.message.endswith("  line 49")
    assert "line 30" in error.message
    assert "line 29\n" not in error.message
    assert len(guest.scripts) == 1


def test_a_step_that_fills_the_image_says_what_to_enlarge(tmp_path: Path) -> None:
    guest = Guest(status=2, lines=("tar: big: Cannot write: No space left on device",))
    with pytest.raises(BuildError) as caught:
        run(guest, tmp_path, {"run": "fill"})
    assert "build.size" in caught.value.hint


def test_a_copy_that_fails_names_its_step(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no user or group 'ghost'") as caught:
        run(Guest(status=1), tmp_path, {"copy": {"from": "a", "to": "/a", "owner": "ghost"}})
    assert caught.value.key == "build.steps[0]"


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ({"run": {"file": "missing.sh"}}, "build.steps[0].run.file"),
        ({"copy": {"from": "missing", "to": "/x"}}, "build.steps[0].copy.from"),
        ({"check": {"file": "missing.sh"}}, "build.steps[0].check.file"),
        ({"ansible": {"playbook": "missing.yml"}}, "build.steps[0].ansible.playbook"),
    ],
)
def test_a_missing_file_is_found_before_the_build(
    step: dict[str, object], key: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match="does not exist") as caught:
        steps.check_files(recipe(step), tmp_path)
    assert caught.value.key == key
