"""Logs in other languages: the few words that name what a training measures, put into English."""

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["in_english"]

_ENGLISH: Mapping[str, str] = MappingProxyType(
    {
        # Chinese and Japanese
        **dict.fromkeys(("训练", "訓練", "学習"), "train"),
        **dict.fromkeys(("验证", "驗證", "検証"), "val"),
        **dict.fromkeys(("测试", "測試", "テスト"), "test"),
        **dict.fromkeys(("损失", "損失", "损失值", "損失值"), "loss"),
        **dict.fromkeys(("准确率", "準確率", "正确率", "正確率", "准确度", "精度", "正解率"), "accuracy"),
        **dict.fromkeys(("学习率", "學習率", "学習率"), "lr"),
        **dict.fromkeys(("轮次", "轮数", "轮", "輪次", "輪", "エポック"), "epoch"),
        **dict.fromkeys(("步数", "步", "迭代", "ステップ"), "step"),
        # Korean
        **dict.fromkeys(("훈련", "학습"), "train"),
        **dict.fromkeys(("검증",), "val"),
        **dict.fromkeys(("테스트",), "test"),
        **dict.fromkeys(("손실",), "loss"),
        **dict.fromkeys(("정확도",), "accuracy"),
        **dict.fromkeys(("학습률",), "lr"),
        **dict.fromkeys(("에폭", "에포크"), "epoch"),
        # Russian
        **dict.fromkeys(("эпоха", "эпохи"), "epoch"),
        **dict.fromkeys(("потери", "потеря", "лосс"), "loss"),
        **dict.fromkeys(("точность",), "accuracy"),
        **dict.fromkeys(("обучение", "обучения"), "train"),
        **dict.fromkeys(("валидация", "валидации"), "val"),
        # Spanish, Portuguese, French
        **dict.fromkeys(("época", "épocas", "époque"), "epoch"),
        **dict.fromkeys(("pérdida", "perdida"), "loss"),
        **dict.fromkeys(("precisión", "acurácia", "précision"), "accuracy"),
        **dict.fromkeys(("validación", "validação"), "val"),
    }
)
_WORDS = re.compile("|".join(sorted(map(re.escape, _ENGLISH), key=len, reverse=True)))
_LETTER = re.compile("[\u00c0-\u024f\u0400-\u04ff\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
"""A letter that no English word has; bars and arrows have none."""
_ORDINAL = re.compile(r"第\s?(\d{1,9})\s?(?:个|個)?\s?(轮|輪|步|エポック|epoch)次?")


def in_english(text: str) -> str:
    """A line or a name with its words for losses, splits and places in English; ASCII comes back as it is.

    >>> in_english("第3轮 训练损失: 0.5"), in_english("val_pérdida"), in_english("loss")
    ('epoch 3 train loss : 0.5', 'val_ loss ', 'loss')
    """
    if text.isascii() or _LETTER.search(text) is None:
        return text
    text = _ORDINAL.sub(lambda match: f"{_ENGLISH.get(match[2], match[2])} {match[1]}", text)
    return _WORDS.sub(lambda match: f" {_ENGLISH[match[0]]} ", text.lower() if _is_cased(text) else text).replace(
        "  ", " "
    )


def _is_cased(text: str) -> bool:
    """Whether a word of the table may be written with a capital: Época, Эпоха."""
    return any("\u00c0" <= letter <= "\u04ff" and letter.isupper() for letter in text)
