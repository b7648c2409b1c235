"""Disk files for virtualization platforms: what qemu-img leaves open, and the OVA package."""
