"""Guests under QEMU: accelerator, machine, console, shell, boots on trial."""
