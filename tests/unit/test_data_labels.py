"""The labels of all rows in one array."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_ed_flax.data.labels import Labels

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=6)


@given(ROWS)
def test_rows_come_back_as_they_were(rows):
    labels = Labels.of(rows)
    assert len(labels) == len(rows)
    assert [labels[row].tolist() for row in range(len(rows))] == rows
    assert labels.lengths.tolist() == [len(row) for row in rows]


@given(ROWS)
def test_ctc_needs_a_frame_for_each_label_heard_and_one_between_equal_ones(rows):
    expected = []
    for row in rows:
        heard = [label for label in row if label != 3]
        repeats = sum(a == b for a, b in pairwise(heard))
        expected.append(len(heard) + repeats)
    assert Labels.of(rows).ctc_frames(silent=(3,)).tolist() == expected


def test_padding_and_empty_rows_are_ignored_labels():
    padded = Labels.of([[5, 6], [7]]).padded(np.array([1, -1, 0]), 3)
    assert padded.tolist() == [[7, -100, -100], [-100] * 3, [5, 6, -100]]
    assert padded.dtype == np.int32


def test_the_digest_tells_the_same_numbers_in_other_rows_apart():
    assert Labels.of([[1], [2, 3]]).digest != Labels.of([[1, 2], [3]]).digest
    assert Labels.of([[1], [2, 3]]).digest == Labels.of([np.array([1]), (2, 3)]).digest


def test_a_row_that_is_not_there_is_no_row():
    with pytest.raises(IndexError):
        Labels.of([[1]])[-1]
