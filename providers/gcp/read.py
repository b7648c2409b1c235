"""Reads the disk behind an image with a short-lived machine, since no Compute API does.

A worker boots without credentials and says that it is up; a disk made from the
image is attached then, not earlier: its file systems may carry the same ids as
the worker's own and confuse its boot. The worker sends the disk in segments to
resumable sessions that were opened for it, see worker.py. The disk is attached
for writing, because only such disks can go away together with the machine
(autoDelete); nothing writes to it. Both end after a day even if nobody comes
back (maxRunDuration). So far this ran against the stand-in only; on the real cloud
boot times, and the worker image's Python, are still to be seen.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from providers.gcp import identity, operations
from providers.gcp.api import PROVIDER, Api, unless_gone
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions
from providers.gcp.segments import Records, records
from providers.gcp.upload import clear
from publisher.errors import Cancelled, ProviderError, PublishError
from publisher.model import GIB
from publisher.task import Cancellation, Retry, Task

DEVICE = "publisher-source"
SEGMENTS_MOST = 256
"""All session addresses go into one metadata value of at most 256 KB."""
LONGEST_SECONDS = 24 * 3600
BOOT_TIMEOUT = 15 * 60.0
READ_TIMEOUT = LONGEST_SECONDS
SESSION_WORKERS = 8

Take: TypeAlias = Callable[[int, int, Records], None]
"""Called with (start, stop, records) of one segment; records are (offset, bytes)
ascending, what lies between is zero. Called again when the reading broke."""


class Reading:
    """One reading of an image. `purpose` keeps readings apart that may happen at once."""

    def __init__(
        self, api: Api, options: GcpOptions, bucket: Bucket, image: Any, purpose: str, task: Task
    ) -> None:
        self._api = api
        self._options = options
        self._bucket = bucket
        self._image = image
        self._task = task
        self.size = int(image.disk_size_gb) * GIB
        name = f"{options.project}/{image.self_link}/{image.id}/{purpose}"
        self._id = hashlib.sha256(name.encode()).hexdigest()[:20]
        self._name = f"publisher-read-{self._id}"
        self._prefix = f"publisher-read/{self._id}/"
        self._sessions: list[str] = []
        step = max(GIB, -(-self.size // SEGMENTS_MOST // GIB) * GIB)
        self.segments = [(at, min(at + step, self.size)) for at in range(0, self.size, step)]

    def _segment(self, start: int) -> str:
        return f"{self._prefix}segment-{start:016d}"

    # -- the way

    def run(self, done: Callable[[int, int], bool], take: Take) -> None:
        """Hand every segment for which `done` is false to `take`. Whatever was
        made in the cloud is removed, also when this fails."""
        wanted = [segment for segment in self.segments if not done(*segment)]
        if not wanted:  # an earlier run had all, and may have been cut off while removing
            self.remove_leftovers()
            return
        try:
            self._sweep(self._task)
            left = self._take_present(wanted, take)
            if left:
                self._boot(left)
                self._collect(left, take)
        except Cancelled:
            self._abandon()
            raise
        except Exception:
            try:
                self.remove_leftovers()
                self._end_sessions(self._task)
            except PublishError:
                self._abandon()
            raise
        self.remove_leftovers()

    def _take_present(self, wanted: list[tuple[int, int]], take: Take) -> list[tuple[int, int]]:
        """Take what is in the bucket already; returns what is missing."""
        names = {found["name"] for found in self._objects()}
        left = []
        for start, stop in wanted:
            if self._segment(start) in names:
                self._take(start, stop, take)
            else:
                left.append((start, stop))
        return left

    def _take(self, start: int, stop: int, take: Take) -> None:
        name = self._segment(start)
        self._task.retry(lambda: take(start, stop, records(self._bucket.read(name))))
        self._task.retry(lambda: self._bucket.delete(name))

    def _objects(self) -> list[dict[str, Any]]:
        return self._task.retry(lambda: self._bucket.list(self._prefix))

    def _boot(self, left: list[tuple[int, int]]) -> None:
        task = self._task
        task.phase("starting a machine to read the image")
        names = ["ready", "status"]
        urls = dict(task.map(self._open, [f"{self._prefix}{name}" for name in names], workers=2))
        segment_names = [self._segment(start) for start, _ in left]
        addresses = dict(task.map(self._open, segment_names, workers=SESSION_WORKERS))
        orders = {
            "device": DEVICE,
            "size": self.size,
            "ready": urls[f"{self._prefix}ready"],
            "status": urls[f"{self._prefix}status"],
            "segments": [
                {"offset": start, "stop": stop, "url": addresses[self._segment(start)]}
                for start, stop in left
            ],
        }
        self._change("instances", "insert_unary", instance_resource=self._machine(orders))
        what = "waiting for the machine"
        operations.poll(task, self._ready, timeout=BOOT_TIMEOUT, what=what)
        task.phase("attaching the image's disk")
        zone = self._options.zone
        disk = {
            "name": self._name,
            "source_image": self._image.self_link.partition("/compute/v1/")[2],
            "labels": self._labels(),
            "type_": f"projects/{self._options.project}/zones/{zone}/diskTypes/pd-balanced",
        }
        self._change("disks", "insert_unary", disk_resource=disk)
        source = f"projects/{self._options.project}/zones/{zone}/disks/{self._name}"
        attached = {
            "source": source,
            "device_name": DEVICE,
            "mode": "READ_WRITE",
            "auto_delete": True,
        }
        self._change(
            "instances",
            "attach_disk_unary",
            instance=self._name,
            attached_disk_resource=attached,
        )

    def _open(self, name: str) -> tuple[str, str]:
        resource = {
            "name": name,
            "contentType": "application/octet-stream",
            "metadata": self._labels(),
        }
        url = self._task.retry(lambda: self._bucket.begin(resource))
        self._sessions.append(url)
        return name, url

    def _labels(self) -> dict[str, str]:
        """The image's own identity where it has one, so that resources can be told apart."""
        known = {key: value for key, value in self._image.labels.items() if "publisher-" in key}
        try:
            run = identity.encode(self._task.run)
        except ValueError:
            run = ""
        return {**known, identity.RUN: run, "publisher-purpose": "read"}

    def _machine(self, orders: Mapping[str, Any]) -> dict[str, Any]:
        options = self._options
        script = importlib.resources.files("providers.gcp").joinpath("worker.py").read_text()
        network: dict[str, Any] = {"network": options.worker_network}
        if options.worker_subnetwork:
            network["subnetwork"] = options.worker_subnetwork
        if options.worker_external_ip:
            network["access_configs"] = [{"type_": "ONE_TO_ONE_NAT", "name": "External NAT"}]
        return {
            "name": self._name,
            "machine_type": f"zones/{options.zone}/machineTypes/{options.worker_machine_type}",
            "labels": self._labels(),
            "disks": [
                {
                    "boot": True,
                    "auto_delete": True,
                    "initialize_params": {
                        "disk_name": f"{self._name}-boot",
                        "source_image": options.worker_image,
                        "labels": self._labels(),
                    },
                }
            ],
            "network_interfaces": [network],
            "metadata": {
                "items": [
                    {"key": "startup-script", "value": script},
                    {"key": "publisher-read", "value": json.dumps(orders)},
                ]
            },
            "scheduling": {
                "max_run_duration": {"seconds": LONGEST_SECONDS},
                "instance_termination_action": "DELETE",
                "automatic_restart": False,
            },
        }

    def _change(self, service: str, method: str, **request: Any) -> None:
        """A request that makes an operation in our zone, and its end."""
        identifier = str(uuid.uuid4())
        zone = self._options.zone
        operation = self._task.retry(
            lambda: self._api.call(
                service,
                method,
                project=self._options.project,
                zone=zone,
                request_id=identifier,
                **request,
            )
        )
        what = "waiting for " + method.removesuffix("_unary").replace("_", " ")
        operations.wait(self._api, self._options.project, operation, self._task, what, zone=zone)

    # -- what the worker says

    def _ready(self) -> bool | None:
        names = {found["name"] for found in self._bucket.list(self._prefix)}
        if f"{self._prefix}ready" in names:
            return True
        self._complain(names)
        return None

    def _complain(self, names: set[str]) -> None:
        """Raise what the worker reports, or that it is not there any more."""
        status = f"{self._prefix}status"
        if status in names:
            report = json.loads(b"".join(self._bucket.read(status)))
            if "error" in report:
                raise ProviderError(
                    f"the machine could not read the image: {report['error']}",
                    provider=PROVIDER,
                    hint="run the same command again",
                )
        machine = self._api.call(
            "instances",
            "get",
            project=self._options.project,
            zone=self._options.zone,
            instance=self._name,
        )
        state = str(getattr(machine.status, "name", machine.status))
        if state not in ("PROVISIONING", "STAGING", "RUNNING"):
            raise ProviderError(
                f"the machine that reads the image is {state}",
                provider=PROVIDER,
                hint="run the same command again",
            )

    def _collect(self, left: list[tuple[int, int]], take: Take) -> None:
        waiting = dict(left)
        total, done = sum(stop - start for start, stop in left), 0

        def some() -> list[int] | None:
            names = {found["name"] for found in self._bucket.list(self._prefix)}
            found = [start for start in waiting if self._segment(start) in names]
            if not found:
                self._complain(names)
            return found or None

        while waiting:
            what = "reading the image"
            ready = operations.poll(self._task, some, timeout=READ_TIMEOUT, what=what)
            for start in ready:
                stop = waiting.pop(start)
                self._take(start, stop, take)
                done += stop - start
                self._task.progress(done, total)

    # -- removing

    def remove_leftovers(self) -> None:
        """What an earlier reading may have left: machine, disk, segments."""
        self._sweep(self._task)
        clear(self._bucket, self._prefix, self._task)

    def _sweep(self, task: Task) -> None:
        """Remove machine and disk of this or an earlier run, and the objects by
        which a worker talks; segments stay. Returns when they are gone."""
        self._remove("instances", task, instance=self._name)
        self._remove("disks", task, disk=self._name)
        for name in ("ready", "status"):
            task.retry(functools.partial(self._bucket.delete, f"{self._prefix}{name}"))

    def _remove(self, service: str, task: Task, **target: str) -> None:
        operation = self._delete(service, task, **target)
        if operation is None:
            return
        zone, project = self._options.zone, self._options.project
        what = "removing the machine"
        unless_gone(lambda: operations.wait(self._api, project, operation, task, what, zone=zone))

    def _delete(self, service: str, task: Task, **target: str) -> Any | None:
        identifier = str(uuid.uuid4())

        def call() -> Any:
            return self._api.call(
                service,
                "delete_unary",
                project=self._options.project,
                zone=self._options.zone,
                request_id=identifier,
                **target,
            )

        return task.retry(lambda: unless_gone(call))

    def _abandon(self) -> None:
        """After a failure or Ctrl-C: within seconds, ask for the removal of what
        costs money and end the sessions. The cloud goes on by itself; segments
        stay for the next run."""
        quick = Task(
            self._task.step,
            self._task.memory,
            lane=self._task.lane,
            cancellation=Cancellation(),
            clock=self._task.clock,
            retry=Retry(attempts=2, base=0.2, ceiling=0.5, patience=1.0),
            run=self._task.run,
        )
        try:
            self._delete("instances", quick, instance=self._name)
            self._drop_loose_disk(quick)
            self._end_sessions(quick)
        except PublishError as error:
            self._task.note(
                f"the machine {self._name} in {self._options.zone} may still be there ({error}); "
                "the next run removes it, and Google Cloud does so after a day",
                "warning",
            )

    def _end_sessions(self, task: Task) -> None:
        """Take the worker its addresses, also when its removal takes long."""

        def end(session: str) -> None:
            task.retry(lambda: self._bucket.cancel(session))

        for _ in task.map(end, self._sessions, workers=SESSION_WORKERS):
            pass
        self._sessions.clear()

    def _drop_loose_disk(self, task: Task) -> None:
        """A disk that is attached goes with its machine; a loose one does not."""
        try:
            self._delete("disks", task, disk=self._name)
        except ProviderError as error:
            if error.code != "resourceInUseByAnotherResource":
                raise
