"""Classes are chosen by name or index, with what is near to a mistake."""

import pytest

from canonxai.data.classes import chosen_labels, read_names
from canonxai.errors import UserError

NAMES = ["cat", "Bull Terrier", "dog", "3", "Polish", "polish", "bat", "bat"]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("dog", [2]),
        (1, [1]),
        ("1", [1]),
        (["dog", "cat", 0], [0, 2]),
        (("bull_terrier", "DOG "), [1, 2]),
        ([3, "3"], [3]),  # a name before an index
        (["Polish"], [4]),
        (["polish"], [5]),
    ],
)
def test_classes_are_chosen_by_name_or_index(classes, labels):
    assert chosen_labels(classes, NAMES) == labels


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["kat", "unicorn", "dog"], "expected all or classes by name or index, got 'kat, unicorn'. near 'kat': cat"),
        (8, "got '8'."),
        (-1, "got '-1'."),
        (["all"], "got 'all'."),
        ([True], "got 'True'."),
        ([], "expected all or classes by name or index, got ''."),
        ("POLISH", "'POLISH' is the name of 2 classes, use 4 or 5."),
        ("bat", "'bat' is the name of 2 classes, use 6 or 7."),
    ],
)
def test_a_mistake_is_told_with_what_is_near(classes, message):
    with pytest.raises(UserError, match=f"data.classes: .*{message}"):
        chosen_labels(classes, NAMES)


def test_names_come_from_a_list_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "names.txt").write_text("\ufeffcat\ndog\n\n", encoding="utf-8")
    for given in (str(tmp_path / "names.txt"), "~/names.txt", ["cat", "dog"]):
        assert read_names("data.classes", given) == ["cat", "dog"]
    assert read_names("data.classes", "names.txt", tmp_path) == ["cat", "dog"]
    with pytest.raises(UserError, match=r"^model\.classes: .*existing file.*got 'no\.txt'"):
        read_names("model.classes", "no.txt")
