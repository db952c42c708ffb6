"""Repairs of a running training: actions on it, snapshots to go back to, and who decides about both."""

from lossdoctor.remedies.choosing import Loop
from lossdoctor.remedies.finite import weights_are_finite
from lossdoctor.remedies.forks import TrainStep
from lossdoctor.remedies.keeping.best import Best
from lossdoctor.remedies.policy import Policy, Proposal
from lossdoctor.remedies.rehearsal import Rehearsal
from lossdoctor.remedies.remediator import Remediator
from lossdoctor.remedies.together.company import Company
from lossdoctor.remedies.together.ensemble import Ensemble
from lossdoctor.remedies.treatments import Judge

__all__ = [
    "Best",
    "Company",
    "Ensemble",
    "Judge",
    "Loop",
    "Policy",
    "Proposal",
    "Rehearsal",
    "Remediator",
    "TrainStep",
    "weights_are_finite",
]
