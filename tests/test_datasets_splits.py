"""The validation set: always the same, whole tracks where there are any, nothing on both sides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icstn.datasets import Dataset, fingerprint, split_validation


def digits(n: int = 60, groups: list[int] | None = None, labels: list[int] | None = None) -> Dataset:
    """Images whose first pixel is their number."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    classes = torch.tensor(labels) if labels else torch.arange(n) % 10
    own = None if groups is None else torch.tensor(groups)
    boxes = torch.arange(n).float()[:, None].expand(n, 4)
    digest = fingerprint(images, classes)
    return Dataset(images, classes, "made up", "train", digest, ("a note",), boxes=boxes, groups=own)


def numbers(data: Dataset) -> list[int]:
    return data.images[:, 0, 0, 0].tolist()


class TestWithoutGroups:
    def test_the_last_sixth_is_held_out(self) -> None:
        train, validation = split_validation(digits(60))
        assert numbers(train) == list(range(50))
        assert numbers(validation) == list(range(50, 60))

    def test_each_part_is_named_and_has_its_own_fingerprint(self) -> None:
        whole = digits()
        train, validation = split_validation(whole)
        assert (train.split, validation.split) == ("train without validation", "validation")
        assert len({whole.fingerprint, train.fingerprint, validation.fingerprint}) == 3
        assert validation.fingerprint == fingerprint(validation.images, validation.labels)
        assert validation.notes == whole.notes

    def test_what_belongs_to_an_image_goes_with_it(self) -> None:
        for part in split_validation(digits()):
            assert part.boxes is not None
            assert part.boxes[:, 0].tolist() == numbers(part)
            assert part.labels.tolist() == [n % 10 for n in numbers(part)]

    def test_a_part_is_not_split_again(self) -> None:
        with pytest.raises(ValueError, match="held out of the training data, not of 'validation'"):
            split_validation(split_validation(digits())[1])


class TestGroups:
    @given(st.lists(st.integers(0, 20), min_size=2, max_size=3), st.randoms(use_true_random=False))
    def test_no_group_is_on_both_sides_and_every_class_is(self, extra: list[int], random) -> None:
        sizes = [2 + n for n in extra]  # groups of each class
        pairs = [(c, 100 * c + g) for c, groups in enumerate(sizes) for g in range(groups) for _ in range(3)]
        random.shuffle(pairs)
        data = digits(len(pairs), groups=[g for _, g in pairs], labels=[c for c, _ in pairs])
        train, validation = split_validation(data)
        assert train.groups is not None and validation.groups is not None  # noqa: PT018
        assert not set(train.groups.tolist()) & set(validation.groups.tolist())
        assert sorted(numbers(train) + numbers(validation)) == list(range(len(pairs)))
        for label, groups in enumerate(sizes):
            held_out = validation.groups[validation.labels == label].unique()
            assert len(held_out) == max(1, groups // 6)

    def test_the_sixth_of_each_class(self) -> None:
        data = digits(13, groups=list(range(13)), labels=[0] * 13)
        assert numbers(split_validation(data)[1]) == [5, 11]

    def test_a_class_of_one_group_is_refused(self) -> None:
        with pytest.raises(ValueError, match="class 1 has a single group"):
            split_validation(digits(3, groups=[0, 1, 2], labels=[0, 0, 1]))
