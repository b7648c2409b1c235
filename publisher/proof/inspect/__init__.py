"""Disks of unknown origin, read without mounting them: every read is bounded."""
