"""How inputs are drawn: the same ones in every run of the suite, new ones where someone searches for a failure.

A change must fail for what it changed. `pytest --hypothesis-profile=search tests/runs` draws anew every time; what it
finds becomes a test of its own.
"""

from hypothesis import settings

settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("suite")
