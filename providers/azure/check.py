"""What can be known before the build: credentials, places, permissions, quotas, names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from providers.azure import api, sharing, tags
from providers.azure import gallery as g
from providers.azure.api import Api, Body
from providers.azure.errors import is_gone
from providers.azure.options import AzureOptions, Region, normal_region
from providers.azure.refs import Ref
from publisher.errors import ConflictError, ProviderError
from publisher.model import Finding, Severity, Spec
from publisher.task import Retry, Task

_COMPUTE = "Microsoft.Compute"
_ACTIONS = (
    f"{_COMPUTE}/disks/read",
    f"{_COMPUTE}/disks/write",
    f"{_COMPUTE}/disks/delete",
    f"{_COMPUTE}/disks/beginGetAccess/action",
    f"{_COMPUTE}/disks/endGetAccess/action",
    f"{_COMPUTE}/galleries/read",
    f"{_COMPUTE}/galleries/write",
    f"{_COMPUTE}/galleries/images/read",
    f"{_COMPUTE}/galleries/images/write",
    f"{_COMPUTE}/galleries/images/versions/read",
    f"{_COMPUTE}/galleries/images/versions/write",
    f"{_COMPUTE}/galleries/images/versions/delete",
)
_SHARE = f"{_COMPUTE}/galleries/share/action"
_COUNTERS = {
    "Standard_LRS": "StandardDiskCount",
    "StandardSSD_LRS": "StandardSSDDiskCount",
    "Premium_LRS": "PremiumDiskCount",
}


def quick(task: Task) -> Task:
    """The same task with few attempts: a check answers within seconds."""
    return Task(
        task.step,
        task.memory,
        lane=task.lane,
        cancellation=task.cancellation,
        clock=task.clock,
        retry=Retry(attempts=4, base=0.2, ceiling=1.0, patience=10.0),
        run=task.run,
    )


class Check:
    """One check of one target."""

    def __init__(
        self, service: Api, options: AzureOptions, gallery: g.Gallery, ref: Ref, task: Task
    ) -> None:
        self._api = service
        self._options = options
        self._gallery = gallery
        self._ref = ref
        self._task = quick(task)
        self._root = f"/subscriptions/{service.subscription}"
        self._group = f"{self._root}/resourceGroups/{options.resource_group}"

    def run(self, spec: Spec, regions: Sequence[str]) -> Iterator[Finding]:
        """Raises CredentialsError or UnreachableError. Stops where what follows
        can't be told any more."""
        if self._read(self._root, api.SUBSCRIPTIONS) is None:
            yield _error(
                "subscription",
                f"there is no subscription {self._api.subscription} for these credentials",
                "check the id, or log in to the tenant that holds it",
            )
            return
        misplaced = list(self._locations(regions))
        yield from misplaced
        if self._read(self._group, api.GROUPS) is None:
            if self._options.create_resource_group:
                return
            yield _error(
                "resource_group",
                f"there is no resource group {self._options.resource_group}",
                "create it, or set create_resource_group = true",
            )
            return
        yield from self._permissions()
        if not misplaced:
            yield from self._quotas()
        yield from self._names(spec)

    def _read(self, path: str, version: str) -> Body | None:
        def read() -> Body | None:
            try:
                return self._api.read(path, version)
            except ProviderError as error:
                if is_gone(error) or error.code == "SubscriptionNotFound":
                    return None
                raise

        return self._task.retry(read)

    def _locations(self, regions: Sequence[str]) -> Iterator[Finding]:
        body = self._read(f"{self._root}/locations", api.SUBSCRIPTIONS) or {}
        known = {item["name"] for item in body.get("value", [])}
        for region in regions:
            if normal_region(region) not in known:
                yield _error(
                    self._key_of(normal_region(region)),
                    f"Azure has no region {region} for this subscription",
                    "`az account list-locations` names them",
                )

    def _key_of(self, region: str) -> str:
        for number, given in enumerate(self._options.regions):
            name = given.name if isinstance(given, Region) else given
            if normal_region(name) == region:
                return f"regions[{number}]"
        return "location"

    def _permissions(self) -> Iterator[Finding]:
        path = f"{self._group}/providers/Microsoft.Authorization/permissions"
        body = self._read(path, api.PERMISSIONS) or {}
        granted: list[Body] = body.get("value", [])
        missing = [action for action in _ACTIONS if not _allowed(action, granted)]
        if missing:
            yield _error(
                "resource_group",
                f"these credentials may not {', '.join(missing)}",
                f'ask for the role "Contributor" on {self._options.resource_group}',
            )
        if not _allowed(_SHARE, granted):
            yield Finding(
                "azure.permissions",
                Severity.WARNING,
                f"these credentials may not {_SHARE}: a release would fail",
                'ask for the role "Compute Gallery Sharing Admin"',
                "gallery",
            )

    def _quotas(self) -> Iterator[Finding]:
        location = self._options.locations()[0]
        wanted = _COUNTERS[self._options.disk_sku]
        usages = self._task.retry(
            lambda: self._api.list(lambda c: c.usage.list(location, api_version=api.USAGES))
        )
        for usage in usages:
            # Two disks at most are there at once: the upload's and the read-back's.
            if usage["name"]["value"] == wanted and usage["currentValue"] + 2 > usage["limit"]:
                yield _error(
                    "disk_sku",
                    f"{usage['currentValue']} of {usage['limit']} disks of kind "
                    f"{self._options.disk_sku} are in use in {location}",
                    "remove some, ask Azure for more, or set another disk_sku",
                )

    def _names(self, spec: Spec) -> Iterator[Finding]:
        gallery = self._gallery.get(self._task)
        if gallery is None:
            return
        audience = sharing.audience(gallery)
        if audience.kind != "private":
            yield Finding(
                "azure.gallery-open",
                Severity.WARNING,
                f"gallery {self._gallery.name} is open already ({audience.kind}): a new version "
                "can be used by its number before its release, only latest leaves it out",
                "use a gallery of its own for images that must not be seen early",
                "gallery",
            )
        definition = self._gallery.definition(self._ref.definition, self._task)
        if definition is None:
            return
        try:
            wanted = g.definition_body(self._options, spec, self._options.locations()[0])
            g.check_definition(definition, wanted)
            version = self._gallery.version(self._ref, self._task)
            if version is None:
                return
            digest = (version.get("tags") or {}).get(tags.DIGEST, "")
            g.expect_same(version, spec.digest or digest or "unknown", self._ref)
        except ConflictError as error:
            key = error.key.removeprefix("targets.azure.")
            yield _error(key, error.message, error.hint)
            return
        yield Finding(
            "azure.version-exists",
            Severity.NOTE,
            f"version {self._ref.version} of {self._ref.definition} is there already",
            "" if spec.digest else "the same content is reused, other content is refused",
            "version",
        )


def _allowed(action: str, granted: Sequence[Body]) -> bool:
    """True when some permission grants the action and does not take it back."""

    def listed(permission: Body, key: str) -> bool:
        return any(
            fnmatch.fnmatchcase(action.lower(), pattern.lower())
            for pattern in permission.get(key) or []
        )

    return any(listed(p, "actions") and not listed(p, "notActions") for p in granted)


def _error(key: str, evidence: str, fix: str) -> Finding:
    return Finding(f"azure.{key.partition('[')[0]}", Severity.ERROR, evidence, fix, key)
