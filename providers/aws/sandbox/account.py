"""The account's side: who am I, regions, quotas, switches, tags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from providers.aws.sandbox import rules
from providers.aws.sandbox.images import PUBLIC_QUOTA, Images
from providers.aws.sandbox.signature import Caller
from providers.aws.sandbox.snapshots import Snapshots
from providers.aws.sandbox.store import Image, Snapshot, Store
from providers.aws.sandbox.wire import Answer, Refused, json_answer

ENABLED = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
]
OPT_IN = [
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
]
QUOTAS = {"L-0E3CBAB9": ("Public AMIs", PUBLIC_QUOTA), "L-B665C33B": ("AMIs", 50_000)}
DEFAULT_KEY = "alias/aws/ebs"


class Settings:
    """Switches of the account in a region. The image switch starts as an account
    that publishes has it: unblocked (AWS's own default blocks)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, caller: Caller, name: str, default: str) -> str:
        return self._store.settings.get(f"{caller.account.id}/{caller.region}/{name}", default)

    def set(self, caller: Caller, name: str, value: str) -> None:
        with self._store.change():
            self._store.settings[f"{caller.account.id}/{caller.region}/{name}"] = value

    def get_image_block_public_access_state(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        state = self.get(caller, "ImageBlockPublicAccess", "unblocked")
        return {"ImageBlockPublicAccessState": state, "ManagedBy": "account"}

    def enable_image_block_public_access(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "ImageBlockPublicAccess", p["ImageBlockPublicAccessState"])
        return {"ImageBlockPublicAccessState": p["ImageBlockPublicAccessState"]}

    def disable_image_block_public_access(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "ImageBlockPublicAccess", "unblocked")
        return {"ImageBlockPublicAccessState": "unblocked"}

    def get_snapshot_block_public_access_state(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        return {"State": self.get(caller, "SnapshotBlockPublicAccess", "unblocked")}

    def enable_snapshot_block_public_access(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "SnapshotBlockPublicAccess", p["State"])
        return {"State": p["State"]}

    def disable_snapshot_block_public_access(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "SnapshotBlockPublicAccess", "unblocked")
        return {"State": "unblocked"}

    def get_ebs_encryption_by_default(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        on = self.get(caller, "EbsEncryptionByDefault", "false") == "true"
        return {"EbsEncryptionByDefault": on, "SseType": "sse-kms" if on else "none"}

    def enable_ebs_encryption_by_default(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "EbsEncryptionByDefault", "true")
        return {"EbsEncryptionByDefault": True}

    def disable_ebs_encryption_by_default(
        self, caller: Caller, p: Mapping[str, Any]
    ) -> dict[str, Any]:
        rules.dry_run(p)
        self.set(caller, "EbsEncryptionByDefault", "false")
        return {"EbsEncryptionByDefault": False}

    def get_ebs_default_kms_key_id(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        return {"KmsKeyId": self.get(caller, "EbsDefaultKmsKey", DEFAULT_KEY)}

    def describe_regions(self, _: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        wanted = p.get("RegionNames", ())
        for name in wanted:
            if name not in (*ENABLED, *OPT_IN):
                raise Refused("InvalidParameterValue", f"Invalid region provided: {name}")
        names = [*ENABLED, *(OPT_IN if p.get("AllRegions") else ())]
        regions = [
            {
                "RegionName": name,
                "Endpoint": f"ec2.{name}.amazonaws.com",
                "OptInStatus": "not-opted-in" if name in OPT_IN else "opt-in-not-required",
            }
            for name in names
            if not wanted or name in wanted
        ]
        return {"Regions": regions}


class Tags:
    def __init__(self, store: Store, images: Images, snapshots: Snapshots) -> None:
        self._store = store
        self._images = images
        self._snapshots = snapshots

    def _resources(self, caller: Caller, ids: list[str]) -> list[Image | Snapshot]:
        return [
            self._images.find(id_, caller, own=True)
            if id_.startswith("ami-")
            else self._snapshots.find(id_, caller, own=True)
            for id_ in ids
        ]

    def create_tags(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        tags = rules.check_tags(p["Tags"])
        with self._store.change():
            for resource in self._resources(caller, p["Resources"]):
                merged = {**resource.tags, **tags}
                rules.check_tags([{"Key": k, "Value": v} for k, v in merged.items()])
                resource.tags = merged
        return {}

    def delete_tags(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        with self._store.change():
            for resource in self._resources(caller, p["Resources"]):
                for tag in p.get("Tags") or rules.tag_list(resource.tags):
                    if tag.get("Value") in (None, resource.tags.get(tag["Key"])):
                        resource.tags.pop(tag["Key"], None)
        return {}


def identity(caller: Caller) -> dict[str, Any]:
    """GetCallerIdentity: an IAM user of the account."""
    return {
        "UserId": f"AIDA{caller.account.key[4:]}",
        "Account": caller.account.id,
        "Arn": f"arn:aws:iam::{caller.account.id}:user/publisher",
    }


def service_quota(target: str, body: bytes) -> Answer:
    """Service Quotas: GetServiceQuota of the two that concern images."""
    if not target.endswith(".GetServiceQuota"):
        raise Refused("UnknownOperationException", f"no such operation: {target}")
    wanted = json.loads(body)
    code = wanted.get("QuotaCode", "")
    if wanted.get("ServiceCode") != "ec2" or code not in QUOTAS:
        raise Refused("NoSuchResourceException", "The specified resource does not exist", 400)
    name, value = QUOTAS[code]
    quota = {"ServiceCode": "ec2", "QuotaCode": code, "QuotaName": name, "Value": float(value)}
    return json_answer({"Quota": {**quota, "Adjustable": True, "GlobalQuota": False}})
