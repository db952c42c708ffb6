"""Whether the doctor helps: faults that can be cured while they happen, with and without it."""
