"""Compute images: register, find, release, withdraw, delete."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from providers.gcp import identity, operations
from providers.gcp.api import PROVIDER, Api, unless_gone
from providers.gcp.options import GLOBAL, GcpOptions, architecture, features
from publisher.errors import ConflictError, ProviderError
from publisher.model import Audience, Image, ImageState, Query, Spec, Upload
from publisher.task import Task

ROLE = "roles/compute.imageUser"
EVERYONE = "allAuthenticatedUsers"
NAMESPACE = uuid.UUID("7d1f9f4e-0d6c-4f0a-9c55-2f3f0b1f4a11")
ATTEMPTS = 20
SEEN, UNSEEN = 6.0, 60.0
"""Seconds for which an image may be out of sight: one that was there, and a new one."""
STATES: Mapping[str, ImageState] = {"READY": "available", "PENDING": "pending"}


def parse(ref: str) -> tuple[str, str]:
    """(project, image) of "PROJECT/IMAGE". Raises ProviderError."""
    project, _, name = ref.partition("/")
    if not project or not name or "/" in name:
        raise ProviderError(
            f"{ref!r} is no reference to an image", provider=PROVIDER, hint="gcp:PROJECT/IMAGE"
        )
    return project, name


def get(api: Api, project: str, name: str, task: Task) -> Any | None:
    """The image as the API has it, or None."""

    return task.retry(
        lambda: unless_gone(lambda: api.call("images", "get", project=project, image=name))
    )


def status(resource: Any) -> str:
    """READY, PENDING, FAILED or DELETING."""
    return str(getattr(resource.status, "name", resource.status))


def describe(api: Api, project: str, resource: Any, task: Task) -> Image:
    """The Image of one of our images, with the audience that its policy has."""
    spec = identity.recognise(resource.labels)
    known = spec or Spec(resource.name, "")
    return Image(
        provider=PROVIDER,
        region=GLOBAL,
        ref=f"{project}/{resource.name}",
        name=known.name,
        version=known.version,
        digest=known.digest,
        state=STATES.get(status(resource), "failed"),
        audience=audience(api, project, resource.name, task),
        details={
            "name": resource.name,
            "id": str(resource.id),
            "family": resource.family,
            "architecture": resource.architecture,
            "guest_os_features": ",".join(sorted(f.type_ for f in resource.guest_os_features)),
        },
        uid=str(resource.id),
    )


# -- register


def body(options: GcpOptions, spec: Spec, upload: Upload) -> dict[str, Any]:
    """The request body of images.insert."""
    image: dict[str, Any] = {
        "name": options.fill(spec),
        "description": spec.description,
        "architecture": architecture(spec),
        "labels": identity.labels(options, spec),
        "guest_os_features": [{"type_": feature} for feature in features(options, spec)],
        "raw_disk": {
            "source": f"https://storage.googleapis.com/{upload.ref}",
            "container_type": "TAR",
        },
    }
    if family := options.family_name(spec):
        image["family"] = family
    if options.storage_locations:
        image["storage_locations"] = list(options.storage_locations)
    if options.licenses:
        image["licenses"] = list(options.licenses)
    if options.kms_key:
        image["image_encryption_key"] = {"kms_key_name": options.kms_key}
    return image


def request_id(options: GcpOptions, spec: Spec, attempt: int) -> str:
    """The same on every machine, so that a second insert re-attaches to the first."""
    identity_text = "/".join(
        (options.project, options.fill(spec), spec.version, spec.digest, str(attempt))
    )
    return str(uuid.uuid5(NAMESPACE, identity_text))


def conflict(options: GcpOptions, resource: Any, digest: str) -> ConflictError | None:
    """What is wrong with an image that has our name already; None if it is ours."""
    spec = identity.recognise(resource.labels)
    if spec is not None and spec.digest == digest:
        return None
    other = "was not made by this program" if spec is None else "holds another disk"
    return ConflictError(
        f"the image {resource.name} exists in the project {options.project} and {other}",
        provider=PROVIDER,
        code="alreadyExists",
        key="targets.gcp.name",
        hint="publish under another version or name, or delete that image first",
    )


def register(api: Api, options: GcpOptions, upload: Upload, spec: Spec, task: Task) -> Any:
    """The image as the API has it once it is READY."""
    name = options.fill(spec)
    found = get(api, options.project, name, task)
    if found is not None:
        if error := conflict(options, found, spec.digest):
            raise error
        if status(found) == "FAILED":
            _remove(api, options.project, name, task)
        elif status(found) != "DELETING":
            ready = _ready(api, options, name, task, SEEN)
            if ready is not None:
                return ready
    return _insert(api, options, upload, spec, task)


def _insert(api: Api, options: GcpOptions, upload: Upload, spec: Spec, task: Task) -> Any:
    """images.insert, each attempt with a requestId of its own. An id whose
    operation was over before we asked belongs to the past: it failed then, or
    its image was deleted since."""
    name = options.fill(spec)
    image = body(options, spec, upload)
    for attempt in range(int(task.memory.get("attempt", 0)), ATTEMPTS):
        task.memory.set("attempt", attempt)
        task.phase("creating the image")
        identifier = request_id(options, spec, attempt)

        def insert(identifier: str = identifier) -> Any:
            return api.call(
                "images",
                "insert_unary",
                project=options.project,
                request_id=identifier,
                image_resource=image,
            )

        try:
            operation = task.retry(insert)
        except ConflictError:
            found = get(api, options.project, name, task)
            if found is None:
                continue
            if error := conflict(options, found, spec.digest):
                raise error from None
            operation = None
        if operation is not None and operations.finished(operation):
            found = get(api, options.project, name, task)
            if operations.failure(operation) or found is None:
                continue
            return found
        try:
            if operation is not None:
                operations.wait(api, options.project, operation, task, "waiting for the image")
        except ProviderError as error:
            if not error.transient:
                raise
            task.sleep(min(2.0**attempt, 60.0))
            continue
        ready = _ready(api, options, name, task, UNSEEN)
        if ready is not None:
            return ready
    task.memory.forget("attempt")
    raise ProviderError(
        f"the image {name} could not be created in {ATTEMPTS} attempts", provider=PROVIDER
    )


def _ready(api: Api, options: GcpOptions, name: str, task: Task, absent: float) -> Any | None:
    """Wait until the image is READY; None if it does not show for `absent` seconds,
    as one does whose creation failed. Raises ProviderError if it failed otherwise."""
    last_seen = task.clock.monotonic()

    def probe() -> tuple[Any | None] | None:
        nonlocal last_seen
        found = get(api, options.project, name, task)
        if found is None:
            patience = task.clock.monotonic() - last_seen
            return (None,) if patience >= absent else None
        last_seen = task.clock.monotonic()
        if status(found) in ("FAILED", "DELETING"):
            raise ProviderError(
                f"the image {name} is {status(found)}",
                provider=PROVIDER,
                hint="run the same command again",
            )
        return (found,) if status(found) == "READY" else None

    (image,) = operations.poll(task, probe, timeout=3600.0, what="waiting for the image")
    return image


# -- find, delete


def find(api: Api, options: GcpOptions, query: Query, task: Task) -> Sequence[Image]:
    """All matching images of the project, with state and audience."""
    try:
        text = identity.list_filter(query)
    except ValueError:
        return []
    resources = task.retry(
        lambda: api.all("images", project=options.project, filter=text, max_results=500)
    )
    found = []
    for resource in resources:
        spec = identity.recognise(resource.labels)
        if spec is not None and query.matches(
            name=spec.name, version=spec.version, digest=spec.digest, run=spec.run
        ):
            found.append(describe(api, options.project, resource, task))
    return found


def _remove(api: Api, project: str, name: str, task: Task) -> None:
    """Delete the image and wait; gone already is fine."""
    identifier = str(uuid.uuid4())

    def call() -> Any:
        return api.call(
            "images", "delete_unary", project=project, image=name, request_id=identifier
        )

    operation = task.retry(lambda: unless_gone(call))
    if operation is not None:
        unless_gone(lambda: operations.wait(api, project, operation, task, "deleting the image"))


def delete(api: Api, image: Image, task: Task) -> None:
    project, name = parse(image.ref)
    found = get(api, project, name, task)
    if found is None:
        return
    spec = identity.recognise(found.labels)
    if image.digest and (spec is None or spec.digest != image.digest):
        raise ConflictError(
            f"the image {image.ref} holds another disk by now: it is not deleted",
            provider=PROVIDER,
        )
    _remove(api, project, name, task)


# -- who may use it


def _policy(api: Api, project: str, name: str) -> Any:
    return api.call(
        "images",
        "get_iam_policy",
        project=project,
        resource=name,
        options_requested_policy_version=3,
    )


def _ours(binding: Any) -> bool:
    return bool(binding.role == ROLE and not binding.condition.expression)


def audience(api: Api, project: str, name: str, task: Task) -> Audience:
    """What the image's policy says."""
    policy = task.retry(lambda: _policy(api, project, name))
    members = sorted({m for b in policy.bindings if _ours(b) for m in b.members})
    if EVERYONE in members:
        return Audience("public")
    return Audience("shared", tuple(members)) if members else Audience()


def members(audience: Audience) -> tuple[str, ...]:
    """The principals of an audience. Raises ProviderError for what is none."""
    if audience.kind == "public":
        return (EVERYONE,)
    if audience.kind == "private":
        return ()
    for account in audience.accounts:
        if ":" not in account:
            raise ProviderError(
                f"{account!r} is no principal",
                provider=PROVIDER,
                key="release.accounts",
                hint="write user:ADDRESS, group:ADDRESS, serviceAccount:ADDRESS or domain:NAME",
            )
    return audience.accounts


def allow(api: Api, image: Image, members: Iterable[str], task: Task) -> None:
    """Give the role to exactly these principals; other roles stay as they are.

    Read, change, set with the etag that was read; begin again when somebody
    else was faster (https://cloud.google.com/iam/docs/policies#etag)."""
    project, name = parse(image.ref)
    wanted = sorted(set(members))

    def change() -> None:
        policy = _policy(api, project, name)
        have = sorted({m for b in policy.bindings if _ours(b) for m in b.members})
        if have == wanted:
            return
        bindings = [binding for binding in policy.bindings if not _ours(binding)]
        if wanted:
            bindings.append({"role": ROLE, "members": wanted})
        request = {"policy": {"bindings": bindings, "etag": policy.etag, "version": policy.version}}
        try:
            api.call(
                "images",
                "set_iam_policy",
                project=project,
                resource=name,
                global_set_policy_request_resource=request,
            )
        except ConflictError as error:
            error.transient = True
            raise

    task.retry(change)
