"""Foreign files brought here: downloads that resume, digests, signatures, unpacking."""

from publisher.fetch.download import Fetched, SignedSums, Trust, fetch, resolve
from publisher.fetch.packed import unpack
from publisher.fetch.sums import Digest

__all__ = ["Digest", "Fetched", "SignedSums", "Trust", "fetch", "resolve", "unpack"]
