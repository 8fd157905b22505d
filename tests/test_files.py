"""Folders that appear whole or not at all, and old files that go."""

from __future__ import annotations

import os

import pytest

from asenequip.files import new_folder, remove_oldest


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "inner" / "results"
    with new_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        assert not target.exists()
    assert (target / "a.txt").read_text() == "a"
    assert [path.name for path in target.parent.iterdir()] == ["results"]


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with new_folder(tmp_path / "results") as folder:
            (folder / "a.txt").write_text("a")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_at_once(tmp_path):
    with pytest.raises(FileExistsError), new_folder(tmp_path):
        pytest.fail("no work is done")


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "results"

    def overtaken():
        with new_folder(target):
            target.mkdir()
            (target / "other").write_text("other")

    with pytest.raises(FileExistsError, match="is not overwritten"):
        overtaken()
    assert [path.name for path in target.iterdir()] == ["other"]


@pytest.mark.parametrize(("most", "left"), [(100, "abc"), (25, "bc"), (10, "c"), (0, "c")])
def test_files_used_longest_ago_go_first(most, left, tmp_path):
    for name in "cab":
        (tmp_path / name).write_bytes(b"0123456789")
        os.utime(tmp_path / name, (10**9, 10**9 - {"c": 0, "b": 1, "a": 2}[name]))
    remove_oldest(tmp_path, most)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(left)
