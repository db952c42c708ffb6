"""Capture: from a running PyTorch training to rows, without waiting for a device and without changing a bit of it."""

__all__: list[str] = []
