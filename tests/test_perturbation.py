"""Regions, ranks and the perturbation curve against loops."""

import pytest
import torch

from canonxai.batch_size import BatchSize
from canonxai.perturbation import paste, perturbation_curve, perturbed_pixels, ranks, region_scores


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 5), (1, 8)])
def test_region_scores_are_sums_over_pixels(size, height, width):
    # of integers, so that any order of summation gives the same
    heatmap = torch.randint(-9, 10, (3, height, width), generator=generator(0)).double()
    expected = [
        [
            [
                sum(
                    heatmap[sample, y, x].item()
                    for y in range(top, min(top + size, height))
                    for x in range(left, min(left + size, width))
                )
                for left in range(0, width, size)
            ]
            for top in range(0, height, size)
        ]
        for sample in range(3)
    ]
    assert region_scores(heatmap, size).tolist() == expected


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
@pytest.mark.parametrize("tie_levels", [3, 2**62])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_sorted(levels, tie_levels, seed):
    scores = torch.randint(-levels // 2, levels // 2 + 1, (4, 5, 6), generator=generator(seed)) / 4
    ties = torch.randint(-tie_levels, tie_levels, (4, 30), generator=generator(seed + 100))
    rank = ranks(scores, ties)
    assert rank.shape == scores.shape
    for sample in range(4):
        values, tie = scores[sample].flatten().tolist(), ties[sample].tolist()
        order = sorted(range(30), key=lambda region: (-values[region], tie[region], region))
        assert [rank[sample].flatten()[region].item() for region in order] == list(range(30))


def test_positive_and_negative_zero_are_equal():
    ties = torch.randint(-(2**62), 2**62, (1, 40), generator=generator(0))
    zero = torch.zeros(1, 5, 8)
    signed = torch.where(torch.rand(1, 5, 8, generator=generator(1)) < 0.5, zero, -zero)
    assert signed.signbit().any()
    assert torch.equal(ranks(signed, ties), ranks(zero, ties))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 5), (1, 8)])
def test_each_pixel_has_the_rank_of_its_region(size, height, width):
    rows, columns = -(-height // size), -(-width // size)
    rank = torch.stack([torch.randperm(rows * columns, generator=generator(s)).view(rows, columns) for s in range(3)])
    pixels = perturbed_pixels(rank, size, height, width)
    assert pixels.shape == (3, height, width)
    for sample in range(3):
        for y in range(height):
            for x in range(width):
                assert pixels[sample, y, x] == rank[sample, y // size, x // size]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_curve_scores_each_sample_with_its_first_ranks_replaced(batch_size):
    image, noise = torch.randint(0, 256, (2, 3, 2, 4, 5), generator=generator(0)).to(torch.uint8)
    rank = torch.stack([torch.randperm(20, generator=generator(s)).view(4, 5) for s in range(3)])
    counts = [0, 1, 7, 7, 20, 21]
    weight = torch.randint(-9, 10, (3, 2, 4, 5), generator=generator(1)).double()  # sums of integers are exact
    seen = []

    def score(images, sample):
        seen.append(len(images))
        return (weight[sample] * images).sum((1, 2, 3))

    curve = perturbation_curve(score, image, paste(noise), rank, torch.tensor(counts), BatchSize(batch_size))
    for sample in range(3):
        for step, count in enumerate(counts):
            replaced = image[sample].clone()
            for y in range(4):
                for x in range(5):
                    if rank[sample, y, x] < count:
                        replaced[:, y, x] = noise[sample, :, y, x]
            assert curve[sample, step] == (weight[sample] * replaced).sum()
    assert sum(seen) == 18
    assert max(seen) <= batch_size
