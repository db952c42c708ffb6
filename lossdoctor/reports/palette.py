"""Colours of plots and pages, on light and on dark paper: after Okabe and Ito, so that any colour vision tells them.

Warm colours are kept for trouble. Sources: M. Okabe, K. Ito, "Color Universal Design" (2008); for heat maps cividis,
J. R. Nuñez et al., PLoS ONE 13(7), 2018.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["DARK", "HEAT", "LIGHT", "RUNS"]

RUNS = 8
"""Colours for runs beside each other: "run-0" to "run-7"."""

_BOTH = {"error-fill": "#d55e00", "warning-fill": "#e69f00", "info-fill": "#56b4e9", "good-fill": "#009e73"}


def _numbered(*colours: str) -> dict[str, str]:
    return {f"run-{number}": colour for number, colour in enumerate(colours)}


LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#fdfdfc",
        "card": "#ffffff",
        "ink": "#1d2127",
        "faint": "#5f6773",
        "rule": "#dde0e4",
        "grid": "#eceef0",
        "zero": "#b9bec5",
        "train": "#0072b2",
        "val": "#00795a",
        "second": "#a4527d",
        "act": "#8a3f7c",
        "error": "#b84700",
        "warning": "#8a5f09",
        "info": "#2c6f9e",
        "good": "#00795a",
        **_numbered("#0072b2", "#d55e00", "#00795a", "#a4527d", "#c08a00", "#3a9bd9", "#1d2127", "#7b5cc4"),
        **_BOTH,
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#14171b",
        "card": "#1b1f25",
        "ink": "#e4e7ea",
        "faint": "#9aa3ae",
        "rule": "#333a43",
        "grid": "#262c33",
        "zero": "#565e68",
        "train": "#56b4e9",
        "val": "#2fc79b",
        "second": "#dd94bc",
        "act": "#dd94bc",
        "error": "#ff8d4a",
        "warning": "#f0b63a",
        "info": "#7cc4ef",
        "good": "#2fc79b",
        **_numbered("#56b4e9", "#ff8d4a", "#2fc79b", "#dd94bc", "#f0c24a", "#8fd0ff", "#e4e7ea", "#b39cf0"),
        **_BOTH,
    }
)

HEAT = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838")
"""Cividis in nine steps."""
