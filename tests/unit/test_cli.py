"""The command line: words, options, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from publisher import __version__, errors, events, schema
from publisher.build.rescue import OnError
from publisher.cli.options import state_directory
from publisher.plan import Plan
from publisher.task import Cancellation
from tests.unit.cli_fakes import STORY, Command


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


class Engine:
    """Remembers what it was asked to run."""

    def __init__(self, *story: events.Event, error: BaseException | None = None) -> None:
        self.story = story
        self.error = error
        self.plan: Plan | None = None
        self.state: Path | None = None

    def __call__(
        self,
        plan: Plan,
        *,
        state: Path,
        sink: events.Sink,
        cancellation: Cancellation,
        on_error: OnError,
        builds: int,
    ) -> None:
        self.plan, self.state, self.on_error, self.builds = plan, state, on_error, builds
        for event in self.story:
            sink(event)
        if self.error is not None:
            raise self.error


# -- words


def test_help_imports_no_sdk_no_pydantic_and_no_rich() -> None:
    program = (
        "import sys\n"
        "from publisher.cli.main import run\n"
        "code = run(['--help'])\n"
        "slow = ('pydantic', 'rich', 'boto3', 'botocore', 'google', 'azure', 'moto', 'tenacity',"
        " 'requests', 'providers')\n"
        "print([name for name in slow if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (0, "[]")
    assert "publish FILE" in ended.stdout


COMMANDS = [
    "run",
    "build",
    "plan",
    "migrate",
    "export",
    "rehearse",
    "secrets",
    "lint",
    "inventory",
    "list",
    "show",
    "doctor",
    "sandbox",
    "cache",
    "schema",
    "attest",
    "lab",
]


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_every_help_text_fits_in_80_columns(
    words: list[str], publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert publish(*words, "--help").code == 0
    assert 0 < max(len(line) for line in publish.out.splitlines()) <= 80


def test_help_names_every_command(publish: Command) -> None:
    output = publish("--help").out
    listed = [line.split()[0] for line in output.partition("Commands:")[2].strip().splitlines()]
    assert listed == COMMANDS


def test_usage_names_arguments_plainly(publish: Command) -> None:
    assert publish("migrate", "-h").out.startswith(
        "Usage: publish migrate [OPTIONS] SOURCE TARGET...\n"
    )


def test_no_words_at_all_show_the_help(publish: Command) -> None:
    assert publish().code == 2
    assert publish.out.startswith("Usage: publish [OPTIONS] COMMAND")


def test_version(publish: Command) -> None:
    assert publish("--version").out == f"publish {__version__}\n"
    assert publish.code == 0


@pytest.mark.parametrize("words", [["run"], [], ["--plain"]])
def test_a_file_alone_is_run(publish: Command, words: list[str]) -> None:
    engine = Engine()
    publish.engine(engine)
    assert publish(*words, str(publish.file)).code == 0
    assert engine.plan is not None
    assert engine.plan.title == "web 1.2.0"
    assert engine.state == publish.state


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (
            ["rnu"],
            "error: there is no command or file 'rnu'\n  hint: did you mean \"run\"?\n",
        ),
        (
            ["qqq"],
            f"error: there is no command or file 'qqq'\n  hint: known are: {', '.join(COMMANDS)}\n",
        ),
        (["run"], "error: missing argument 'FILE'\n  hint: see publish run --help\n"),
        (
            ["run", "x.toml", "--colour"],
            "error: no such option: --colour\n  hint: see publish run --help\n",
        ),
    ],
)
def test_a_wrong_command_line_is_told_what_is_wrong(
    publish: Command, words: list[str], printed: str
) -> None:
    assert publish(*words).code == 2
    assert publish.err == printed
    assert publish.out == ""


def test_only_narrows_to_some_targets(publish: Command) -> None:
    engine = Engine()
    publish.engine(engine)
    publish("run", str(publish.file), "--only", "cirrus")
    assert engine.plan is not None
    assert {step.lane for step in engine.plan.steps} == {"build", "proof", "cirrus", "release"}


def test_only_refuses_what_is_no_target(publish: Command) -> None:
    assert publish("run", str(publish.file), "--only", "cirrus,nimbsu").code == 2
    assert publish.err == "error: there is no target 'nimbsu'\n  hint: did you mean \"nimbus\"?\n"


def test_settings_reach_the_pipeline(publish: Command) -> None:
    engine = Engine()
    publish.engine(engine)
    publish(str(publish.file), "--set", "image.version=2.0", "--set", "image.name=db")
    assert engine.plan is not None
    assert engine.plan.title == "db 2.0"


def test_the_state_directory_has_an_order_of_places(tmp_path: Path) -> None:
    home = Path.home() / ".local" / "state"
    assert state_directory(None, {}) == home / "cloud-image-publisher"
    assert state_directory(None, {"XDG_STATE_HOME": "rel"}) == home / "cloud-image-publisher"
    xdg = {"XDG_STATE_HOME": str(tmp_path)}
    assert state_directory(None, xdg) == tmp_path / "cloud-image-publisher"
    assert state_directory(None, {**xdg, "PUBLISH_STATE_DIR": "/s"}) == Path("/s")
    assert state_directory(Path("/t"), {"PUBLISH_STATE_DIR": "/s"}) == Path("/t")
    assert state_directory(Path("t"), {}) == Path.cwd() / "t"


# -- errors


def failing(publish: Command, error: BaseException, *words: str) -> Command:
    publish.engine(Engine(error=error))
    return publish("run", str(publish.file), *words)


def test_an_error_says_where_what_why_and_what_to_do(publish: Command) -> None:
    error = errors.HostError("cannot write", key="build.size", hint="free some space")
    error.__cause__ = OSError(28, "No space left on device")
    failing(publish, error)
    assert publish.code == 4
    assert publish.err == (
        "error: build.size: cannot write\n"
        "  cause: [Errno 28] No space left on device\n"
        "  hint: free some space\n"
    )


def test_a_cause_that_the_message_repeats_is_left_out(publish: Command) -> None:
    error = errors.PublishError("cannot connect: refused")
    error.__cause__ = OSError("refused")
    assert failing(publish, error).err == "error: cannot connect: refused\n"


def test_a_clouds_error_names_the_cloud(publish: Command) -> None:
    error = errors.CredentialsError("no credentials found", provider="aws", hint="log in")
    assert failing(publish, error).code == 8
    assert publish.err == "error: aws: no credentials found\n  hint: log in\n"


def test_a_guest_that_does_not_boot_shows_phase_and_console(publish: Command) -> None:
    console = "\n".join(f"line {number}" for number in range(30))
    error = errors.BootError("the guest did not boot", phase="kernel", console=console)
    assert failing(publish, error).code == 5
    assert publish.err.startswith("error: the guest did not boot\n  phase: kernel\n  | line 15\n")
    assert publish.err.endswith("  | line 29\n")


@pytest.mark.parametrize(
    "kind",
    [
        errors.PublishError,
        errors.UsageError,
        errors.PipelineError,
        errors.HostError,
        errors.BuildError,
        errors.ProofError,
        errors.ProviderError,
        errors.CredentialsError,
        errors.UnreachableError,
        errors.ConflictError,
        errors.QuotaError,
        errors.VerifyError,
        errors.StateError,
        errors.Cancelled,
    ],
)
def test_every_class_of_error_has_its_exit_code(
    publish: Command, kind: type[errors.PublishError]
) -> None:
    assert failing(publish, kind("x")).code == kind.exit_code
    assert "Traceback" not in publish.err


def test_a_bad_pipeline_is_reported_with_its_key_path(publish: Command) -> None:
    publish.file.write_text(publish.file.read_text().replace('name = "web"', 'nmae = "web"'))
    assert publish(str(publish.file)).code == 3
    assert publish.err == (
        "error: 2 problems in pipeline.toml:\n"
        "    image.name: is required "
        "(Name of the image; with the version it identifies a release in every cloud.)\n"
        '    image.nmae: unknown key (did you mean "name"?)\n'
    )


def test_a_name_that_a_cloud_refuses_is_reported_before_anything_runs(publish: Command) -> None:
    engine = Engine()
    publish.engine(engine)
    publish(str(publish.file), "--set", "image.name=a-name-that-is-long")
    assert publish.code == 3
    assert publish.err == (
        "error: targets.nimbus.name: 'a-name-that-is-long-1.2.0' is longer than 20 characters\n"
        "  hint: choose a shorter name\n"
    )
    assert engine.plan is None


def test_a_missing_local_file_is_reported_with_its_key_path(publish: Command) -> None:
    step = "[[build.steps]]\nrun = { file = 'setup.sh' }\n"
    publish.file.write_text(publish.file.read_text() + step)
    assert publish("plan", str(publish.file)).code == 3
    looked = publish.file.parent / "setup.sh"
    assert publish.err == (
        "error: build.steps[0].run.file: setup.sh does not exist\n"
        f"  hint: paths are relative to the pipeline file: looked for {looked}\n"
    )


def test_an_unforeseen_error_is_one_line_and_no_traceback(publish: Command) -> None:
    failing(publish, RuntimeError("boom\nmore"))
    assert publish.code == 70
    assert publish.err == (
        "error: RuntimeError: boom\n"
        "  hint: this is a bug in cloud-image-publisher; run with --debug and report it\n"
    )


def test_debug_shows_the_traceback(publish: Command) -> None:
    failing(publish, RuntimeError("boom"), "--debug")
    assert publish.code == 70
    assert "Traceback (most recent call last)" in publish.err
    assert publish.err.endswith("run with --debug and report it\n")


def test_json_ends_with_the_error_as_a_line(publish: Command) -> None:
    failing(publish, errors.QuotaError("full", key="targets.x", hint="wait", code="E1"), "--json")
    line = json.loads(publish.out)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "event": "Error",
        "error": "QuotaError",
        "key": "targets.x",
        "message": "full",
        "hint": "wait",
        "code": "E1",
        "exit_code": 11,
    }


def test_in_actions_an_error_before_the_run_is_annotated(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    publish("no.toml")
    assert publish.out == (
        "::error::no.toml does not exist%0A  hint: give the path of a pipeline file\n"
    )


def test_ctrl_c_outside_a_run_ends_with_130(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "schema", interrupt)
    assert publish("schema").code == 130


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"]])
def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = f"from publisher.cli.main import main; main({words!r})"
    with os.fdopen(writing, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=pipe,
            stderr=subprocess.PIPE,
            env={**os.environ, "PUBLISH_STATE_DIR": str(tmp_path)},
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, b"")


# -- commands


def test_run_prints_references_and_manifest(publish: Command) -> None:
    publish.engine(Engine(*STORY))
    assert publish("run", str(publish.file)).code == 0
    assert publish.out == (
        "web 1.2.0: published in 6 min 12 s\n"
        "nimbus:north/img-1\n"
        "cirrus:demo/web-1-2-0\n"
        "manifest: /state/manifest.json\n"
    )


def test_a_second_run_says_up_to_date(publish: Command) -> None:
    publish.engine(
        Engine(STORY[0], events.RunFinished("run-1", 2.1, (), "/state/manifest.json", reused=True))
    )
    publish("run", str(publish.file))
    assert publish.out.splitlines()[0] == "web 1.2.0: up to date, checked in 2.1 s"


def test_plan_shows_steps_actions_and_reasons_and_touches_nothing(publish: Command) -> None:
    assert publish("plan", str(publish.file), "--only", "cirrus").code == 0
    assert publish.out.splitlines() == [
        "web 1.2.0",
        "",
        "step             action  reason",
        "cirrus.check     check   always done before what follows",
        "build            run     not done yet",
        "  boot           run     not built yet",
        "secrets          run     not done yet",
        "inventory        run     not done yet",
        "cirrus.upload    run     not done yet",
        "cirrus.register  run     not done yet",
        "cirrus.copy      run     not done yet",
        "cirrus.verify    run     not done yet",
        "barrier          run     always done before what follows",
        "cirrus.release   run     not done yet",
        "",
        "9 to run, 0 to reuse",
    ]
    assert not publish.state.exists()


def test_plan_as_json(publish: Command) -> None:
    publish("plan", str(publish.file), "--json")
    document = json.loads(publish.out)
    assert (document["title"], document["name"], document["version"]) == (
        "web 1.2.0",
        "web",
        "1.2.0",
    )
    parts = document["steps"][2].pop("parts")
    assert parts[0] == {"title": "boot", "action": "run", "reason": "not built yet"}
    assert document["steps"][2] | {"key": ""} == {
        "step": "build",
        "kind": "build",
        "lane": "build",
        "key": "",
        "action": "run",
        "reason": "not done yet",
    }


def test_sandbox_defaults_fill_in_what_a_stand_in_needs(publish: Command) -> None:
    publish.file.write_text(publish.file.read_text().replace('project = "demo"\n', ""))
    assert publish("plan", str(publish.file)).code == 3
    assert publish("plan", str(publish.file), "--sandbox").code == 0


def test_schema_prints_json_schema(publish: Command) -> None:
    publish("schema")
    assert json.loads(publish.out)["$schema"].endswith("2020-12/schema")


def test_migrate_hands_options_and_names_over(
    publish: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import publisher.migrate

    asked: dict[str, Any] = {}
    drawn = Plan("web as db 2.0.0", "db", "2.0.0", ())

    def plan_migration(source: str, targets: list[str], **rest: Any) -> Plan:
        asked.update(rest, source=source, targets=targets)
        return drawn

    monkeypatch.setattr(publisher.migrate, "plan_migration", plan_migration)
    engine = Engine()
    publish.engine(engine)
    publish(
        "migrate",
        "nimbus:north/img-1",
        "cirrus:demo",
        *("--name", "db", "--version", "2.0.0"),
        *("--pipeline", str(publish.file), "--set", "targets.nimbus.workers=2"),
    )
    assert publish.err == ""
    assert engine.plan is drawn
    assert asked == {
        "source": "nimbus:north/img-1",
        "targets": ["cirrus:demo"],
        "realm": "",
        "name": "db",
        "version": "2.0.0",
        "options": {
            "nimbus": {"regions": ["north", "south"], "workers": 2},
            "cirrus": {"project": "demo"},
        },
    }
