"""Image files: the same kind, depth, mode and further words out as in."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, TiffImagePlugin

from kd_plugins.deploy.image_reading import read_picture
from kd_plugins.deploy.images import Picture, converted, restored, write_picture
from kd_plugins.deploy.png import read_chunks

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = 13, 7  # height and width: odd, and not square


def _pixels(samples, dtype, size=SIZE):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, samples), dtype)


def _picture(kind, samples=3, dtype=np.uint8, **fields):
    pixels = _pixels(samples, dtype)
    colours = samples - 1 + samples % 2
    return Picture(pixels[..., :colours], None if samples % 2 else pixels[..., colours], kind, **fields)


def _exif(orientation, sized=True):
    exif = Image.Exif()
    exif[0x112], exif[0x10F] = orientation, "a maker"
    if sized:
        exif.get_ifd(0x8769)[0xA002] = SIZE[1]
        exif.get_ifd(0x8769)[0xA003] = SIZE[0]
    return exif.tobytes()


KINDS = [(kind, samples, dtype) for kind in ("PNG", "TIFF") for samples in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16)]
KINDS += [("WEBP", 3, np.uint8), ("WEBP", 4, np.uint8), ("BMP", 3, np.uint8), ("BMP", 1, np.uint8), ("PPM", 3, np.uint8)]


@pytest.mark.parametrize(("kind", "samples", "dtype"), KINDS)
def test_pixels_come_back_as_they_were_written(tmp_path, kind, samples, dtype):
    picture = _picture(kind, samples, dtype, details={"lossless": True, "exact": True} if kind == "WEBP" else {})
    write_picture(tmp_path / "x", picture)
    again = read_picture(tmp_path / "x")
    assert again.kind == kind and again.pixels.dtype == dtype
    assert np.array_equal(again.pixels, picture.pixels)
    assert (again.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None:
        assert np.array_equal(again.alpha, picture.alpha)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(("kind", "samples", "dtype"), [each for each in KINDS if each[0] in ("PNG", "TIFF")])
def test_other_libraries_read_what_is_written(tmp_path, kind, samples, dtype):
    picture = _picture(kind, samples, dtype)
    write_picture(tmp_path / "x", picture)
    if kind == "TIFF":
        assert np.array_equal(tifffile.imread(tmp_path / "x"), _pixels(samples, dtype).squeeze())
    elif dtype == np.uint16:
        pixels = cv2.imread(str(tmp_path / "x"), cv2.IMREAD_UNCHANGED)
        order = {1: ..., 2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples]
        assert np.array_equal(pixels[..., order] if samples > 1 else pixels, _pixels(samples, dtype).squeeze())
    else:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "x")), _pixels(samples, dtype).squeeze())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_upright_in_memory_and_turned_in_its_file_as_it_was(tmp_path, kind, orientation):
    half = np.zeros((16, 24, 3), np.uint8)
    half[:, :8] = 255  # as the file has it
    fields = {"extratags": [(0x112, "H", 1, orientation, True)]}
    if kind == "TIFF":
        tifffile.imwrite(tmp_path / "x", half, photometric="rgb", **fields)
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(half).save(tmp_path / "x", kind, exif=_exif(orientation, sized=False), **options)
    picture = read_picture(tmp_path / "x")
    exif = Image.Exif()
    exif[0x112] = orientation
    upright = Image.fromarray(half)
    upright.info["exif"] = exif.tobytes()
    assert np.abs(picture.pixels.astype(int) - np.asarray(ImageOps.exif_transpose(upright)).astype(int)).max() < 20
    write_picture(tmp_path / "y", picture)
    again = read_picture(tmp_path / "y")
    assert again.orientation == orientation and again.pixels.shape == picture.pixels.shape
    stored = tifffile.imread(tmp_path / "y") if kind == "TIFF" else np.asarray(Image.open(tmp_path / "y"))
    assert stored.shape == half.shape and np.abs(stored.astype(int) - half).max() < 20


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("JPEG", np.uint8), ("WEBP", np.uint8), ("PNG", np.uint8), ("PNG", np.uint16), ("TIFF", np.uint8), ("TIFF", np.uint16)],
)
def test_profile_exif_and_resolution_are_kept(tmp_path, kind, dtype):
    words = {"icc": ICC, "xmp": b"<x:xmpmeta/>", "dpi": (300.0, 150.0), "orientation": 6}
    exif = None if kind == "TIFF" else _exif(6)
    write_picture(tmp_path / "x", _picture(kind, 3, dtype, exif=exif, **words))
    again = read_picture(tmp_path / "x")
    write_picture(tmp_path / "y", again)
    for file in ("x", "y"):
        found = read_picture(tmp_path / file)
        assert found.icc == ICC and found.orientation == 6
        assert found.xmp and found.xmp.strip(b"\0") == words["xmp"]
        if kind != "WEBP":  # which has no resolution but EXIF's
            assert found.dpi == pytest.approx(words["dpi"], rel=1e-3)
        if exif:
            assert Image.open(tmp_path / file).getexif()[0x10F] == "a maker"


def test_chunks_of_a_png_file_are_kept_but_those_of_its_palette_and_time(tmp_path):
    from kd_plugins.deploy.png import write_png

    chunks = [(b"gAMA", b"\0\0\xb1\x8f"), (b"tEXt", b"Title\0a title"), (b"tIME", b"\7\xe0\1\1\0\0\0")]
    with open(tmp_path / "x", "wb") as file:
        write_png(file, _pixels(3, np.uint16), chunks)
    write_picture(tmp_path / "y", read_picture(tmp_path / "x"))
    assert [name for name, _ in read_chunks((tmp_path / "y").read_bytes())] == [b"IHDR", b"gAMA", b"tEXt", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    ("mode", "options", "samples"),
    [
        ("P", {}, 3),
        ("P", {"transparency": 0}, 4),
        ("1", {}, 1),
        ("L", {"transparency": 5}, 2),
        ("RGB", {"transparency": (1, 2, 3)}, 4),
    ],
)
def test_palettes_bits_and_transparent_colours_become_gray_rgb_and_alpha(tmp_path, mode, options, samples):
    image = Image.fromarray(_pixels(3, np.uint8)).convert(mode)
    image.save(tmp_path / "x.png", **options)
    picture = read_picture(tmp_path / "x.png")
    assert picture.pixels.shape[2] + (picture.alpha is not None) == samples
    expected = Image.open(tmp_path / "x.png").convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples])
    together = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    assert np.array_equal(together.squeeze(), np.asarray(expected))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_tiff_files_packed_as_photo_editors_pack_them(tmp_path, mode, orientation):
    """LZW, for which tifffile asks for a further package."""
    pixels = _pixels(len(mode), np.uint8)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x112] = orientation
    Image.fromarray(pixels.squeeze()).save(tmp_path / "x.tif", "TIFF", compression="tiff_lzw", tiffinfo=info)
    write_picture(tmp_path / "y.tif", read_picture(tmp_path / "x.tif"))
    assert np.array_equal(tifffile.imread(tmp_path / "y.tif"), pixels.squeeze())
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages[0].tags[0x112].value == orientation and file.pages[0].compression != 1


def test_a_tiff_file_of_16_bits_packed_so(tmp_path):
    pixels = _pixels(3, np.uint16)
    ok, data = cv2.imencode(".tiff", pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    (tmp_path / "x.tif").write_bytes(data.tobytes())
    assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, pixels)


def test_jpeg_keeps_its_sampling_and_webp_its_losslessness(tmp_path):
    image = Image.fromarray(_pixels(3, np.uint8, (64, 64)))
    for number in (0, 1, 2):
        image.save(tmp_path / "x.jpg", subsampling=number)
        write_picture(tmp_path / "y.jpg", read_picture(tmp_path / "x.jpg"))
        assert JpegImagePlugin.get_sampling(Image.open(tmp_path / "y.jpg")) == number
    for lossless in (True, False):
        image.save(tmp_path / "x.webp", lossless=lossless, exif=_exif(1))
        write_picture(tmp_path / "y.webp", read_picture(tmp_path / "x.webp"))
        same = np.array_equal(np.asarray(Image.open(tmp_path / "x.webp")), np.asarray(Image.open(tmp_path / "y.webp")))
        assert same == lossless


def test_quality_is_that_of_jpeg(tmp_path):
    picture = _picture("JPEG")
    for quality in (50, 100):
        write_picture(tmp_path / str(quality), picture, quality)
    assert (tmp_path / "50").stat().st_size < (tmp_path / "100").stat().st_size


def _bad_files():
    png = io.BytesIO()
    Image.fromarray(_pixels(3, np.uint8)).save(png, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(_pixels(3, np.uint8, (64, 64))).save(jpeg, "JPEG")
    ok, deep = cv2.imencode(".png", _pixels(3, np.uint16, (64, 64)))
    gif, cmyk, floats, pages = (io.BytesIO() for _ in range(4))
    frames = [Image.fromarray(_pixels(3, np.uint8)), Image.new("RGB", (7, 13))]
    frames[0].save(gif, "GIF")
    frames[0].convert("CMYK").save(cmyk, "JPEG")
    moving = io.BytesIO()
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:])
    tifffile.imwrite(floats, np.zeros(SIZE, np.float32))
    tifffile.imwrite(pages, np.zeros((2, *SIZE), np.uint8), photometric="minisblack")
    return {
        "empty": (b"", "it is no image"),
        "text": (b"not an image", "it is no image"),
        "short png": (png.getvalue()[:-20], "ends too early"),
        "short 16-bit png": (deep.tobytes()[:-2000], "truncated|ends too early"),
        "damaged png": (png.getvalue().replace(b"IDAT", b"IDAT\1"), "damaged|broken"),
        "short jpeg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "truncated"),
        "short tiff": (floats.getvalue()[:10], "cannot"),
        "gif": (gif.getvalue(), "GIF is none of PNG"),
        "cmyk": (cmyk.getvalue(), "CMYK, expected gray or RGB"),
        "moving": (moving.getvalue(), "2 frames"),
        "floats": (floats.getvalue(), "expected gray or RGB of 8 or 16 bits"),
        "pages": (pages.getvalue(), "2 pages"),
    }


@pytest.mark.parametrize("name", _bad_files())
def test_what_is_no_such_image_is_refused(tmp_path, name):
    data, said = _bad_files()[name]
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("kind", "samples", "dtype", "said"),
    [("JPEG", 4, np.uint8, "JPEG has no alpha"), ("WEBP", 3, np.uint16, "WEBP has no 16 bits")],
)
def test_what_a_kind_cannot_hold_is_refused_and_leaves_no_file(tmp_path, kind, samples, dtype, said):
    with pytest.raises(ValueError, match=said):
        write_picture(tmp_path / "x", _picture(kind, samples, dtype))
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(ValueError):
        write_picture(tmp_path / "x", _picture("WEBP", details={"method": 99}))
    assert (tmp_path / "x").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_a_restored_picture_of_another_size_has_its_alpha_and_its_size_in_exif(tmp_path):
    picture = _picture("JPEG", 3, exif=_exif(6), orientation=6)
    larger = restored(picture, np.zeros((2 * SIZE[0], 2 * SIZE[1], 3), np.uint8))
    write_picture(tmp_path / "x.jpg", larger)
    within = Image.open(tmp_path / "x.jpg").getexif().get_ifd(0x8769)
    assert (within[0xA002], within[0xA003]) == Image.open(tmp_path / "x.jpg").size == (2 * SIZE[0], 2 * SIZE[1])
    flat = restored(Picture(picture.pixels, np.full(SIZE, 99, np.uint8), "PNG"), larger.pixels)
    assert flat.alpha.shape == (2 * SIZE[0], 2 * SIZE[1]) and (flat.alpha == 99).all()


def test_a_file_of_another_kind_is_upright_and_of_its_depth(tmp_path):
    deep = converted(_picture("PNG", 3, np.uint16), "JPEG")
    assert deep.pixels.dtype == np.uint8 and deep.pixels.max() <= 255
    assert np.array_equal(converted(_picture("JPEG", icc=ICC), "PNG").pixels, _pixels(3, np.uint8))
    for kind in ("PNG", "BMP", "WEBP", "TIFF"):
        turned = _picture("JPEG", exif=_exif(6), orientation=6)
        write_picture(tmp_path / kind, converted(turned, kind))
        again = read_picture(tmp_path / kind)
        assert again.orientation == 1 and again.pixels.shape == turned.pixels.shape


def test_colours_that_are_multiplied_with_alpha_stay_so(tmp_path):
    pixels = _pixels(4, np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(tmp_path / "x.tif")
    write_picture(tmp_path / "y.tif", picture)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages[0].extrasamples == (tifffile.EXTRASAMPLE.ASSOCALPHA,)
        assert np.array_equal(file.asarray(), pixels)
    with pytest.raises(ValueError, match="multiplied with alpha, which PNG has not, expected TIFF"):
        converted(picture, "PNG")


def test_samples_that_would_be_read_as_other_colours_or_cut_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", _pixels(3, np.uint8), photometric="ycbcr")
    with pytest.raises(ValueError, match="YCBCR of 8 bits"):
        read_picture(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((*SIZE, 3), np.float16), photometric="rgb")
    with pytest.raises(ValueError, match=r"RGB of 16 bits \(IEEEFP\), expected gray or RGB of 8 or 16 bits \(UINT\)"):
        read_picture(tmp_path / "x.tif")
    cv2.imwrite(str(tmp_path / "x.ppm"), _pixels(3, np.uint16))
    with pytest.raises(ValueError, match="its pixels have 16 bits"):
        read_picture(tmp_path / "x.ppm")
