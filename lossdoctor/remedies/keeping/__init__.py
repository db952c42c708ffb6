"""Copies of a training's state to go back to: what there is, where copies are kept, which are sound."""

__all__: list[str] = []
