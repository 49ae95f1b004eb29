from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from gen2real.curation.looking import look_at, same_picture_cosine, sample_of
from gen2real.imagesets import decode, perceptual_hash_views
from gen2real.models import load_dual_encoder


def drawn(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(3)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return paths


def test_one_look_tells_faults_blanks_and_hashes(tmp_path: Path) -> None:
    paths = drawn(tmp_path, 2)
    Image.new("RGB", (9, 9)).save(tmp_path / "flat.png")
    looks = look_at([paths[0], tmp_path / "missing.png", tmp_path / "flat.png", paths[1]])
    assert looks.faults == [None, "the file does not exist", None, None]
    assert looks.blank.tolist() == [False, False, True, False]
    assert looks.clear == [0, 3]
    assert looks.hashes[3] == perceptual_hash_views(decode(paths[1]))
    assert looks.hashes[1] == ("", "", "", "")
    assert looks.codes([3], 2).tolist() == [int(looks.hashes[3][2], 16)]


def test_what_one_picture_is_to_an_encoder_is_measured(tmp_path: Path, clip: Path) -> None:
    encoder = load_dual_encoder(clip)
    paths = drawn(tmp_path, 5)

    @torch.no_grad()
    def encoded(picture: Image.Image) -> torch.Tensor:
        return encoder.encode_image(encoder.preprocess.normalize(encoder.preprocess.geometry(picture)[None]))[0]

    pictures = [decode(path) for path in paths]
    features = torch.stack([encoded(picture) for picture in pictures])
    cropped = torch.stack([encoded(picture.crop((3, 2, 57, 38))) for picture in pictures])
    median = float(cosine_similarity(features, cropped).median())
    assert same_picture_cosine(encoder, paths, features, None, batch_size=2) == pytest.approx(median, abs=1e-6)
    # Pictures that are surely different, and nearer than that: the limit rises to where one in a hundred is.
    near = features[:1] + 1e-3 * features
    different = ~torch.eye(5, dtype=torch.bool)
    cosines = cosine_similarity(near[:, None], near[None], dim=-1).masked_fill(~different, -1).amax(dim=1)
    limit = float(np.quantile(cosines.numpy(), 0.99))
    assert limit > median
    assert same_picture_cosine(encoder, paths, near, different) == pytest.approx(limit, abs=1e-6)


def test_the_sample_is_spread_evenly() -> None:
    assert sample_of(3).tolist() == [0, 1, 2]
    rows = sample_of(10_000)
    assert (len(rows), int(rows[0]), int(rows[-1])) == (256, 0, 9999)
    assert set(rows.diff().tolist()) <= {39, 40}
