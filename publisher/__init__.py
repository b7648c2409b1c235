"""Build a virtual machine image and publish it to every cloud at once."""

__version__ = "0.1.0"
