"""EC2 images: register, copy, describe, share, deregister."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from providers.aws.sandbox import rules
from providers.aws.sandbox.signature import Caller
from providers.aws.sandbox.snapshots import Snapshots
from providers.aws.sandbox.store import Image, Store, new_id
from providers.aws.sandbox.wire import Refused
from publisher.emulation import Faults

PUBLIC_QUOTA = 5
NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
OPTIONAL = ("BootMode", "TpmSupport", "ImdsSupport", "EnaSupport", "SriovNetSupport", "UefiData")
FIELDS: Mapping[str, rules.Field] = {
    "architecture": lambda i: [i.architecture],
    "block-device-mapping.snapshot-id": lambda i: i.snapshots,
    "boot-mode": lambda i: [i.attributes.get("BootMode", "")],
    "description": lambda i: [i.description],
    "image-id": lambda i: [i.id],
    "is-public": lambda i: [str(i.public).lower()],
    "name": lambda i: [i.name],
    "owner-id": lambda i: [i.owner],
    "root-device-name": lambda i: [i.root_device],
    "root-device-type": lambda _: ["ebs"],
    "state": lambda i: [i.state],
    "virtualization-type": lambda i: [i.virtualization],
}
_ID = re.compile(r"ami-[0-9a-f]{8,17}")
_ORGANIZATION = re.compile(r"arn:aws[a-z-]*:organizations::\d{12}:organization/o-[a-z0-9]{10,32}")
_UNIT = re.compile(r"arn:aws[a-z-]*:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[a-z0-9-]+")


class Images:
    def __init__(self, store: Store, faults: Faults, snapshots: Snapshots) -> None:
        self._store = store
        self._faults = faults
        self._snapshots = snapshots

    def _visible(self, caller: Caller) -> list[Image]:
        now = time.time()
        return [
            i
            for i in self._store.images.values()
            if i.region == caller.region and i.visible <= now and i.launchable_by(caller.account.id)
        ]

    def find(self, id_: str, caller: Caller, *, own: bool = False) -> Image:
        if not _ID.fullmatch(id_):
            raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{id_}"')
        found = [i for i in self._visible(caller) if i.id == id_]
        if not found:
            if own and id_ in self._store.departed:
                raise Refused(
                    "InvalidAMIID.Unavailable", f"The image ID '{id_}' is no longer available"
                )
            raise Refused("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
        if own and found[0].owner != caller.account.id:
            raise Refused("AuthFailure", f"Not authorized for image:{id_}", 403)
        return found[0]

    # -- making

    def _check_name(self, name: str, caller: Caller) -> None:
        if not NAME.fullmatch(name):
            raise Refused(
                "InvalidAMIName.Malformed",
                "AMI names must be between 3 and 128 characters long, and may contain letters, "
                "numbers, '(', ')', '.', '-', '/', '_', and spaces",
            )
        for image in self._store.images.values():  # unique even while not visible yet
            if (image.name, image.region, image.owner) == (name, caller.region, caller.account.id):
                raise Refused(
                    "InvalidAMIName.Duplicate",
                    f"AMI name {name} is already in use by AMI {image.id}",
                )

    def register_image(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        tags = rules.specified_tags(p, ["image"])["image"]
        with self._store.change():
            self._check_name(p["Name"], caller)
            architecture = p.get("Architecture", "i386")
            mappings = [self._mapping(m, caller) for m in p.get("BlockDeviceMappings", ())]
            root = p.get("RootDeviceName", "")
            if root not in [m["DeviceName"] for m in mappings if m.get("Ebs")]:
                raise Refused("InvalidBlockDeviceMapping", "The root device is not in the mappings")
            attributes = {name: p[name] for name in OPTIONAL if name in p}
            self._check_attributes(attributes, architecture, p.get("VirtualizationType", ""))
            if len(p.get("Description", "")) > 255:
                raise Refused("InvalidParameterValue", "The description is too long")
            now = time.time()
            image = Image(
                new_id("ami"),
                caller.region,
                caller.account.id,
                p["Name"],
                p.get("Description", ""),
                architecture,
                root,
                p.get("VirtualizationType", "paravirtual"),
                mappings,
                attributes,
                tags,
                created=now,
                visible=now + self._faults.visibility_delay,
            )
            self._store.images[image.id] = image
        return {"ImageId": image.id}

    def _mapping(self, mapping: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        ebs = mapping.get("Ebs")
        if not mapping.get("DeviceName"):
            raise Refused("MissingParameter", "A block device mapping needs a DeviceName")
        if ebs is None:
            return dict(mapping)
        if "Encrypted" in ebs or "KmsKeyId" in ebs:
            raise Refused(
                "InvalidParameterDependency",
                "The encryption of a snapshot's volume can't be set in a mapping",
            )
        snapshot = self._snapshots.find(ebs.get("SnapshotId", ""), caller)
        if not snapshot.readable_by(caller.account.id):
            raise Refused(
                "InvalidSnapshot.NotFound", f"The snapshot '{snapshot.id}' does not exist"
            )
        if snapshot.state != "completed":
            raise Refused(
                "IncorrectState",
                f"Snapshot {snapshot.id} is in state '{snapshot.state}'; it must be 'completed'",
            )
        size = ebs.get("VolumeSize", snapshot.size)
        if size < snapshot.size:
            raise Refused(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', "
                f"expect size >= {snapshot.size}GB",
            )
        kind = ebs.get("VolumeType", "standard")
        full = {
            "SnapshotId": snapshot.id,
            "VolumeSize": size,
            "VolumeType": kind,
            "DeleteOnTermination": ebs.get("DeleteOnTermination", True),
            "Encrypted": snapshot.encrypted,
        }
        if kind == "gp3":
            full |= {"Iops": ebs.get("Iops", 3000), "Throughput": ebs.get("Throughput", 125)}
        return {"DeviceName": mapping["DeviceName"], "Ebs": full}

    @staticmethod
    def _check_attributes(attributes: Mapping[str, Any], architecture: str, kind: str) -> None:
        mode = attributes.get("BootMode", "")
        if architecture == "arm64" and mode not in ("", "uefi"):
            raise Refused("InvalidParameterCombination", "arm64 images boot by uefi only")
        if attributes.get("TpmSupport") and mode not in ("uefi", "uefi-preferred"):
            raise Refused("InvalidParameterCombination", "TpmSupport needs boot mode uefi")
        if attributes.get("EnaSupport") and kind != "hvm":
            raise Refused("InvalidParameterCombination", "EnaSupport needs virtualization type hvm")

    def copy_image(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        given = rules.specified_tags(p, ["image", "snapshot"])
        token = p.get("ClientToken", "")
        slot = f"{caller.account.id}/{caller.region}/CopyImage/{token}"
        wanted = {k: v for k, v in p.items() if k != "ClientToken"}
        digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
        with self._store.change():
            known = self._store.tokens.get(slot) if token else None
            if known and known[0] != digest:
                raise Refused(
                    "IdempotentParameterMismatch",
                    "The client token was used with other parameters before",
                )
            if known:
                return dict(known[1])
            there = Caller(caller.account, p["SourceRegion"], "ec2")
            source = self.find(p["SourceImageId"], there)
            if source.state != "available":
                raise Refused("InvalidAMIID.Unavailable", "The source image is not available")
            self._check_name(p["Name"], caller)
            mappings = []
            for mapping in source.mappings:
                if mapping.get("Ebs"):
                    original = self._store.snapshots[mapping["Ebs"]["SnapshotId"]]
                    if not original.public and not original.readable_by(caller.account.id):
                        raise Refused(
                            "InvalidRequest",
                            "You do not have permission to access the storage of this ami",
                        )
                    copy = self._snapshots.copy_of(original, caller, given["snapshot"], p)
                    ebs = {**mapping["Ebs"], "SnapshotId": copy.id, "Encrypted": copy.encrypted}
                    mapping = {**mapping, "Ebs": ebs}
                mappings.append(mapping)
            own = source.owner == caller.account.id
            now = time.time()
            image = Image(
                new_id("ami"),
                caller.region,
                caller.account.id,
                p["Name"],
                p.get("Description", ""),
                source.architecture,
                source.root_device,
                source.virtualization,
                mappings,
                {
                    **source.attributes,
                    "SourceImageId": source.id,
                    "SourceImageRegion": source.region,
                },
                {**(source.tags if own and p.get("CopyImageTags") else {}), **given["image"]},
                created=now,
                visible=now + self._faults.visibility_delay,
                settles=rules.settle_time(),
            )
            self._store.images[image.id] = image
            answer = {"ImageId": image.id}
            if token:
                self._store.tokens[slot] = [digest, answer]
            return answer

    # -- describing

    def describe_images(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        rules.check_filters(p.get("Filters", ()), FIELDS)
        chosen = (
            [self.find(id_, caller) for id_ in p["ImageIds"]]
            if p.get("ImageIds")
            else self._visible(caller)
        )
        owners = {caller.account.id if o == "self" else o for o in p.get("Owners", ())}
        found = [
            i
            for i in chosen
            if (not owners or i.owner in owners)
            and rules.matches(i, p.get("Filters", ()), FIELDS, self._tags(i, caller))
        ]
        page, following = rules.paginate(found, p, 1, self._store.seal, self._store.open_seal)
        answer: dict[str, Any] = {"Images": [self._described(i, caller) for i in page]}
        if following:
            answer["NextToken"] = following
        return answer

    @staticmethod
    def _tags(image: Image, caller: Caller) -> Mapping[str, str]:
        return image.tags if image.owner == caller.account.id else {}

    def _described(self, i: Image, caller: Caller) -> dict[str, Any]:
        created = datetime.datetime.fromtimestamp(i.created, datetime.UTC)
        return {
            "ImageId": i.id,
            "Name": i.name,
            "ImageLocation": f"{i.owner}/{i.name}",
            "Description": i.description,
            "State": i.state,
            "OwnerId": i.owner,
            "CreationDate": created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "Public": i.public,
            "Architecture": i.architecture,
            "ImageType": "machine",
            "PlatformDetails": "Linux/UNIX",
            "UsageOperation": "RunInstances",
            "Hypervisor": "xen",
            "RootDeviceName": i.root_device,
            "RootDeviceType": "ebs",
            "VirtualizationType": i.virtualization,
            "BlockDeviceMappings": i.mappings,
            "Tags": rules.tag_list(self._tags(i, caller)),
            **{k: v for k, v in i.attributes.items() if k != "UefiData"},
        }

    def describe_image_attribute(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        image = self.find(p["ImageId"], caller, own=True)
        answer: dict[str, Any] = {"ImageId": image.id}
        name = p["Attribute"]
        if name == "launchPermission":
            answer["LaunchPermissions"] = [
                *({"UserId": user} for user in image.users),
                *({"OrganizationArn": arn} for arn in image.organizations),
                *({"OrganizationalUnitArn": arn} for arn in image.units),
                *([{"Group": "all"}] if image.public else []),
            ]
        elif name == "description":
            answer["Description"] = {"Value": image.description}
        elif name == "blockDeviceMapping":
            raise Refused("AuthFailure", "Unauthorized attempt to access restricted resource", 403)
        else:
            member = name[0].upper() + name[1:]
            if member in image.attributes:
                answer[member] = {"Value": str(image.attributes[member])}
        return answer

    # -- sharing and removing

    def modify_image_attribute(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        with self._store.change():
            image = self.find(p["ImageId"], caller, own=True)
            if "Description" in p:
                image.description = p["Description"].get("Value", "")
                return {}
            if "ImdsSupport" in p:
                image.attributes["ImdsSupport"] = p["ImdsSupport"].get("Value")
                return {}
            change = dict(p.get("LaunchPermission", {}))
            if p.get("Attribute") == "launchPermission" and p.get("OperationType"):
                change[p["OperationType"].capitalize()] = [
                    *({"UserId": u} for u in p.get("UserIds", ())),
                    *({"Group": g} for g in p.get("UserGroups", ())),
                ]
            if not change.get("Add") and not change.get("Remove"):
                raise Refused("InvalidParameterCombination", "No attributes specified.")
            if image.state != "available":
                raise Refused("InvalidAMIID.Unavailable", "The image is not available")
            for entry in change.get("Add", ()):
                self._permit(image, entry, caller)
            for entry in change.get("Remove", ()):
                self._forbid(image, entry)
        return {}

    def _permit(self, image: Image, entry: Mapping[str, str], caller: Caller) -> None:
        snapshots = [self._store.snapshots[id_] for id_ in image.snapshots]
        if any(s.encrypted and ("Group" in entry or not s.kms_key) for s in snapshots):
            raise Refused(
                "InvalidParameter",
                "Snapshots encrypted with the AWS Managed CMK can't be shared, and no image with "
                "encrypted snapshots can be public",
            )
        if "Group" in entry:
            if not image.public:
                self._check_public(image, caller)
            image.public = True
            return
        for member, pattern, have, code in (
            ("UserId", re.compile(r"\d{12}"), image.users, "InvalidAMIAttributeItemValue"),
            ("OrganizationArn", _ORGANIZATION, image.organizations, "InvalidParameterValue"),
            ("OrganizationalUnitArn", _UNIT, image.units, "InvalidParameterValue"),
        ):
            if member not in entry:
                continue
            if not pattern.fullmatch(entry[member]):
                raise Refused(code, f'Invalid attribute item value "{entry[member]}"')
            if entry[member] not in have:
                have.append(entry[member])

    def _check_public(self, image: Image, caller: Caller) -> None:
        blocked = self._store.settings.get(
            f"{caller.account.id}/{caller.region}/ImageBlockPublicAccess", "unblocked"
        )
        if blocked != "unblocked":
            raise Refused(
                "OperationNotPermitted",
                "You can't publicly share this image because block public access for AMIs is "
                "enabled for this account. To publicly share the image, you must call the "
                "DisableImageBlockPublicAccess API.",
            )
        public = [
            i
            for i in self._store.images.values()
            if i.public and i.region == image.region and i.owner == image.owner
        ]
        if len(public) >= PUBLIC_QUOTA:
            raise Refused(
                "ResourceLimitExceeded",
                f"You have reached your quota of {PUBLIC_QUOTA} for the number of public images "
                "allowed in this Region. Deregister unused public images or make them private, "
                "or request an increase in your public AMIs quota.",
            )

    @staticmethod
    def _forbid(image: Image, entry: Mapping[str, str]) -> None:
        if "Group" in entry:
            image.public = False
        for member, have in (
            ("UserId", image.users),
            ("OrganizationArn", image.organizations),
            ("OrganizationalUnitArn", image.units),
        ):
            if entry.get(member) in have:
                have.remove(entry[member])

    def deregister_image(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        with self._store.change():
            image = self.find(p["ImageId"], caller, own=True)
            del self._store.images[image.id]
            self._store.departed.append(image.id)
            results = []
            for id_ in image.snapshots if p.get("DeleteAssociatedSnapshots") else ():
                code = "skipped" if self._snapshots.users_of(id_) else "success"
                if code == "success" and id_ in self._store.snapshots:
                    self._store.drop(id_)
                results.append({"SnapshotId": id_, "ReturnCode": code})
        return {"Return": True, "DeleteSnapshotResults": results}
