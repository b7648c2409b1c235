"""Directories and buckets of disk files, with digests, signatures and an index."""
