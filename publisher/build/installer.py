"""Source `installer`: a distribution's own installer, run unattended on an empty disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from publisher.build import answers, originals
from publisher.build.install_console import Progress
from publisher.build.iso import extract
from publisher.build.secrets import Redactor, read_all
from publisher.errors import BuildError, PublishError
from publisher.fetch import Digest
from publisher.installer import DOOR
from publisher.model import MIB, Spec
from publisher.recipe import Installer
from publisher.task import Task
from publisher.vm import process
from publisher.vm.accelerator import Accelerator
from publisher.vm.board import Board
from publisher.vm.guest_files import URL, GuestFiles
from publisher.vm.keys import Keys
from publisher.vm.machine import Drive, Hardware, Machine

KEY = answers.KEY
STALL = 900.0
"""Seconds in which an installer neither prints, nor writes, nor asks for a file."""
LINES = 25
"""Lines of the console in the error."""
_GRACE = 3.0
"""Seconds for the rest of what the installer says about its trouble."""
_OPTIONAL = ("network-config", "vendor-data")
"""What cloud-init asks for beside the files of an autoinstall, and does without."""
_LOOK = 10.0
"""Seconds between two looks at how much was written."""


class Installation:
    """One run of the installer in `directory`, which is private to the user; `secrets`
    are the values that its answer files may hold."""

    def __init__(
        self,
        source: Installer,
        spec: Spec,
        *,
        directory: Path,
        pipeline: Path,
        keys: Keys,
        task: Task,
    ) -> None:
        """`pipeline` is the directory of the pipeline file. Raises PipelineError."""
        self._source = source
        self._arch = spec.arch
        self._directory = directory
        self._pipeline = pipeline
        self._task = task
        self.secrets = read_all(source.secrets, pipeline, KEY)
        self._redact = Redactor(self.secrets)
        values = {
            **source.variables,
            **self.secrets,
            "url": URL,
            **{name: f"{URL}/{name}" for name in DOOR},
            "ssh_public_key": keys.user_public,
            "name": spec.name,
            "version": spec.version,
            "arch": spec.arch,
        }
        self._files = answers.render(source, pipeline, values)
        self._command_line = answers.fill(source.arguments, values)
        self._must_report = "done" in answers.used(source, pipeline)
        self._reports: dict[str, str] = {}
        self._progress = Progress(
            lambda line: task.output(self._redact(line)),
            lambda title: task.phase(f"installing: {self._redact(title)}"),
        )
        self._asked = 0

    def run(
        self,
        into: Path,
        size: int,
        *,
        cache: Path,
        resolved: Mapping[str, Digest],
        chosen: Accelerator,
        firmware: tuple[Path, Path] | None,
        log: Path,
    ) -> Path:
        """Install on the new raw disk `into`. `resolved` are the digests that signed
        lists have; `log` gets all that the console printed when it fails.

        Raises BuildError with the reason and the console's last lines."""
        media = self._media(cache, resolved)
        with into.open("wb") as disk:
            disk.truncate(size)
        try:
            with ExitStack() as stack:
                files = stack.enter_context(
                    GuestFiles(
                        self._directory,
                        self._files,
                        reports=DOOR,
                        on_report=self._on_report,
                        on_request=self._on_request,
                    )
                )
                variables = None
                if firmware is not None:
                    variables = self._directory / "variables.fd"
                    shutil.copyfile(firmware[1], variables)
                hardware = Hardware(
                    drives=(Drive(into),),
                    log=self._directory / "console.log",
                    arch=self._arch,
                    memory=self._source.memory // MIB,
                    firmware_code=firmware[0] if firmware else None,
                    firmware_variables=variables,
                    board=Board(cdrom=media.get("iso")),
                    kernel=media.get("kernel"),
                    initrd=media.get("initrd"),
                    command_line=self._command_line,
                    forwards=files.forward,
                )
                self._task.phase("installing: starting the installer")
                machine = Machine(hardware, self._task, chosen, self._progress)
                self._watch(stack.enter_context(machine))
        except PublishError as error:
            self._redact.error(error)
            if isinstance(error, BuildError):
                self._keep(log)
                error.hint = f"{error.hint}; everything that it printed is in {log}"
            raise
        return into

    def _keep(self, log: Path) -> None:
        with (
            (self._directory / "console.log").open(errors="replace") as printed,
            log.open("w") as kept,
        ):
            kept.writelines(map(self._redact, printed))

    def _media(self, cache: Path, resolved: Mapping[str, Digest]) -> dict[str, Path]:
        """Kernel, initrd and CD as local files."""
        found = {}
        for name, medium in self._source.media():
            fetched = originals.bring(
                medium,
                resolved.get(name),
                directory=self._pipeline,
                cache=cache,
                task=self._task,
                key=f"{KEY}.{name}",
            )
            found[name] = fetched.path.resolve()
        if self._source.iso is not None:
            for name, inside in (("kernel", self._source.kernel), ("initrd", self._source.initrd)):
                if inside is not None:
                    target = self._directory / name
                    extract(found["iso"], inside.file, target, f"{KEY}.{name}")
                    found[name] = target
        return found

    def _on_request(self, name: str, status: int) -> None:
        self._asked += 1
        if status == 404 and name not in _OPTIONAL:
            self._task.note(
                f"the installer asked for {URL}/{name}: there is no such file", "warning"
            )
        elif status != 404 and name not in DOOR:
            self._task.phase(f"installing: {name} was fetched")

    def _on_report(self, name: str, said: str) -> None:
        self._reports.setdefault(name, said)

    # -- watching

    def _watch(self, machine: Machine) -> None:
        """Wait for the end of the installation. Raises BuildError when it failed."""
        clock = self._task.clock
        started = lively = looked = clock.monotonic()
        troubled = 0.0
        before: object = None
        while not machine.wait(process.POLL):
            machine.check_fault()
            now = clock.monotonic()
            if "failed" in self._reports:
                raise self._failure("the installer reported a failure", self._reports["failed"])
            if self._progress.trouble and not troubled:
                troubled = now
            if troubled and now - troubled > _GRACE:
                raise self._failure(f"the installer stopped: {self._progress.trouble}")
            if now - started > self._source.timeout:
                raise self._failure(
                    f"the installation took longer than {self._source.timeout} s",
                    key=f"{KEY}.timeout",
                )
            if now - looked > _LOOK:
                looked = now
                signs = (self._asked, self._progress.heard, _written(machine))
                if signs != before:
                    before, lively = signs, now
                if now - lively > STALL:
                    raise self._silence()
        machine.check_fault()
        self._judge_end(machine)

    def _silence(self) -> BuildError:
        what = f"the installer gave no sign of life for {STALL:.0f} s"
        if "done" not in self._reports:
            return self._failure(what)
        return self._failure(
            f"{what} after it had fetched {{done}}",
            hint="let the answer files say that the machine powers off at the end",
        )

    def _judge_end(self, machine: Machine) -> None:
        how = {"guest-shutdown": "powered off", "guest-reset": "restarted"}.get(machine.shutdown)
        if "failed" in self._reports:
            raise self._failure("the installer reported a failure", self._reports["failed"])
        if how is None:
            raise self._failure("QEMU ended during the installation")
        if self._progress.trouble and "done" not in self._reports:
            raise self._failure(f"the installer {how}: {self._progress.trouble}")
        if self._must_report and "done" not in self._reports:
            raise self._failure(
                f"the machine {how} before the installer had fetched {{done}}",
                hint="it failed, or its last command does not fetch {done}",
            )
        self._task.phase("installing: done")

    def _failure(self, what: str, said: str = "", *, key: str = "", hint: str = "") -> BuildError:
        last = self._progress.last_lines(LINES)
        told = f":\n{said.strip()}" if said.strip() else ""
        if last:
            told += f"\nits console said last:\n{last}"
        else:
            told += "; its console printed nothing: does it use a serial console?"
            hint = "add console=ttyS0 to arguments, to see what it does"
        if self._progress.full:
            key, hint = key or "build.size", hint or "the disk may be too small: enlarge build.size"
        return BuildError(
            self._redact(f"{what}{told}"),
            key=key or KEY,
            hint=hint or "correct the answer files or the arguments",
        )


def _written(machine: Machine) -> object:
    """How often the guest has written to its disk."""
    try:
        answer = machine.execute("query-blockstats")
    except (PublishError, OSError, TimeoutError):
        return None  # it is ending: the loop sees that by itself
    if not isinstance(answer, list):
        return None
    return [device.get("stats", {}).get("wr_operations") for device in answer]
