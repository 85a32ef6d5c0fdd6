import os

import pytest

from kd_plugins.atomic_files import in_place_of, remove_leftovers, write_text


def test_a_file_and_what_belongs_to_it_take_their_places_together_or_not_at_all(tmp_path):
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).write_text("before")
    with pytest.raises(RuntimeError), in_place_of(tmp_path / "net.xml", "net.bin") as part:
        part.write_text("half")
        raise RuntimeError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"net.xml": "before", "net.bin": "before"}

    with in_place_of(tmp_path / "net.xml", "net.bin") as part:
        for name in ("net.xml", "net.bin"):
            part.with_name(name).write_text("after")
        assert (tmp_path / "net.xml").read_text() == "before"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"net.xml": "after", "net.bin": "after"}


@pytest.mark.parametrize("leave", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "folder", "link"])
def test_what_a_kill_left_is_removed_whatever_it_is(tmp_path, leave):
    leave(tmp_path / ".a.txt.part")
    write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"
    leave(tmp_path / ".b.txt.part")
    remove_leftovers(tmp_path, tmp_path / "no folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names of open files are read from /proc")
def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_text(tmp_path / "a.txt", "whole")
    assert synced == [str(tmp_path / ".a.txt.part" / "a.txt"), str(tmp_path)]


def test_no_folder_is_made_for_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "gone" / "a.txt", "")
