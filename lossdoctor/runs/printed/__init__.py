"""What trainings print: lines of text, read without knowing the program that printed them."""

from lossdoctor.runs.printed.assembly import assembled, has_place, shown_places
from lossdoctor.runs.printed.parser import Parser

__all__ = ["Parser", "assembled", "has_place", "shown_places"]
