"""Repairs of a running training: actions on it, snapshots to go back to, and who decides about both."""

from lossdoctor.remedies.agreement import Agreement
from lossdoctor.remedies.best import Best
from lossdoctor.remedies.ensemble import Ensemble
from lossdoctor.remedies.finite import weights_are_finite
from lossdoctor.remedies.policy import Policy, Proposal
from lossdoctor.remedies.rehearsal import Rehearsal
from lossdoctor.remedies.remediator import Remediator
from lossdoctor.remedies.treatments import Judge

__all__ = [
    "Agreement",
    "Best",
    "Ensemble",
    "Judge",
    "Policy",
    "Proposal",
    "Rehearsal",
    "Remediator",
    "weights_are_finite",
]
