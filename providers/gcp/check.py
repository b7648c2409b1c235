"""Asks Google Cloud before anything is built: credentials, bucket, permissions, names, quota."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from providers.gcp import identity, images
from providers.gcp.api import Api, gone
from providers.gcp.objects import Bucket
from providers.gcp.options import GcpOptions
from publisher.errors import ConflictError, ProviderError, UnreachableError
from publisher.model import Finding, Severity, Spec
from publisher.task import Task

BUCKET_PERMISSIONS = (
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
)
IMAGE_PERMISSIONS = (
    "compute.images.create",
    "compute.images.delete",
    "compute.images.get",
    "compute.images.getIamPolicy",
    "compute.images.setIamPolicy",
)
FIRST_ATTEMPTS = 3


def first_contact(api: Api, options: GcpOptions, task: Task) -> Any:
    """The project. A server that is not there is reported within seconds, not
    after all the patience of the retry policy."""

    def ask() -> Any:
        return api.call("projects", "get", project=options.project)

    for attempt in range(1, FIRST_ATTEMPTS + 1):
        try:
            task.check()
            return ask()
        except UnreachableError:
            if attempt == FIRST_ATTEMPTS:
                raise
            task.sleep(0.5)
        except ProviderError as error:
            if not error.transient:
                raise
            return task.retry(ask)
    raise AssertionError


def check(
    api: Api, options: GcpOptions, bucket: Bucket, spec: Spec, task: Task
) -> Iterator[Finding]:
    task.phase("asking Google Cloud")
    try:
        project = first_contact(api, options, task)
    except ProviderError as error:
        if not gone(error):
            raise
        yield Finding(
            "gcp.project",
            Severity.ERROR,
            f"there is no project {options.project}, or these credentials may not see it",
            "check the id of the project, and that the Compute Engine API is enabled",
            "project",
        )
        return
    yield from _quota(project)
    yield from _bucket(bucket, task)
    yield from _permissions(api, options, spec, task)
    yield from _name(api, options, spec, task)


def _quota(project: Any) -> Iterator[Finding]:
    for quota in project.quotas:
        if quota.metric == "IMAGES" and quota.limit and quota.usage >= quota.limit:
            yield Finding(
                "gcp.quota",
                Severity.ERROR,
                f"the project has {quota.usage:.0f} of {quota.limit:.0f} images",
                "delete old images or raise the quota IMAGES",
                "project",
            )


def _bucket(bucket: Bucket, task: Task) -> Iterator[Finding]:
    try:
        held = task.retry(lambda: bucket.permissions(BUCKET_PERMISSIONS))
    except ProviderError as error:
        if not gone(error):
            raise
        yield Finding(
            "gcp.bucket",
            Severity.ERROR,
            f"there is no bucket {bucket.name}",
            f"gcloud storage buckets create gs://{bucket.name}",
            "bucket",
        )
        return
    if missing := [name for name in BUCKET_PERMISSIONS if name not in held]:
        yield Finding(
            "gcp.permissions",
            Severity.ERROR,
            f"missing on the bucket {bucket.name}: {', '.join(missing)}",
            "grant roles/storage.objectAdmin on the bucket",
            "bucket",
        )


def _permissions(api: Api, options: GcpOptions, spec: Spec, task: Task) -> Iterator[Finding]:
    try:
        answer = task.retry(
            lambda: api.call(
                "images",
                "test_iam_permissions",
                project=options.project,
                resource=options.fill(spec),
                test_permissions_request_resource={"permissions": list(IMAGE_PERMISSIONS)},
            )
        )
    except ProviderError as error:
        if not gone(error):
            raise
        return  # the image is not there yet: some projects answer so
    if missing := [name for name in IMAGE_PERMISSIONS if name not in answer.permissions]:
        yield Finding(
            "gcp.permissions",
            Severity.ERROR,
            f"missing in the project {options.project}: {', '.join(missing)}",
            "grant roles/compute.storageAdmin",
            "project",
        )


def _name(api: Api, options: GcpOptions, spec: Spec, task: Task) -> Iterator[Finding]:
    name = options.fill(spec)
    found = images.get(api, options.project, name, task)
    if found is None:
        return
    error: ConflictError | None
    if spec.digest:
        error = images.conflict(options, found, spec.digest)
    else:
        ours = identity.recognise(found.labels)
        error = None if ours else images.conflict(options, found, "")
    if error is not None:
        yield Finding("gcp.name", Severity.ERROR, error.message, error.hint, "name")
    else:
        yield Finding("gcp.exists", Severity.NOTE, f"the image {name} exists already", "", "name")
