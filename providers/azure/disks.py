"""Temporary managed disks: made, opened by a SAS, closed, removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from providers.azure import api
from providers.azure.api import DISKS, Api, Body
from providers.azure.errors import is_gone
from providers.azure.pages import Pages
from publisher.errors import Cancelled, ProviderError
from publisher.task import Task

SAS_SECONDS = 24 * 3600
_GONE_TIMEOUT = 900.0
# Refusals of an access while one of another kind is open, left by a run that was killed.
_OTHER_ACCESS = ("OperationNotAllowed", "Conflict")


class Disks:
    """The managed disks of one resource group."""

    def __init__(self, service: Api, group: str) -> None:
        self._api = service
        self._group = group

    def id(self, name: str) -> str:
        return (
            f"/subscriptions/{self._api.subscription}/resourceGroups/{self._group}"
            f"/providers/Microsoft.Compute/disks/{name}"
        )

    def get(self, name: str, task: Task) -> Body | None:
        return task.retry(
            lambda: self._api.get(lambda c: c.disks.get(self._group, name, api_version=DISKS))
        )

    def list(self, task: Task) -> list[Body]:
        return task.retry(
            lambda: self._api.list(
                lambda c: c.disks.list_by_resource_group(self._group, api_version=DISKS)
            )
        )

    def create(self, name: str, body: Body, task: Task) -> None:
        """Returns when reads see the disk. Repeating it with the same body is fine."""
        self._api.finish(
            task,
            lambda c, polling: c.disks.begin_create_or_update(
                self._group, name, body, api_version=DISKS, polling=polling
            ),
            what=f"making disk {name}",
            timeout=_GONE_TIMEOUT,
        )

        def look() -> tuple[float, bool]:
            found = self.get(name, task)
            return 0.0, found is not None and settled(found, "disk")

        api.patiently(task, look, what=f"waiting for disk {name}", timeout=_GONE_TIMEOUT)

    def remove(self, name: str, task: Task) -> None:
        """Revoke what is open, then delete; gone already is fine."""
        disk = self.get(name, task)
        if disk is None:
            return
        if disk["properties"].get("diskState") in ("ActiveSAS", "ActiveUpload"):
            self.revoke(name, task)
        self._api.finish(
            task,
            lambda c, polling: c.disks.begin_delete(
                self._group, name, api_version=DISKS, polling=polling
            ),
            what=f"removing disk {name}",
            timeout=_GONE_TIMEOUT,
        )

    def revoke(self, name: str, task: Task, *, whole: bool = False) -> None:
        """End all access.

        Azure does not make a disk of an upload whose footer is not right, and says
        InvalidVhd; its access has ended all the same. Raises that only where the
        upload is meant to be `whole`.
        """
        try:
            self._api.finish(
                task,
                lambda c, polling: c.disks.begin_revoke_access(
                    self._group, name, api_version=DISKS, polling=polling
                ),
                what=f"closing disk {name}",
                timeout=_GONE_TIMEOUT,
            )
        except ProviderError as error:
            if not is_gone(error) and (whole or error.code != "InvalidVhd"):
                raise

    def grant(self, name: str, access: str, task: Task) -> str:
        """A SAS: a secret, for `Pages` only."""

        def begin() -> Body:
            return self._api.finish(
                task,
                lambda c, polling: c.disks.begin_grant_access(
                    self._group,
                    name,
                    {"access": access, "durationInSeconds": SAS_SECONDS},
                    api_version=DISKS,
                    polling=polling,
                ),
                what=f"opening disk {name}",
                timeout=_GONE_TIMEOUT,
                outcome=True,
                refusals=_OTHER_ACCESS,
            )

        try:
            body = begin()
        except ProviderError as error:
            if error.code not in _OTHER_ACCESS:
                raise
            self.revoke(name, task)
            body = begin()
        # A finished operation's own body wraps what a Location holds directly.
        body = body.get("properties", {}).get("output", body)
        sas = body.get("accessSAS")
        if not isinstance(sas, str):
            raise ProviderError(
                f"Azure opened disk {name} but named no address", provider="azure", transient=True
            )
        return sas

    @contextlib.contextmanager
    def opened(self, name: str, access: str, task: Task) -> Iterator[Pages]:
        """The disk's pages; the access ends whatever happens.

        When the body fails or is cancelled, ending is tried for a few seconds
        and its own failure is not raised: the next run ends it.
        """
        try:
            with Pages(self.grant(name, access, task), task) as pages:
                yield pages
        except BaseException:
            with contextlib.suppress(ProviderError, Cancelled):
                self.revoke(name, api.cleaning(task))
            raise
        self.revoke(name, task, whole=access == "Write")

    @contextlib.contextmanager
    def temporary(self, name: str, body: Body, task: Task) -> Iterator[None]:
        """A disk that is removed whatever happens; one left by a killed run is adopted."""
        try:
            found = self.get(name, task)
            if found is not None and found["properties"].get("provisioningState") != "Succeeded":
                self.remove(name, task)
                found = None
            if found is None:
                self.create(name, body, task)
            yield
        except BaseException:
            with contextlib.suppress(ProviderError, Cancelled):
                self.remove(name, api.cleaning(task))
            raise
        self.remove(name, task)


def settled(resource: Body, kind: str) -> bool:
    """True when Azure has finished with it. Raises ProviderError when it failed."""
    state = resource["properties"].get("provisioningState", "Succeeded")
    if state in ("Failed", "Canceled"):
        raise ProviderError(
            f"Azure could not make the {kind} {resource.get('name', '')}: {state}",
            provider="azure",
            code=state,
            hint="look at the activity log of the resource group, then delete the "
            f"{kind} and run the same command again",
        )
    return bool(state == "Succeeded")
