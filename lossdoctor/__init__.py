"""Watches a PyTorch training, says what is wrong with it and since when, and can cure it.

`Monitor` records and cures a training; `analyze` judges what was recorded. Both are imported on first use, so that
reading and judging import no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossdoctor.analysis import analyze
    from lossdoctor.comparison import Comparison, compare
    from lossdoctor.lr_range import find_lr
    from lossdoctor.monitor import Monitor
    from lossdoctor.remedies import Policy, Proposal
    from lossdoctor.trials import trial

__all__ = ["Comparison", "Monitor", "Policy", "Proposal", "__version__", "analyze", "compare", "find_lr", "trial"]

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "lossdoctor.comparison",
    "Monitor": "lossdoctor.monitor",
    "Policy": "lossdoctor.remedies",
    "Proposal": "lossdoctor.remedies",
    "analyze": "lossdoctor.analysis",
    "compare": "lossdoctor.comparison",
    "find_lr": "lossdoctor.lr_range",
    "trial": "lossdoctor.trials",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'lossdoctor' has no attribute '{name}'"
        raise AttributeError(msg)
    try:
        home = importlib.import_module(_HOMES[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        msg = f"lossdoctor.{name} needs torch: pip install 'lossdoctor[torch]'"
        raise ModuleNotFoundError(msg, name="torch") from None
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
