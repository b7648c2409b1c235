"""EC2's half of a snapshot: describe, copy, share, delete."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from typing import Any

from providers.aws.sandbox import rules
from providers.aws.sandbox.signature import Caller
from providers.aws.sandbox.store import Snapshot, Store, new_id
from providers.aws.sandbox.wire import Refused
from publisher.emulation import Faults

FIELDS: Mapping[str, rules.Field] = {
    "description": lambda s: [s.description],
    "encrypted": lambda s: [str(s.encrypted).lower()],
    "owner-id": lambda s: [s.owner],
    "snapshot-id": lambda s: [s.id],
    "status": lambda s: [s.state],
    "volume-size": lambda s: [str(s.size)],
}
_ID = re.compile(r"snap-[0-9a-f]{8,17}")


class Snapshots:
    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def visible(self, caller: Caller) -> list[Snapshot]:
        now = time.time()
        return [
            s
            for s in self._store.snapshots.values()
            if s.region == caller.region
            and s.visible <= now
            and (s.public or s.readable_by(caller.account.id))
        ]

    def find(self, id_: str, caller: Caller, *, own: bool = False) -> Snapshot:
        if not _ID.fullmatch(id_):
            raise Refused(
                "InvalidSnapshotID.Malformed", f"Value ({id_}) for parameter snapshotId is invalid."
            )
        found = [s for s in self.visible(caller) if s.id == id_]
        if not found:
            raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{id_}' does not exist.")
        if own and found[0].owner != caller.account.id:
            raise Refused("UnauthorizedOperation", "You are not authorized for this snapshot", 403)
        return found[0]

    def describe_snapshots(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        rules.check_filters(p.get("Filters", ()), FIELDS)
        if p.get("SnapshotIds") and p.get("MaxResults"):
            raise Refused(
                "InvalidParameterCombination",
                "The parameter snapshotSet cannot be used with the parameter maxResults",
            )
        chosen = (
            [self.find(id_, caller) for id_ in p["SnapshotIds"]]
            if p.get("SnapshotIds")
            else self.visible(caller)
        )
        owners = {caller.account.id if o == "self" else o for o in p.get("OwnerIds", ())}
        found = [
            s
            for s in chosen
            if (not owners or s.owner in owners)
            and rules.matches(s, p.get("Filters", ()), FIELDS, self._tags(s, caller))
        ]
        page, following = rules.paginate(found, p, 5, self._store.seal, self._store.open_seal)
        answer: dict[str, Any] = {"Snapshots": [self._described(s, caller) for s in page]}
        if following:
            answer["NextToken"] = following
        return answer

    @staticmethod
    def _tags(snapshot: Snapshot, caller: Caller) -> Mapping[str, str]:
        return snapshot.tags if snapshot.owner == caller.account.id else {}

    def _described(self, s: Snapshot, caller: Caller) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "SnapshotId": s.id,
            "VolumeId": "vol-ffffffff",
            "State": s.state,
            "StartTime": datetime.datetime.fromtimestamp(s.started, datetime.UTC),
            "Progress": "100%" if s.state == "completed" else "0%",
            "OwnerId": s.owner,
            "Description": s.description,
            "VolumeSize": s.size,
            "Encrypted": s.encrypted,
            "StorageTier": "standard",
            "Tags": rules.tag_list(self._tags(s, caller)),
        }
        if s.kms_key:
            answer["KmsKeyId"] = s.kms_key
        if s.state == "error":
            answer["StateMessage"] = "The snapshot was not completed within its timeout"
        return answer

    def copy_of(
        self, source: Snapshot, caller: Caller, tags: Mapping[str, str], p: Mapping[str, Any]
    ) -> Snapshot:
        """A copy in the caller's region, pending until it settles. Within `store.change`."""
        if p.get("KmsKeyId") and not p.get("Encrypted"):
            raise Refused("InvalidParameterCombination", "KmsKeyId needs Encrypted")
        default = self._store.settings.get(
            f"{caller.account.id}/{caller.region}/EbsEncryptionByDefault"
        )
        now = time.time()
        copy = Snapshot(
            new_id("snap"),
            caller.region,
            caller.account.id,
            source.size,
            p.get("Description") or f"[Copied {source.id} from {source.region}]",
            dict(tags),
            encrypted=source.encrypted or bool(p.get("Encrypted")) or default == "true",
            kms_key=p.get("KmsKeyId", ""),
            started=now,
            expires=now,
            visible=now + self._faults.visibility_delay,
            settles=rules.settle_time(),
        )
        self._store.blocks(source.id).share(self._store.path(copy.id))
        self._store.snapshots[copy.id] = copy
        return copy

    def copy_snapshot(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        tags = rules.specified_tags(p, ["snapshot"])["snapshot"]
        with self._store.change():
            there = Caller(caller.account, p["SourceRegion"], "ec2")
            source = self.find(p["SourceSnapshotId"], there)
            if source.state != "completed":
                raise Refused("IncorrectState", f"Snapshot is in state '{source.state}'")
            copy = self.copy_of(source, caller, tags, p)
        return {"SnapshotId": copy.id, "Tags": rules.tag_list(tags)}

    def users_of(self, id_: str) -> list[str]:
        """Ids of the images that are backed by this snapshot."""
        return [i.id for i in self._store.images.values() if id_ in i.snapshots]

    def delete_snapshot(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        with self._store.change():
            snapshot = self.find(p["SnapshotId"], caller, own=True)
            users = self.users_of(snapshot.id)
            if users:
                raise Refused(
                    "InvalidSnapshot.InUse",
                    f"The snapshot {snapshot.id} is currently in use by {users[0]}",
                )
            self._store.drop(snapshot.id)
        return {}

    def modify_snapshot_attribute(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        if p.get("Attribute", "createVolumePermission") != "createVolumePermission":
            raise Refused("InvalidParameterValue", "Only createVolumePermission can be modified")
        change = dict(p.get("CreateVolumePermission", {}))
        if p.get("OperationType"):
            entries = [{"UserId": u} for u in p.get("UserIds", ())]
            entries += [{"Group": g} for g in p.get("GroupNames", ())]
            change[p["OperationType"].capitalize()] = entries
        if not change.get("Add") and not change.get("Remove"):
            raise Refused("InvalidParameterCombination", "No permission to add or remove")
        with self._store.change():
            snapshot = self.find(p["SnapshotId"], caller, own=True)
            for entry in change.get("Add", ()):
                self._share(snapshot, entry, caller)
            for entry in change.get("Remove", ()):
                if "Group" in entry:
                    snapshot.public = False
                elif entry["UserId"] in snapshot.users:
                    snapshot.users.remove(entry["UserId"])
        return {}

    def _share(self, snapshot: Snapshot, entry: Mapping[str, str], caller: Caller) -> None:
        if snapshot.encrypted and (not snapshot.kms_key or "Group" in entry):
            raise Refused(
                "InvalidParameter",
                "Encrypted snapshots with EBS default key cannot be shared, and none made public",
            )
        if "Group" in entry:
            state = self._store.settings.get(
                f"{caller.account.id}/{caller.region}/SnapshotBlockPublicAccess", "unblocked"
            )
            if state != "unblocked":
                raise Refused(
                    "OperationNotPermitted",
                    "You can't publicly share this snapshot because block public access for "
                    "snapshots is enabled.",
                )
            snapshot.public = True
        elif not re.fullmatch(r"\d{12}", entry.get("UserId", "")):
            raise Refused("InvalidUserID.Malformed", f"Invalid user id: {entry.get('UserId')!r}")
        elif entry["UserId"] not in snapshot.users:
            snapshot.users.append(entry["UserId"])

    def describe_snapshot_attribute(self, caller: Caller, p: Mapping[str, Any]) -> dict[str, Any]:
        rules.dry_run(p)
        snapshot = self.find(p["SnapshotId"], caller, own=True)
        permissions: list[dict[str, str]] = [{"UserId": user} for user in snapshot.users]
        if snapshot.public:
            permissions.append({"Group": "all"})
        return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}
