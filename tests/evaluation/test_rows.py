import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_distill.evaluation.rows import doubtful_labels, length_groups


def test_texts_are_grouped_by_their_words() -> None:
    texts = [" ".join(["word"] * words) for words in range(1, 11)]
    groups = length_groups(texts)
    assert [(fewest, most) for fewest, most, _ in groups] == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]
    assert np.flatnonzero(groups[1][2]).tolist() == [2, 3]
    assert [(fewest, most) for fewest, most, _ in length_groups(["a b", "a b"])] == [(2, 2)]


@given(st.lists(st.text(alphabet="a ", max_size=30), min_size=1, max_size=40))
def test_every_text_is_in_one_group_and_the_groups_are_in_order(texts: list[str]) -> None:
    groups = length_groups(texts)
    assert np.sum([here for _, _, here in groups], axis=0).tolist() == [1] * len(texts)
    bounds = [bound for fewest, most, _ in groups for bound in (fewest, most)]
    assert bounds == sorted(bounds)
    assert len(groups) <= 5


def test_a_label_is_doubtful_where_all_are_as_sure_as_they_are_of_that_class() -> None:
    sure, less, other = [9, 0], [0.5, 0], [0, 9]
    labels = np.array([0, 0, 1, 1, 1, 1])
    one = np.array([sure, sure, sure, less, sure, other], np.float32)
    two = np.array([sure, sure, sure, sure, other, other], np.float32)
    # The third: both say 0. The fourth: the first model is not sure. The fifth: they differ. The last is as labelled.
    assert doubtful_labels([one, two], labels).tolist() == [False, False, True, False, False, False]


def test_a_class_that_no_row_is_labelled_with_is_nothing_to_be_sure_of() -> None:
    assert not doubtful_labels([np.array([[0, 9]] * 3, np.float32)], np.zeros(3, np.int64)).any()
