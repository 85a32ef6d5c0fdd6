"""The images that a dataset names, by their names alone: counts, partners, lists, databases."""

from pathlib import Path

import pytest
from option_texts import GOOD

FULL = ["a.png", "b.png"]
NO_METRICS = ("val:metrics=~",)


@pytest.fixture
def said(check):
    """What is said of a validation dataset in two folders that hold files of these names."""

    def about(clean, degraded, keys="io_backend: {type: disk}", kind="PairedImageDataset", code=2):
        for folder, names in {"gt": clean, "lq": degraded}.items():
            Path(folder).mkdir()
            for name in names:
                Path(folder, name).touch()
        roots = "dataroot_gt: gt, dataroot_lq: lq" if "Pair" in kind else "dataroot_lq: lq"
        lines = check(GOOD, f"datasets:val={{name: a, type: {kind}, {roots}, {keys}}}", *NO_METRICS, code=code)
        return [line.partition("datasets:val:")[2] for line in lines if "datasets:val:" in line]

    return about


@pytest.mark.parametrize(
    ("clean", "degraded", "keys", "expected"),
    [
        ([], FULL, "", "dataroot_gt: 'gt', holds no image (.bmp"),
        (FULL, [], "", "dataroot_lq: 'lq', holds no image (.bmp"),
        (FULL, ["Thumbs.db"], "", "dataroot_lq: 'lq', holds no image (.bmp"),
        (["a.png"], FULL, "", "holds 2 images and dataroot_gt 1: 'b.png' belongs to none of them, expected one for each"),
        (
            FULL,
            ["ax4.png", "bx4.png"],
            "",
            "'lq', holds no 'a.png' for 'a.png' of dataroot_gt; 2 of 2 have none, expected `filename_",
        ),
        (FULL, ["ax4.png", "bx4.png"], "", "`filename_tmpl: '{}x4'`"),
        (FULL, ["rain_a.png", "rain_b.png", "c.png"], "", "`filename_tmpl: 'rain_{}'`"),
        (["1.png", "11.png"], ["1_lq.png", "11_lq.png", "111.png"], "", "`filename_tmpl: '{}_lq'`"),
        (FULL, ["a.jpg", "b.jpg"], "", "expected names that end in .png (those there end in .jpg)"),
        (FULL, ["a.png", "c.png"], "", "holds no 'b.png' for 'b.png' of dataroot_gt, expected one for each, of its name"),
        (FULL, ["ax4.png", "bx4.png"], "filename_tmpl: '{}_x4', ", "holds no 'a_x4.png' for 'a.png'"),
        (FULL, FULL, "filename_tmpl: x4, ", "filename_tmpl: 'x4', expected a name with one {} in it"),
        (FULL, FULL, "filename_tmpl: '{0}{1}', ", "filename_tmpl: '{0}{1}', expected a name with one {} in it"),
        (FULL, FULL, "filename_tmpl: ~, ", "filename_tmpl: None, expected a name with one {} in it"),
    ],
)
def test_folders_that_do_not_pair_are_refused(said, clean, degraded, keys, expected):
    for kind in ("PairedImageDataset", "RealESRGANPairedDataset")[: 1 if keys else 2]:
        lines = said(clean, degraded, f"{keys}io_backend: {{type: disk}}", kind)
        assert any(expected in line for line in lines), lines
        for folder in ("gt", "lq"):
            for file in Path(folder).iterdir():
                file.unlink()
            Path(folder).rmdir()


def test_a_stray_file_is_left_out_with_a_warning(said):
    (line,) = said(FULL, [*FULL, "Thumbs.db", ".hidden"], code=0)
    assert line == "dataroot_lq: 'lq', holds 'Thumbs.db', no image by the name; left out (a warning)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "meta_info_file: 'list.txt', names no image"),
        ("\n \n", "meta_info_file: 'list.txt', names no image"),
        ("a.png (8,8,3)\n\nb.png\n", "meta_info_file: 'list.txt', line 2 is '', expected the name of an image"),
        (
            "a.png (8,8,3)\nc.png (8,8,3)\nd.png\n",
            "meta_info_file: 'list.txt', names 'c.png', which dataroot_gt does not hold, nor 1 others",
        ),
        ("b.png", "meta_info_file: 'list.txt', names 'b_x2.png', which dataroot_lq does not hold"),
    ],
)
def test_a_list_is_held_against_the_folders(said, text, expected):
    Path("list.txt").write_text(text)
    lines = said(FULL, ["a_x2.png"], "io_backend: {type: disk}, filename_tmpl: '{}_x2', meta_info_file: list.txt")
    assert any(expected in line for line in lines), lines


def test_an_empty_text_names_no_list(said):
    assert said(FULL, FULL, "io_backend: {type: disk}, meta_info_file: ''") == ["meta_info_file: '', no such file or folder"]


def test_a_list_of_some_is_fine(said):
    Path("list.txt").write_text("a.png (8,8,3)\n")
    assert said([*FULL, "x.png"], ["a.png", "readme.md"], "io_backend: {type: disk}, meta_info_file: list.txt", code=0) == []


def test_a_list_of_two_columns(said):
    Path("list.txt").write_text("a.png, b.png\nb.png\n")
    (line,) = said(FULL, FULL, "io_backend: {type: disk}, meta_info: list.txt", "RealESRGANPairedDataset")
    assert line == "meta_info: 'list.txt', line 2 is 'b.png', expected `clean.png, degraded.png`"


@pytest.mark.parametrize("kind", ["SingleImageDataset", "DegradedImageDataset"])
def test_single_images(said, kind):
    Path("list.txt").write_text("c.png\n")
    lines = said([], ["Thumbs.db"], kind=kind)
    assert "dataroot_lq: 'lq', holds no image (.bmp" in lines[-1]
    Path("lq/Thumbs.db").unlink(), Path("lq").rmdir(), Path("gt").rmdir()
    (line,) = said([], FULL, "io_backend: {type: disk}, meta_info_file: list.txt", kind)
    assert line == "meta_info_file: 'list.txt', names 'c.png', which dataroot_lq does not hold"


def test_a_list_that_is_nothing_is_no_list_but_where_basicsr_opens_it(said):
    (line,) = said([], FULL, "io_backend: {type: disk}, meta_info_file: ~", "SingleImageDataset")
    assert line == "meta_info_file: nothing, expected a file, or no such key"


def test_a_file_is_no_folder(said, check):
    said(FULL, FULL, code=0)
    lines = check(
        GOOD, "datasets:val={name: a, type: PairedImageDataset, dataroot_gt: a.yml, dataroot_lq: lq, io_backend: {type: disk}}"
    )
    assert any("dataroot_gt: 'a.yml', a file, expected a folder" in line for line in lines)


def test_databases(check):
    def lines(code=2):
        entry = (
            "datasets:val={name: a, type: PairedImageDataset, dataroot_gt: gt.lmdb, dataroot_lq: lq.lmdb, io_backend: {type: lmdb}}"
        )
        return "".join(check(GOOD, entry, code=code))

    for kind in ("gt", "lq"):
        Path(f"{kind}.lmdb").mkdir()
        Path(f"{kind}.lmdb/meta_info.txt").write_text("a.png (8,8,3) 1\nb.png (8,8,3) 1\n")
    assert "'gt.lmdb', without data.mdb, expected a database that BasicSR's scripts made" in lines()
    for kind in ("gt", "lq"):
        Path(f"{kind}.lmdb/data.mdb").touch()
    lines(code=0)
    Path("lq.lmdb/meta_info.txt").write_text("a.png (8,8,3) 1\n")
    assert "dataroot_lq: 'lq.lmdb', 1 keys differ: 'b' is in dataroot_gt, not in dataroot_lq" in lines()
    Path("lq.lmdb/meta_info.txt").write_text("")
    assert "'lq.lmdb', its meta_info.txt names no image" in lines()


def test_on_bad_image_is_one_of_two_words(check):
    assert any(
        "on_bad_image: 'pass', expected one of stop, skip, nothing" in line
        for line in check(GOOD, "datasets:val:on_bad_image=pass")
    )
    check(GOOD, "datasets:val:on_bad_image=skip", "datasets:train:on_bad_image=stop", code=0)
