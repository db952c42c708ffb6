"""The words of a training in other languages."""

import pytest

from lossdoctor.runs.languages import in_english


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("第 3 轮 训练损失: 0.5, 验证准确率: 0.9", "epoch 3 train loss : 0.5, val accuracy : 0.9"),
        ("轮次: 3 学习率: 0.1", "epoch : 3 lr : 0.1"),
        ("Época 3/20 - pérdida: 0.5", "epoch 3/20 - loss : 0.5"),
        ("Эпоха 3, потери: 0.5", "epoch 3, loss : 0.5"),
        ("에포크 3 손실: 0.5 정확도: 0.9", "epoch 3 loss : 0.5 accuracy : 0.9"),
    ],
)
def test_what_a_training_measures_is_put_into_english(text, english):
    assert in_english(text).split() == english.split()


@pytest.mark.parametrize("text", ["loss: 0.5", " 50%|█████     | 5/10 [00:01<00:01, loss=0.5]", "épée → 3", "Σ=3 µ=4"])
def test_what_is_none_of_it_stays_as_it_is(text):
    assert in_english(text) == text
