"""Repairs of a running training: actions on it, snapshots to go back to, and the policy that decides about both."""

from lossdoctor.remedies.policy import Best, Limits, Remediator
from lossdoctor.remedies.treatments import Judge

__all__ = ["Best", "Judge", "Limits", "Remediator"]
