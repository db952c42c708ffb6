"""Text and numbers made fit to print: nothing that a log holds can steer a terminal or shift a column.

Names, configuration and messages come from other people's programs. A control character, an escape sequence or a
right-to-left mark among them is shown as its code instead of being obeyed.
"""

import math
import unicodedata

__all__ = ["WIDER_THAN_ASCII", "compact", "cut", "number", "printable", "step_number"]

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories without a picture of their own: control, format (bidi marks, zero width), surrogates, …"""

WIDER_THAN_ASCII = str.maketrans(
    {
        "×": "x",
        "→": "->",
        "←": "<-",
        "…": "...",
        "–": "-",
        "—": "--",
        "−": "-",
        "≥": ">=",
        "≤": "<=",
        "≈": "~",
        "÷": "/",
        "±": "+/-",
        "·": "*",
        "σ": "sigma",  # noqa: RUF001
        "β": "beta",
        "’": "'",
        "‘": "'",  # noqa: RUF001
        "“": '"',
        "”": '"',
        "\u00a0": " ",
        "\u202f": " ",
    }
)
"""How the characters that rules like to use are spelled in ASCII."""


def printable(text: str, *, unicode: bool = True) -> str:
    r"""`text` on one line, with everything invisible or obeyed by terminals shown as its escape.

    With `unicode` false, what ASCII cannot spell is escaped too.

    >>> printable("loss\x1b[31m\u202e.exe")
    'loss\\x1b[31m\\u202e.exe'
    >>> printable("3e-3 → 1e-3", unicode=False)
    '3e-3 -> 1e-3'
    """
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in text)
    if unicode:
        return shown
    return shown.translate(WIDER_THAN_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def cut(text: str, most: int = 32) -> str:
    """`text` neutralised and not longer than a label may be.

    >>> cut("blocks.0.attention", 8)
    'blocks.…'
    """
    shown = printable(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def compact(text: str) -> str:
    r"""`text` with every run of white space as one blank: the paragraphs of a rule file's own prose, refilled.

    >>> compact("one\n  two")
    'one two'
    """
    return " ".join(text.split())


def number(value: float, spec: str = "", *, digits: int = 4) -> str:
    """A number as people write it, with so many digits unless `spec` (a format such as ``.0%``) says otherwise.

    >>> [number(v) for v in (412.0, 0.30000001, 3.2e-07, 123456.0, 1.5e9, float("nan"))]
    ['412', '0.3', '3.2e-7', '123456', '1.5e9', 'nan']
    >>> number(0.568, ".0%")
    '57%'
    """
    if not math.isfinite(value):
        return f"{value}"
    if spec:
        return format(int(value) if spec.endswith("d") else value, spec)
    if value == round(value) and abs(value) < 1e7:  # noqa: PLR2004 (eight digits are past reading)
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def step_number(step: float) -> str:
    """A step as it can be searched for in a log: all digits, no separators.

    >>> step_number(1200000.0), step_number(1.5)
    ('1200000', '1.5')
    """
    return f"{step:.0f}" if math.isfinite(step) and step == round(step) else f"{step:.6g}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
