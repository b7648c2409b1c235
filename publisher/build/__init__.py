"""From a recipe to a sealed disk: sources, the disk's layout, the steps, sealing."""

from publisher.build.builder import build

__all__ = ["build"]
