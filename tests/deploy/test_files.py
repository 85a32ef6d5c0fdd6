"""Which file is restored into which."""

import pytest

from kd_plugins.deploy.files import find_jobs


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.tif", "notes.txt", ".d.png", ".a.PNG.part/a.PNG"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "photos"


def _names(jobs, root):
    return [str(target.relative_to(root)) for _, target in jobs]


def test_a_folder_keeps_names_and_sub_folders_and_other_files_are_passed_over(photos, tmp_path):
    assert _names(find_jobs(photos, tmp_path / "out"), tmp_path / "out") == ["a.PNG", "b.jpg", "sub/c.tif"]


def test_suffix_and_extension(photos, tmp_path):
    assert _names(find_jobs(photos, tmp_path, "_x", "webp"), tmp_path) == ["a_x.webp", "b_x.webp", "sub/c_x.webp"]


def test_an_output_folder_in_the_input_is_none_of_it(photos):
    for _ in range(2):
        jobs = find_jobs(photos, photos / "restored")
        assert _names(jobs, photos / "restored") == ["a.PNG", "b.jpg", "sub/c.tif"]
        for _, target in jobs:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"")


def test_one_image_goes_into_a_folder_or_a_file(photos, tmp_path):
    assert find_jobs(photos / "b.jpg", tmp_path / "out")[0].target == tmp_path / "out" / "b.jpg"
    assert find_jobs(photos / "b.jpg", tmp_path / "x.png")[0].target == tmp_path / "x.png"
    assert find_jobs(photos / "b.jpg", photos, "_x")[0].target == photos / "b_x.jpg"


@pytest.mark.parametrize(
    ("given", "output", "options", "said"),
    [
        ("photos", "photos", {}, "is an input, which is never written to"),
        ("photos", "link", {}, "is an input"),
        ("photos/b.jpg", "photos/b.jpg", {}, "is an input"),
        ("photos/b.jpg", "photos", {}, "is an input"),
        ("photos", "file", {}, "is a file, expected a folder"),
        ("nowhere", "out", {}, "no such file or folder"),
        ("empty", "out", {}, "no image in it .png, jpg"),
        ("photos/notes.txt", "out", {}, "neither an image nor a video"),
        ("photos/b.jpg", "x.gif", {}, "no image by its name"),
        ("photos", "out", {"extension": "gif"}, "--ext: 'gif', expected one of auto, png"),
        ("twice", "out", {"extension": "png"}, "would come of both .*a.jpg and .*a.png"),
        ("photos", "out", {"suffix": "/../x"}, "--suffix: '/../x', expected a part of a name"),
        ("photos/b.jpg", "x.jpg", {"extension": "png"}, "x.jpg: names the file, expected no --suffix and no --ext"),
        ("photos/b.jpg", "x.jpg", {"suffix": "_r"}, "names the file, expected no --suffix"),
        ("photos/b.jpg", "file", {}, "file/b.jpg: .*file is no folder"),
        ("photos", "circle/out", {}, "circle is no folder"),
        ("photos/b.jpg", "circle", {}, "circle is no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(photos, tmp_path, given, output, options, said):
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / "twice" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=said):
        find_jobs(tmp_path / given, tmp_path / output, **options)


def test_the_output_of_an_earlier_run_beside_its_input_is_not_written_to(photos):
    for source, target in find_jobs(photos, photos, "_x"):
        assert source != target
        target.write_bytes(b"")
    with pytest.raises(ValueError, match="a_x.PNG: is an input"):
        find_jobs(photos, photos, "_x")


def test_links_to_nothing_are_named_and_links_in_a_circle_are_no_folders(photos, tmp_path):
    (photos / "gone.png").symlink_to("nothing.png")
    (photos / "self.png").symlink_to("self.png")
    (photos / "loop").symlink_to(".")
    assert _names(find_jobs(photos, tmp_path / "out"), tmp_path / "out") == ["a.PNG", "b.jpg", "gone.png", "self.png", "sub/c.tif"]


def test_a_folder_that_cannot_be_written_to_is_said_at_once(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # a superuser may write everywhere
    with pytest.raises(ValueError, match=f"nothing can be written to the folder {tmp_path}"):
        find_jobs(photos, tmp_path / "out" / "deeper")
