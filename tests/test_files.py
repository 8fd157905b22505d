"""Folders that appear whole or not at all, files that one process holds, and old files that go."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asenequip.files import locked, mark_used, new_folder, remove_oldest, replace_file, write_new


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


def test_what_else_keeps_a_folder_from_its_name_is_told(tmp_path, monkeypatch):
    def full(old, new):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="quota"), new_folder(tmp_path / "results"):
        disk.setattr(os, "rename", full)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_held_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    path, refusal = tmp_path / "lock", ValueError("one at a time")
    with locked(path, refusal), pytest.raises(ValueError, match="one at a time"), locked(path, refusal):
        pytest.fail("both hold it")
    with locked(path, refusal):
        pass


def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(stream, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock", ValueError("one at a time")):
        pass


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
@pytest.mark.parametrize("write", [write_new, replace_file])
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_user_gives_new_files(tmp_path, write, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "results.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == mode
    assert names(tmp_path) == "results.json"


@pytest.fixture
def cache(tmp_path):
    """Files "a", "b" and "c" of ten bytes each, the first used longest ago."""
    for name in "cab":
        (tmp_path / name).write_bytes(b"0123456789")
        os.utime(tmp_path / name, (10**9, 10**9 - {"c": 0, "b": 1, "a": 2}[name]))
    return tmp_path


def names(folder):
    return "".join(sorted(path.name for path in folder.iterdir()))


@pytest.mark.parametrize(("most", "left"), [(100, "abc"), (25, "bc"), (10, "c"), (0, "c")])
def test_files_used_longest_ago_go_first(most, left, cache):
    remove_oldest(cache, most)
    assert names(cache) == left


@pytest.mark.parametrize(("most", "left"), [(25, "ac"), (10, "a"), (0, "a")])
def test_files_to_be_kept_stay(most, left, cache):
    remove_oldest(cache, most, keep={cache / "a"})
    assert names(cache) == left


def test_a_file_that_was_used_lately_stays(cache):
    mark_used(cache / "a")
    mark_used(cache / "gone")
    remove_oldest(cache, 10)
    assert names(cache) == "a"


def test_what_cannot_be_removed_stays(cache, monkeypatch):
    def forbidden(path, missing_ok=False):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "unlink", forbidden)
    remove_oldest(cache, 0)
    remove_oldest(cache / "no folder", 0)
    assert names(cache) == "abc"
