"""A running instance: its startup script as a process, with a metadata server and disks.

The script sees what it would see on Compute Engine: the metadata server that
GCE_METADATA_HOST names (the variable that Google's own libraries read), attached
disks as google-DEVICE in the directory that DISK_BY_ID names, and no credentials.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from providers.gcp.sandbox.web import Answer, Application, Refused, Request, Router
from publisher.emulation import Server

_POWER = 'read -r _ </proc/self/fd/"$1"; kill -KILL 0'
_RUN = f'({_POWER}) & exec "$0"'
"""Runs the script $0 until the pipe $1 ends: the machine must not outlive a stand-in
that was killed. PR_SET_PDEATHSIG would not do, as it waits for the thread that
started the script, which is the one that answered the request."""


class Machine:
    def __init__(self, directory: Path, metadata: Mapping[str, str]) -> None:
        self._directory = directory
        self._metadata = metadata
        self._process: subprocess.Popen[bytes] | None = None
        self._power = -1
        self._server: Server | None = None
        self.serial = directory / "serial"

    def start(self) -> None:
        """Boot: run the startup script, if there is one, and do not wait for it."""
        devices = self._directory / "by-id"
        devices.mkdir(parents=True, exist_ok=True)
        script = self._metadata.get("startup-script")
        if script is None:
            return
        router = Router()
        router.add("GET", "/computeMetadata/v1/instance/attributes/{key}", self._attribute)
        self._server = Server(Application(router, self._admit))
        self._server.start()
        program = self._directory / "startup-script"
        program.write_text(script)
        program.chmod(0o700)
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        environment = {
            "PATH": path,
            "HOME": str(self._directory),
            "GCE_METADATA_HOST": self._server.url.removeprefix("http://"),
            "DISK_BY_ID": str(devices),
        }
        plug, self._power = os.pipe()
        try:
            with self.serial.open("ab") as serial:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _RUN, str(program), str(plug)],
                    stdin=subprocess.DEVNULL,
                    stdout=serial,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self._directory,
                    start_new_session=True,
                    pass_fds=(plug,),
                )
        finally:
            os.close(plug)

    @staticmethod
    def _admit(request: Request) -> None:
        if request.header("Metadata-Flavor") != "Google":
            raise Refused(403, "Missing Metadata-Flavor:Google header.", "forbidden")

    def _attribute(self, request: Request) -> Answer:
        value = self._metadata.get(request.arguments["key"])
        if value is None:
            raise Refused(404, "The requested URL was not found", "notFound")
        return Answer(value.encode(), headers={"Content-Type": "application/text"})

    def attach(self, device: str, disk: Path) -> None:
        """The disk appears while the machine runs."""
        link = self._directory / "by-id" / f"google-{device}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(disk)

    def stop(self) -> None:
        """Cut the power and throw the machine away."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._power >= 0:
            os.close(self._power)
            self._power = -1
        if self._server is not None:
            self._server.stop()
            self._server = None
        shutil.rmtree(self._directory, ignore_errors=True)
