"""The EBS direct APIs: snapshots written and read block by block.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from providers.aws.sandbox.rules import check_tags, settle_time
from providers.aws.sandbox.signature import Caller
from providers.aws.sandbox.store import BLOCK, Blocks, Snapshot, Store, new_id
from providers.aws.sandbox.wire import Answer, Refused, json_answer
from publisher.emulation import Faults

GIB = 1024**3
PENDING_QUOTA = 100
PAGE_LIFE = 3600
BLOCK_LIFE = 7 * 86400
_KEY_ARN = re.compile(r"arn:aws[a-z\-]*:kms:.*:[0-9]{12}:key/.*")
_FIELDS = frozenset(
    [
        "VolumeSize",
        "ParentSnapshotId",
        "Tags",
        "Description",
        "ClientToken",
        "Encrypted",
        "KmsKeyArn",
        "Timeout",
    ]
)


def invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> Refused:
    return Refused("ValidationException", message, 400, reason)


class Ebs:
    """`page_limit` is the most entries that one page of a list has, whatever MaxResults asks."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self.page_limit = 10_000
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("PUT", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)$"), self._put),
            ("GET", re.compile(r"/snapshots/([^/]+)/blocks/([^/]+)$"), self._get),
            ("GET", re.compile(r"/snapshots/([^/]+)/blocks$"), self._list),
            ("GET", re.compile(r"/snapshots/([^/]+)/changedblocks$"), self._changed),
            ("POST", re.compile(r"/snapshots/completion/([^/]+)$"), self._complete),
            ("POST", re.compile(r"/snapshots$"), self._start),
        ]

    def answer(
        self,
        caller: Caller,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        checksum: bytes,
    ) -> Answer:
        """`headers` are WSGI's HTTP_… variables; `checksum` is the body's SHA-256."""
        for verb, pattern, handler in self._routes:
            match = pattern.match(path)
            if verb == method and match:
                request = Request(caller, query, headers, body, checksum)
                return handler(request, *match.groups())
        raise Refused("UnknownOperationException", f"no such operation: {method} {path}", 404)

    # -- writing

    def _start(self, request: Request) -> Answer:
        try:
            wanted = json.loads(request.body)
        except ValueError as error:
            raise Refused("SerializationException", "The body is not JSON") from error
        caller, now = request.caller, time.time()
        _check_start(wanted)
        token = wanted.get("ClientToken", "")
        digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
        slot = f"{caller.account.id}/{caller.region}/StartSnapshot/{token}"
        with self._store.change():
            known = self._store.tokens.get(slot) if token else None
            if known and known[0] != digest:
                raise Refused(
                    "ConflictException",
                    "The request uses the same client token as a previous, different request",
                    409,
                )
            if known:
                return json_answer(known[1], 201)
            ours = [s for s in self._store.snapshots.values() if s.region == caller.region]
            if sum(s.owner == caller.account.id and not s.settles for s in ours) >= PENDING_QUOTA:
                raise Refused(
                    "ServiceQuotaExceededException",
                    f"There are {PENDING_QUOTA} pending snapshots already",
                    402,
                    "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
                )
            default = self._store.settings.get(
                f"{caller.account.id}/{caller.region}/EbsEncryptionByDefault"
            )
            snapshot = Snapshot(
                new_id("snap"),
                caller.region,
                caller.account.id,
                wanted["VolumeSize"],
                wanted.get("Description", ""),
                {tag["Key"]: tag.get("Value", "") for tag in wanted.get("Tags", ())},
                wanted.get("ParentSnapshotId", ""),
                bool(wanted.get("Encrypted")) or default == "true",
                wanted.get("KmsKeyArn", ""),
                started=now,
                expires=now + 60 * wanted.get("Timeout", 60),
                visible=now + self._faults.visibility_delay,
            )
            if snapshot.parent:
                self._inherit(snapshot, caller)
            self._store.snapshots[snapshot.id] = snapshot
            answer = {
                "SnapshotId": snapshot.id,
                "OwnerId": snapshot.owner,
                "Status": "pending",
                "StartTime": int(now),
                "VolumeSize": snapshot.size,
                "BlockSize": BLOCK,
                "Description": snapshot.description,
                "Tags": [{"Key": k, "Value": v} for k, v in snapshot.tags.items()],
                "SseType": "sse-kms" if snapshot.encrypted else "none",
            }
            if snapshot.parent:
                answer["ParentSnapshotId"] = snapshot.parent
            if snapshot.kms_key:
                answer["KmsKeyArn"] = snapshot.kms_key
            if token:
                self._store.tokens[slot] = [digest, answer]
            return json_answer(answer, 201)

    def _inherit(self, snapshot: Snapshot, caller: Caller) -> None:
        parent = self._find(snapshot.parent, caller)
        if parent.state != "completed" or parent.size > snapshot.size:
            raise invalid("The parent is not completed, or larger", "INVALID_SNAPSHOT_ID")
        snapshot.encrypted, snapshot.kms_key = parent.encrypted, parent.kms_key
        self._store.blocks(parent.id).bequeath(self._store.path(snapshot.id))

    def _writable(self, id_: str, caller: Caller) -> Snapshot:
        snapshot = self._find(id_, caller)
        if snapshot.owner != caller.account.id:
            raise _denied(id_)
        if snapshot.settles or snapshot.state != "pending":
            raise invalid(f"The snapshot {id_} is not in the pending state", "INVALID_SNAPSHOT_ID")
        return snapshot

    def _put(self, request: Request, id_: str, number: str) -> Answer:
        snapshot = self._writable(id_, request.caller)
        index = _block_index(number, snapshot)
        if request.header("x-amz-data-length") != str(BLOCK) or len(request.body) != BLOCK:
            raise invalid(f"The data length must be {BLOCK}", "INVALID_BLOCK")
        if request.header("x-amz-checksum-algorithm") != "SHA256":
            raise invalid("The checksum algorithm must be SHA256")
        progress = request.header("x-amz-progress")
        if progress and not (progress.isdigit() and int(progress) <= 100):
            raise invalid("The progress must be from 0 to 100")
        checksum = base64.b64encode(request.checksum).decode()
        if request.header("x-amz-checksum") != checksum:
            raise invalid("The checksum does not match the data", "INVALID_BLOCK")
        self._store.blocks(id_).put(index, request.body, request.checksum)
        headers = [("x-amz-Checksum", checksum), ("x-amz-Checksum-Algorithm", "SHA256")]
        return 201, headers, b""

    def _complete(self, request: Request, id_: str) -> Answer:
        with self._store.change():
            snapshot = self._writable(id_, request.caller)
            written = self._store.blocks(id_).written()
            count = request.header("x-amz-changedblockscount")
            if not count.isdigit() or int(count) != len(written):
                raise invalid(f"ChangedBlocksCount {count} is not what was written")
            checksum = request.header("x-amz-checksum")
            if checksum:
                if request.header("x-amz-checksum-algorithm") != "SHA256":
                    raise invalid("The checksum algorithm must be SHA256")
                if request.header("x-amz-checksum-aggregation-method") != "LINEAR":
                    raise invalid("The checksum aggregation method must be LINEAR")
                total = hashlib.sha256(b"".join(digest for _, digest in written)).digest()
                if base64.b64encode(total).decode() != checksum:
                    raise invalid("The checksum does not match the blocks")
            snapshot.settles = settle_time()
        return json_answer({"Status": "pending"}, 202)

    # -- reading

    def _find(self, id_: str, caller: Caller) -> Snapshot:
        if not re.fullmatch(r"snap-[0-9a-f]+", id_):
            raise invalid("The snapshot id is malformed", "INVALID_SNAPSHOT_ID")
        snapshot = self._store.snapshots.get(id_)
        if snapshot is None or snapshot.region != caller.region or snapshot.visible > time.time():
            raise Refused(
                "ResourceNotFoundException",
                f"The snapshot '{id_}' does not exist.",
                404,
                "SNAPSHOT_NOT_FOUND",
            )
        return snapshot

    def _readable(self, id_: str, caller: Caller) -> tuple[Snapshot, Blocks]:
        snapshot = self._find(id_, caller)
        if not snapshot.readable_by(caller.account.id):  # public is not enough
            raise _denied(id_)
        if snapshot.state != "completed":
            raise invalid(
                f"The snapshot {id_} is not in the completed state", "INVALID_SNAPSHOT_ID"
            )
        return snapshot, self._store.blocks(id_)

    def _get(self, request: Request, id_: str, number: str) -> Answer:
        snapshot, blocks = self._readable(id_, request.caller)
        index = _block_index(number, snapshot)
        kind, *parts = self._open(request.parameter("blockToken"), "INVALID_BLOCK_TOKEN")
        if [kind, *parts[:2]] != ["block", id_, str(index)] or index not in blocks.checksums:
            raise invalid("The block token is for another block", "INVALID_BLOCK_TOKEN")
        data = blocks.get(index)
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("x-amz-Data-Length", str(BLOCK)),
            ("x-amz-Checksum", checksum),
            ("x-amz-Checksum-Algorithm", "SHA256"),
        ]
        return 200, headers, data

    def _list(self, request: Request, id_: str) -> Answer:
        snapshot, blocks = self._readable(id_, request.caller)
        page, following = self._page(request, blocks.listed(), id_)
        expiry = int(time.time()) + BLOCK_LIFE
        entries = [{"BlockIndex": i, "BlockToken": self._token(id_, i, expiry)} for i in page]
        return self._listing("Blocks", entries, snapshot, expiry, following)

    def _changed(self, request: Request, id_: str) -> Answer:
        snapshot, second = self._readable(id_, request.caller)
        first_id = request.parameter("firstSnapshotId")
        first = self._readable(first_id, request.caller)[1].checksums if first_id else {}
        changed = sorted(
            i for i in {*first, *second.checksums} if first.get(i) != second.checksums.get(i)
        )
        page, following = self._page(request, changed, f"{first_id}~{id_}")
        expiry = int(time.time()) + BLOCK_LIFE
        entries = []
        for index in page:
            entry: dict[str, Any] = {"BlockIndex": index}
            if index in first:
                entry["FirstBlockToken"] = self._token(first_id, index, expiry)
            if index in second.checksums:
                entry["SecondBlockToken"] = self._token(id_, index, expiry)
            entries.append(entry)
        return self._listing("ChangedBlocks", entries, snapshot, expiry, following)

    def _page(self, request: Request, indices: list[int], listing: str) -> tuple[list[int], str]:
        """A page and the token of the next one. After every full page comes an empty
        one with a token, as the real service may answer."""
        most = request.parameter("maxResults")
        if most and not (most.isdigit() and 100 <= int(most) <= 10_000):
            raise invalid("MaxResults must be from 100 to 10000")
        size = min(int(most or 10_000), self.page_limit)
        start, blank = request.parameter("startingBlockIndex") or "0", False
        token = request.parameter("pageToken")
        if token:
            kind, of, start, turn, expiry = self._open(token, "INVALID_PAGE_TOKEN")
            if kind != "page" or of != listing or int(expiry) < time.time():
                raise invalid("The page token is not valid", "INVALID_PAGE_TOKEN")
            blank = turn == "blank"
        if not start.isdigit():
            raise invalid("StartingBlockIndex must be a number")
        rest = [i for i in indices if i >= int(start)]
        if blank:
            return [], self._next(listing, start, "full")
        page = rest[:size]
        return page, self._next(listing, str(rest[size]), "blank") if len(rest) > size else ""

    def _next(self, listing: str, start: str, turn: str) -> str:
        return self._store.seal(f"page|{listing}|{start}|{turn}|{int(time.time()) + PAGE_LIFE}")

    def _token(self, id_: str, index: int, expiry: int) -> str:
        return self._store.seal(f"block|{id_}|{index}|{expiry}")

    def _open(self, token: str, reason: str) -> list[str]:
        try:
            return self._store.open_seal(token).split("|")
        except (ValueError, binascii.Error) as error:
            raise invalid("The token is not valid", reason) from error

    @staticmethod
    def _listing(
        name: str, entries: list[dict[str, Any]], snapshot: Snapshot, expiry: int, following: str
    ) -> Answer:
        answer = {
            name: entries,
            "ExpiryTime": expiry,
            "VolumeSize": snapshot.size,
            "BlockSize": BLOCK,
        }
        if following:
            answer["NextToken"] = following
        return json_answer(answer)


class Request:
    def __init__(
        self, caller: Caller, query: str, headers: Mapping[str, str], body: bytes, checksum: bytes
    ) -> None:
        self.caller = caller
        self.body = body
        self.checksum = checksum
        self._headers = headers
        self._query = parse_qs(query)

    def header(self, name: str) -> str:
        return self._headers.get(f"HTTP_{name.upper().replace('-', '_')}", "")

    def parameter(self, name: str) -> str:
        return self._query.get(name, [""])[0]


def _denied(id_: str) -> Refused:
    return Refused(
        "AccessDeniedException",
        f"You are not authorized to access the snapshot {id_}",
        403,
        "UNAUTHORIZED_ACCOUNT",
    )


def _block_index(number: str, snapshot: Snapshot) -> int:
    if not number.isdigit() or int(number) * BLOCK >= snapshot.size * GIB:
        raise invalid(f"The block index {number} is beyond the volume", "INVALID_BLOCK")
    return int(number)


def _check_start(wanted: Any) -> None:
    if not isinstance(wanted, dict) or set(wanted) - _FIELDS:
        raise Refused("SerializationException", "The body has unknown members")
    size, timeout = wanted.get("VolumeSize"), wanted.get("Timeout", 60)
    if type(size) is not int or not 1 <= size <= 65_536:
        raise invalid("VolumeSize must be from 1 to 65536", "INVALID_VOLUME_SIZE")
    if type(timeout) is not int or not 10 <= timeout <= 4320:
        raise invalid("Timeout must be from 10 to 4320")
    token = wanted.get("ClientToken", "x")
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,64}", token):
        raise invalid("ClientToken must be at most 64 ASCII characters")
    if len(wanted.get("Description", "")) > 255:
        raise invalid("Description is longer than 255 characters")
    if wanted.get("Encrypted") is not None and wanted.get("ParentSnapshotId"):
        raise invalid("Encrypted and ParentSnapshotId exclude each other")
    key = wanted.get("KmsKeyArn")
    if key is not None and (not wanted.get("Encrypted") or not _KEY_ARN.fullmatch(key)):
        raise invalid("KmsKeyArn needs Encrypted and the ARN of a key", "INVALID_CUSTOMER_KEY")
    try:
        check_tags(wanted.get("Tags", ()))
    except Refused as error:
        raise invalid(error.message, "INVALID_TAG") from error
