"""One training by several processes: what they agree upon, and how every rank does the same at the same step."""

__all__: list[str] = []
