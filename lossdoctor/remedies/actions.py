"""The things a doctor can do to a running training, by the names rules prescribe them by."""

from collections.abc import Mapping
from types import MappingProxyType

from lossdoctor.remedies.action import Action
from lossdoctor.remedies.returning import early_stop, rewind
from lossdoctor.remedies.turning import (
    loosen_clipping,
    lower_loss_scale,
    scale_lr,
    scale_weight_decay,
    skip_batch,
    tighten_clipping,
    warm_up_again,
)

__all__ = ["ACTIONS"]

ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "scale_lr": scale_lr,
        "warm_up_again": warm_up_again,
        "scale_weight_decay": scale_weight_decay,
        "tighten_clipping": tighten_clipping,
        "loosen_clipping": loosen_clipping,
        "skip_batch": skip_batch,
        "lower_loss_scale": lower_loss_scale,
        "rewind": rewind,
        "early_stop": early_stop,
    }
)
"""What a prescription may ask for, besides `skip_step`, which is always in force."""
