from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import ClassAccuracy, Confusion, classification_metrics


def test_three_pictures_by_hand() -> None:
    # Softmax of (ln 3, 0) is (3/4, 1/4): right at 3/4, wrong at 3/4, right at 3/4.
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    result = classification_metrics(logits, torch.tensor([0, 1, 1]), ["cat", "dog"])
    assert result.top1.mean == pytest.approx(2 / 3)
    assert result.top5.mean == 1.0
    assert result.per_class == (ClassAccuracy(0, "cat", 1, 1.0), ClassAccuracy(1, "dog", 2, 0.5))
    assert result.mean_per_class == 0.75
    assert result.calibration_error == pytest.approx(3 / 4 - 2 / 3)
    assert result.negative_log_likelihood == pytest.approx(-(2 * math.log(3 / 4) + math.log(1 / 4)) / 3)
    assert result.confusions == (Confusion(1, 0, "dog", "cat", 1),)
    assert result.correct.tolist() == [True, False, True]
    assert result.predicted.tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_torchmetrics(generator: torch.Generator, dtype: torch.dtype) -> None:
    logits = (2 * torch.randn(500, 12, generator=generator)).to(dtype)
    labels = torch.randint(12, (500,), generator=generator)
    logits[torch.arange(500), labels] += 1
    result = classification_metrics(logits, labels, [str(index) for index in range(12)])
    assert result.top1.mean == pytest.approx(float(multiclass_accuracy(logits, labels, 12, average="micro")))
    top5 = multiclass_accuracy(logits, labels, 12, average="micro", top_k=5)
    assert result.top5.mean == pytest.approx(float(top5))
    assert result.mean_per_class == pytest.approx(float(multiclass_accuracy(logits, labels, 12, average="macro")))
    error = multiclass_calibration_error(logits.softmax(dim=1), labels, 12, n_bins=15)
    assert result.calibration_error == pytest.approx(float(error), abs=1e-6)
    likelihood = torch.nn.functional.cross_entropy(logits, labels)
    assert result.negative_log_likelihood == pytest.approx(float(likelihood), rel=1e-6)
    assert result.correct.float().mean() == pytest.approx(result.top1.mean)
    assert result.top5_correct.float().mean() == pytest.approx(result.top5.mean)


def test_equal_logits_rank_by_class_index() -> None:
    result = classification_metrics(torch.zeros(7, 7), torch.arange(7), list("abcdefg"))
    assert result.predicted.tolist() == [0] * 7
    assert result.top5_correct.tolist() == [True] * 5 + [False] * 2


def test_classes_of_one_name_stay_apart() -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    result = classification_metrics(logits, torch.tensor([0, 1]), ["missile", "missile"])
    assert [(one.index, one.accuracy) for one in result.per_class] == [(0, 1.0), (1, 0.0)]
    assert result.confusions == (Confusion(1, 0, "missile", "missile", 1),)


def test_classes_without_pictures_have_no_accuracy_and_do_not_count() -> None:
    result = classification_metrics(torch.eye(3)[:2], torch.tensor([0, 1]), ["a", "b", "c"])
    assert result.per_class[2] == ClassAccuracy(2, "c", 0, None)
    assert result.mean_per_class == 1.0


def test_confusions_are_the_most_frequent_first_then_by_class() -> None:
    labels = torch.tensor([2, 2, 0, 1, 1, 0])
    taken = torch.tensor([1, 1, 2, 0, 2, 0])
    result = classification_metrics(torch.eye(3)[taken], labels, ["a", "b", "c"])
    assert [(one.true, one.predicted, one.count) for one in result.confusions] == [
        (2, 1, 2),
        (0, 2, 1),
        (1, 0, 1),
        (1, 2, 1),
    ]


def test_nothing_is_confused_when_all_is_right() -> None:
    result = classification_metrics(10 * torch.eye(4), torch.arange(4), list("abcd"))
    assert result.confusions == ()
    assert result.top1.mean == 1.0
    assert result.top1.low < 1.0


def test_certain_and_right_is_perfectly_calibrated() -> None:
    result = classification_metrics(1e4 * torch.eye(3), torch.arange(3), list("abc"))
    assert result.calibration_error == pytest.approx(0)
    assert result.negative_log_likelihood == pytest.approx(0)


def test_half_precision_logits_and_numpy_labels_are_taken() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]], dtype=torch.bfloat16)
    assert classification_metrics(logits, np.array([1, 1]), ["a", "b"]).correct.tolist() == [True, False]


def test_json_is_plain() -> None:
    plain = classification_metrics(torch.eye(3)[:2], torch.tensor([0, 2]), ["a", "b", "c"]).to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [
        "count",
        "top1",
        "top5",
        "mean_per_class",
        "calibration_error",
        "negative_log_likelihood",
        "per_class",
        "confusions",
    ]
    assert plain["per_class"][1] == {"index": 1, "name": "b", "count": 0, "accuracy": None}
    assert plain["confusions"] == [
        {"true": 2, "predicted": 1, "true_name": "c", "predicted_name": "b", "count": 1},
    ]


def test_logits_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \[2, 3\], but there are 4 class names"):
        classification_metrics(torch.zeros(2, 3), torch.tensor([0, 1]), list("abcd"))


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(ImageSetError, match="2 of 3 labels lie outside 0…1; the first is -1 at row 1"):
        classification_metrics(torch.zeros(3, 2), torch.tensor([0, -1, 2]), ["a", "b"])


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ImageSetError, match="no pictures"):
        classification_metrics(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), ["a", "b"])


@pytest.mark.usefixtures("unchecked")
def test_another_number_of_labels_is_refused() -> None:
    with pytest.raises(ImageSetError, match=r"\[3\] labels for 2 rows"):
        classification_metrics(torch.zeros(2, 2), torch.tensor([0, 1, 1]), ["a", "b"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_logits_are_refused(value: float) -> None:
    logits = torch.zeros(3, 2)
    logits[1, 0] = value
    with pytest.raises(ModelError, match="1 of 3 rows of logits hold NaN or infinity, the first at row 1"):
        classification_metrics(logits, torch.tensor([0, 1, 1]), ["a", "b"])
