"""Compute instances: they really run their startup script, see machine.py."""

from __future__ import annotations

import re
import threading
from typing import Any

from providers.gcp.sandbox.compute import Collection, integer, public, tail
from providers.gcp.sandbox.disks import Disks
from providers.gcp.sandbox.machine import Machine
from providers.gcp.sandbox.operations import Failed, Operations
from providers.gcp.sandbox.store import Document, Store
from providers.gcp.sandbox.times import age
from providers.gcp.sandbox.web import Answer, Refused, Request, Router, not_found

MACHINE_TYPE = re.compile(r"(?:.*/)?zones/([^/]+)/machineTypes/[a-z][a-z0-9-]*")
METADATA_VALUE_MOST = 256 * 1024
METADATA_MOST = 512 * 1024


class Instances(Collection):
    def __init__(self, store: Store, operations: Operations, project: str, disks: Disks) -> None:
        super().__init__(store, operations, project)
        self._disks = disks
        self._machines: dict[str, Machine] = {}
        self._timers: list[threading.Timer] = []
        operations.kind("instances.insert", self._create)
        operations.kind("instances.attachDisk", self._attached)
        operations.kind("instances.delete", self._destroy)

    def routes(self, router: Router) -> None:
        instances = "/zones/{zone}/instances"
        one = f"{instances}/{{instance}}"
        self.add(router, "GET", instances, "instances.list", self._list)
        self.add(router, "POST", instances, "instances.insert", self._insert)
        self.add(router, "GET", one, "instances.get", self._get)
        self.add(router, "DELETE", one, "instances.delete", self._delete)
        self.add(router, "POST", f"{one}/attachDisk", "instances.attachDisk", self._attach)
        self.add(router, "GET", f"{one}/serialPort", "instances.getSerialPortOutput", self._serial)

    def start(self) -> None:
        """Machines did not survive the stop: what ran is TERMINATED now, and what
        was to be deleted after its time is."""
        for key, instance in list(self.store.instances.items()):
            if instance["status"] == "RUNNING":
                self.store.instances.put(key, {**instance, "status": "TERMINATED"})
            self._limit(key, instance)

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for machine in self._machines.values():
            machine.stop()
        self._machines.clear()

    def _limit(self, key: str, instance: Document) -> None:
        """Honour maxRunDuration with instanceTerminationAction DELETE."""
        scheduling = instance.get("scheduling", {})
        seconds = integer(scheduling.get("maxRunDuration", {}).get("seconds"))
        if seconds and scheduling.get("instanceTerminationAction") == "DELETE":
            left = max(0.0, seconds - age(instance["creationTimestamp"]))
            timer = threading.Timer(min(left, threading.TIMEOUT_MAX), self.drop, (key,))
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def named(self, zone: str, name: str) -> Document:
        found = self.store.instances.get(f"{zone}/{name}")
        if found is None:
            where = f"projects/{self.project}/zones/{zone}/instances/{name}"
            raise not_found(f"The resource '{where}'")
        return found

    def _list(self, request: Request) -> Answer:
        prefix = f"{request.arguments['zone']}/"
        found = [one for key, one in self.store.instances.items() if key.startswith(prefix)]
        return self.page(request, "instance", found)

    def _get(self, request: Request) -> Answer:
        return Answer(public(self.named(request.arguments["zone"], request.arguments["instance"])))

    # -- insert

    def _insert(self, request: Request) -> Answer:
        zone = request.arguments["zone"]
        with self.store.lock:
            if earlier := self.operations.earlier(request, "instances.insert"):
                return earlier
            body = self.schema.body(request, "instances.insert")
            name = body["name"]
            if self.store.instances.get(f"{zone}/{name}"):
                where = f"projects/{self.project}/zones/{zone}/instances/{name}"
                raise Refused(409, f"The resource '{where}' already exists", "alreadyExists")
            self._check(zone, body)
            instance = self.born(body, "instance", f"zones/{zone}/instances/{name}")
            before = {key for key, _ in self.store.disks.items()}
            attached = []
            try:
                for index, disk in enumerate(body["disks"]):
                    attached.append(self._plug(zone, instance, index, disk))
            except Refused:
                for key, _ in list(self.store.disks.items()):
                    self._disks.use(key, instance["selfLink"], attached=False)
                    if key not in before:
                        self._disks.drop(key)
                raise
            instance |= {"status": "PROVISIONING", "disks": attached}
            instance["zone"] = self.link(f"zones/{zone}")
            self.store.instances.put(f"{zone}/{name}", instance)
            return self.operations.begin_in(zone, request, "instances.insert", name)

    def _check(self, zone: str, body: Document) -> None:
        machine = MACHINE_TYPE.fullmatch(body.get("machineType", ""))
        if not machine or machine[1] != zone:
            raise Refused(
                400, f"Invalid value for field 'resource.machineType': '{body.get('machineType')}'."
            )
        if not body.get("networkInterfaces"):
            raise Refused(400, "At least one network interface is required.", "required")
        disks = body.get("disks", [])
        if [disk.get("boot", False) for disk in disks] != [True] + [False] * (len(disks) - 1):
            raise Refused(400, "Boot disk must be the first disk attached to the instance.")
        scheduling = body.get("scheduling", {})
        if "maxRunDuration" in scheduling and "instanceTerminationAction" not in scheduling:
            raise Refused(400, "instanceTerminationAction is required with maxRunDuration")
        values = [str(item.get("value", "")) for item in body.get("metadata", {}).get("items", [])]
        if any(len(value) > METADATA_VALUE_MOST for value in values):
            raise Refused(413, "A metadata value is larger than 256 KB.", "invalid")
        if sum(map(len, values)) > METADATA_MOST:
            raise Refused(413, "The metadata is larger than 512 KB.", "invalid")

    def _plug(self, zone: str, instance: Document, index: int, wanted: Document) -> Document:
        """An attached disk, made first where initializeParams ask for it."""
        name = instance["name"] if index == 0 else f"{instance['name']}-{index}"
        if wanted.get("mode") == "READ_ONLY" and wanted.get("autoDelete"):
            raise Refused(400, "Disks attached in READ_ONLY mode cannot be auto-deleted.")
        if "initializeParams" in wanted:
            parameters = wanted["initializeParams"]
            name = parameters.get("diskName", name)
            body: dict[str, Any] = {"name": name, "labels": parameters.get("labels", {})}
            if "sourceImage" in parameters:
                body["sourceImage"] = parameters["sourceImage"]
            if "diskSizeGb" in parameters:
                body["sizeGb"] = parameters["diskSizeGb"]
            self._disks.prepare(zone, body)
        elif "source" in wanted:
            name = tail(wanted["source"])
            disk = self._disks.named(zone, name)
            if disk.get("users"):
                raise Refused(400, f"The disk '{name}' is in use", "resourceInUseByAnotherResource")
        else:
            raise Refused(400, f"'disks[{index}]' needs source or initializeParams", "required")
        self._disks.use(f"{zone}/{name}", instance["selfLink"], attached=True)
        return {
            **wanted,
            "index": index,
            "mode": wanted.get("mode", "READ_WRITE"),
            "deviceName": wanted.get("deviceName", f"persistent-disk-{index}"),
            "source": self.link(f"zones/{zone}/disks/{name}"),
        }

    def _create(self, operation: Document) -> None:
        key = operation["_arguments"]["key"]
        instance = self.store.instances.get(key)
        if instance is None or instance["status"] != "PROVISIONING":
            return
        zone = key.partition("/")[0]
        items = instance.get("metadata", {}).get("items", [])
        metadata = {item["key"]: item.get("value", "") for item in items}
        directory = self.store.directory / "machines" / instance["id"]
        machine = Machine(directory, metadata)
        for attached in instance["disks"]:
            name = tail(attached["source"])
            self._disks.fill(f"{zone}/{name}")
            disk = self._disks.named(zone, name)
            machine.attach(attached["deviceName"], self._disks.path(disk))
        with self.store.lock:
            latest = self.store.instances.get(key)
            if latest is None or latest["status"] != "PROVISIONING":
                return
            machine.start()
            self._machines[key] = machine
            self.store.instances.put(key, {**latest, "status": "RUNNING"})
        self._limit(key, instance)

    # -- disks

    def _attach(self, request: Request) -> Answer:
        zone, name = request.arguments["zone"], request.arguments["instance"]
        with self.store.lock:
            if earlier := self.operations.earlier(request, "instances.attachDisk"):
                return earlier
            instance = self.named(zone, name)
            body = self.schema.body(request, "instances.attachDisk")
            if "source" not in body:
                raise Refused(400, "Required field 'resource.source' not specified", "required")
            disk = self._disks.named(zone, tail(body["source"]))
            if disk["status"] != "READY":
                raise Refused(400, "The disk is not ready", "resourceNotReady")
            attached = self._plug(zone, instance, len(instance["disks"]), body)
            changed = {**instance, "disks": [*instance["disks"], attached]}
            self.store.instances.put(f"{zone}/{name}", changed)
            added = {"disk": disk["name"], "device": attached["deviceName"]}
            return self.operations.begin_in(zone, request, "instances.attachDisk", name, **added)

    def _attached(self, operation: Document) -> None:
        arguments = operation["_arguments"]
        key = arguments["key"]
        with self.store.lock:
            machine = self._machines.get(key)
            disk = self.store.disks.get(f"{key.partition('/')[0]}/{arguments['disk']}")
            if machine is None or disk is None:
                raise Failed("RESOURCE_NOT_FOUND", "The instance or the disk is gone", 404)
            machine.attach(arguments["device"], self._disks.path(disk))

    # -- looking and deleting

    def _serial(self, request: Request) -> Answer:
        zone, name = request.arguments["zone"], request.arguments["instance"]
        self.named(zone, name)
        machine = self._machines.get(f"{zone}/{name}")
        text = ""
        if machine is not None and machine.serial.exists():
            text = machine.serial.read_text(errors="replace")
        start = int(request.query.get("start", "0"))
        return Answer(
            {
                "kind": "compute#serialPortOutput",
                "contents": text[start:],
                "start": str(start),
                "next": str(len(text)),
            }
        )

    def _delete(self, request: Request) -> Answer:
        zone, name = request.arguments["zone"], request.arguments["instance"]
        with self.store.lock:
            if earlier := self.operations.earlier(request, "instances.delete"):
                return earlier
            instance = self.named(zone, name)
            self.store.instances.put(f"{zone}/{name}", {**instance, "status": "STOPPING"})
            return self.operations.begin_in(zone, request, "instances.delete", name)

    def _destroy(self, operation: Document) -> None:
        self.drop(operation["_arguments"]["key"])

    def drop(self, key: str) -> None:
        """Power off, detach, and delete the disks that are marked so."""
        zone = key.partition("/")[0]
        with self.store.lock:
            machine = self._machines.pop(key, None)
            instance = self.store.instances.get(key)
            if instance is None:
                return
            for attached in instance["disks"]:
                disk = f"{zone}/{tail(attached['source'])}"
                self._disks.use(disk, instance["selfLink"], attached=False)
                if attached.get("autoDelete"):
                    self._disks.drop(disk)
            self.store.instances.remove(key)
        if machine is not None:
            machine.stop()
