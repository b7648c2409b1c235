"""Microsoft Azure: images as versions in a Compute Gallery."""
