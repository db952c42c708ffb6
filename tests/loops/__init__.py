"""The training loops that guides teach, monitored in the obvious place.

Each is written anew in the structure people copy; `ledger` computes beside the loop, slowly and plainly, what Monitor
has to have recorded.
"""
