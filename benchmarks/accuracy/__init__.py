"""How often the doctor is right, on a corpus of real small trainings, with others beside it."""
