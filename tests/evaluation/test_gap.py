from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import (
    GapReport,
    cmmd,
    frechet,
    kernel_distance,
    measure_diversity,
    measure_gap,
    modality_gap,
    precision_recall,
    two_sample_test,
)


@pytest.fixture
def sets(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(60, 8, generator=generator) + 1, torch.randn(60, 8, generator=generator)


def test_report_holds_each_measure(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    report = measure_gap(*sets, seed=2)
    assert (report.generated, report.real, report.dimension) == (60, 60, 8)
    assert report.frechet == frechet(*sets, seed=2)
    assert report.kernel == kernel_distance(*sets, seed=2)
    assert report.cmmd == cmmd(*sets)
    assert report.modality == modality_gap(*sets)
    assert report.two_sample == two_sample_test(*sets, seed=2)
    assert report.precision_recall == precision_recall(*sets)
    assert (report.generated_diversity, report.real_diversity) == tuple(measure_diversity(side) for side in sets)
    assert (report.class_cosine, report.classes, report.notes) == (None, (), ())


def test_report_repeats_itself_and_takes_either_precision(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    generated, real = sets
    assert measure_gap(generated, real) == measure_gap(generated, real)
    assert measure_gap(generated, real) == measure_gap(generated.double(), real.double())


def test_json_is_plain_and_complete(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    labels = torch.arange(60) % 3
    plain = measure_gap(*sets, generated_labels=labels, real_labels=labels.numpy()).to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(GapReport)]


def test_reading_of_a_wide_gap(generator: torch.Generator) -> None:
    real = torch.randn(200, 4, generator=generator)
    report = measure_gap(torch.randn(200, 4, generator=generator) + 5, real)
    assert "apart in 100 % of cases" in report.reading
    assert "wide gap" in report.reading
    assert "about 100 % of the Fréchet distance beyond chance" in report.reading


def test_reading_of_no_gap(generator: torch.Generator) -> None:
    report = measure_gap(torch.randn(200, 4, generator=generator), torch.randn(200, 4, generator=generator))
    assert "not tell the sets apart better than chance" in report.reading
    assert "wide" not in report.reading


def test_reading_says_what_a_linear_classifier_cannot_see(generator: torch.Generator) -> None:
    real = torch.randn(200, 4, generator=generator)
    report = measure_gap(0.5 * torch.randn(200, 4, generator=generator), real)
    assert "features vary 0.5" in report.reading


def test_reading_of_sets_that_do_not_vary() -> None:
    report = measure_gap(torch.ones(4, 3), torch.ones(4, 3))
    assert "better than chance" in report.reading
    assert "vary" not in report.reading
    json.dumps(report.to_json(), allow_nan=False)


def test_few_pictures_and_unequal_sets_are_noted(generator: torch.Generator) -> None:
    notes = measure_gap(torch.randn(6, 9, generator=generator), torch.randn(7, 9, generator=generator)).notes
    assert any("6 pictures do not determine a covariance of 9 dimensions" in note for note in notes)
    assert any("differ in size (6 and 7)" in note for note in notes)


def test_pictures_in_both_sets_are_noted(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    generated, real = sets
    mixed = torch.cat([generated[:-2], real[:2]])
    assert any(note.startswith("2 generated pictures have exactly") for note in measure_gap(mixed, real).notes)


def test_large_sets_are_cut_for_what_grows_with_the_square(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    report = measure_gap(*sets, max_pictures=20)
    assert any("at most 20 pictures" in note for note in report.notes)
    assert report.generated == 60


def test_class_gaps_by_hand() -> None:
    generated = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 4.0], [9.0, 9.0]])
    real = torch.tensor([[1.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, -1.0]])
    report = measure_gap(
        generated, real, generated_labels=np.array([0, 1, 1, -1]), real_labels=torch.tensor([0, 1, 1, 2])
    )
    assert [(one.label, one.generated, one.real) for one in report.classes] == [(0, 1, 1), (1, 2, 2)]
    assert [one.cosine for one in report.classes] == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])
    assert report.class_cosine == pytest.approx(math.sqrt(0.5))
    assert any(note.startswith("1 classes have pictures in one") for note in report.notes)


def test_another_mix_of_classes_is_noted(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    even, skewed = torch.arange(60) % 2, (torch.arange(60) % 4 == 0).long()
    notes = measure_gap(*sets, generated_labels=even, real_labels=skewed).notes
    assert any("25 % of the pictures" in note for note in notes)
    assert measure_gap(*sets, generated_labels=even, real_labels=even).notes == ()


def test_labels_of_one_side_are_refused(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ImageSetError, match="real_labels is missing"):
        measure_gap(*sets, generated_labels=torch.zeros(60, dtype=torch.long))


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    generated, real = sets
    with pytest.raises(ModelError, match="encode both with one encoder"):
        measure_gap(generated, real[:, :5])
    labels = torch.zeros(60, dtype=torch.long)
    with pytest.raises(ImageSetError, match=r"\[59\] labels for 60 real pictures"):
        measure_gap(generated, real, generated_labels=labels, real_labels=labels[1:])


def test_importing_the_room_needs_no_transformers() -> None:
    heavy = ("transformers", "scipy", "torchvision", "sklearn")
    code = f"import sys, gen2real.evaluation; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
