"""The image cache: correct pixels for every kind of file, named faults, and a single build despite kills."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_examples import annotations_of
from numpy.typing import NDArray
from PIL import Image
from shared_fixtures import REPOSITORY, shared_folder

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once, cache_root
from spinenas.proxy_task.data.images import image_cache
from spinenas.proxy_task.data.images.image_cache import letterbox_geometry, open_cache
from spinenas.space.errors import UserError

RED, GREEN, BLUE, GREY = (200, 20, 30), (10, 180, 40), (20, 30, 220), (90, 90, 90)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Return an RGB image of four uniform quarters: red, green / blue, grey."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, GREY
    return Image.fromarray(pixels)


def cached(folder: Path, name: str, size: int = 32) -> NDArray[np.uint8]:
    """Return the cached pixels of one file of 64 x 48 px, with content of 32 x 24."""
    return open_cache(annotations_of(folder, {name: (64, 48)}), size, folder / "cache").images[0]


def assert_is_quarters(image: NDArray[np.uint8], *, tolerance: int) -> None:
    """Compare the centres of the quarters of a 32 x 24 content."""
    for (row, column), colour in {(6, 8): RED, (6, 24): GREEN, (18, 8): BLUE, (18, 24): GREY}.items():
        assert np.abs(image[row, column].astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("plain.png", "RGB", 0),
        ("plain.jpg", "RGB", 4),
        ("palette.png", "P", 2),
        ("alpha.png", "RGBA", 0),
        ("cmyk.jpg", "CMYK", 6),
        ("cmyk.tif", "CMYK", 2),
        ("ycbcr.tif", "YCbCr", 4),
    ],
)
def test_colour_images_of_every_mode_are_read_as_rgb(tmp_path: Path, name: str, mode: str, tolerance: int) -> None:
    image = quarters()
    if mode == "P":
        image = image.quantize(16)
    elif mode == "RGBA":
        image.putalpha(7)
    else:
        image = image.convert(mode)
    image.save(tmp_path / name, **({"quality": 95, "subsampling": 0} if name.endswith(".jpg") else {}))
    with Image.open(tmp_path / name) as saved:
        assert saved.mode == mode
    assert_is_quarters(cached(tmp_path, name), tolerance=tolerance)


@pytest.mark.parametrize(("name", "mode"), [("g.jpg", "L"), ("g.png", "L"), ("ga.png", "LA"), ("b.png", "1")])
def test_grey_images_get_three_equal_channels(tmp_path: Path, name: str, mode: str) -> None:
    grey = np.full((48, 64), 255 if mode == "1" else 77, dtype=np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / name)
    assert (cached(tmp_path, name)[:24] == grey[0, 0]).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_grey_is_scaled_to_eight_bits(tmp_path: Path, name: str) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16)[None, :].repeat(48, axis=0)
    Image.fromarray(levels).save(tmp_path / name)
    image = cached(tmp_path, name, size=64)
    assert np.abs(image[0, :, 0] - levels[0] / 257).max() <= 1


def test_exif_orientation_is_ignored_as_in_coco(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to display"
    quarters().save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    assert_is_quarters(cached(tmp_path, "turned.jpg"), tolerance=4)


def test_a_letterbox_is_at_the_top_left_and_zero_elsewhere(tmp_path: Path) -> None:
    sizes = {"wide.png": (80, 20), "tall.png": (20, 80), "small.png": (10, 5), "thin.png": (90, 1)}
    for name, (width, height) in sizes.items():
        Image.new("RGB", (width, height), (255, 255, 255)).save(tmp_path / name)
    cache = open_cache(annotations_of(tmp_path, sizes), 40, tmp_path / "cache")
    assert cache.scales.tolist() == [0.5, 0.5, 4.0, 40 / 90]
    assert cache.content_sizes_wh.tolist() == [[40, 10], [10, 40], [40, 20], [40, 1]]
    for image, (width, height) in zip(cache.images, cache.content_sizes_wh, strict=True):
        assert (image[:height, :width] == 255).all()
        assert image.sum(dtype=int) == 255 * 3 * width * height


@pytest.mark.parametrize(("width", "height"), [(640, 427), (333, 500), (2105, 1407), (3000, 1999)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_point_of_the_original_is_at_its_position_times_scale(
    tmp_path: Path, width: int, height: int, suffix: str
) -> None:
    """Ramps along both axes encode in each cached pixel its position in the original."""
    ramps = np.zeros((height, width, 3), dtype=np.uint8)
    ramps[:, :, 0] = np.round(np.arange(width) / width * 255)
    ramps[:, :, 1] = np.round(np.arange(height)[:, None] / height * 255)
    name = f"ramps.{suffix}"
    Image.fromarray(ramps).save(tmp_path / name, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    cache = open_cache(annotations_of(tmp_path, {name: (width, height)}), 128, tmp_path / "cache")
    scale, (content_width, content_height) = cache.scales[0], cache.content_sizes_wh[0]
    x = (np.arange(content_width) + 0.5) / scale  # centres of cached pixels, in the original
    y = (np.arange(content_height) + 0.5) / scale
    content = cache.images[0][:content_height, :content_width].astype(float)
    inner = slice(2, -2)  # at the border the filter covers one side only
    assert np.abs(content[:, :, 0].mean(axis=0) - (x - 0.5) / width * 255)[inner].max() < 0.75
    assert np.abs(content[:, :, 1].mean(axis=1) - (y - 0.5) / height * 255)[inner].max() < 0.75


def test_shrinking_averages_instead_of_picking_pixels(tmp_path: Path) -> None:
    checks = ((np.indices((256, 256)).sum(axis=0) % 2) * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "checks.png")
    image = open_cache(annotations_of(tmp_path, {"checks.png": (256, 256)}), 32, tmp_path / "cache").images[0]
    assert np.abs(image.astype(int) - 127).max() <= 2


def test_geometry_cuts_less_than_one_cached_pixel() -> None:
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 3000, size=(2, 2000))
    scales, content = letterbox_geometry(widths, heights, 96)
    assert (content.max(axis=1) == 96).all()
    exact = np.stack([widths, heights], axis=1) * scales[:, None]
    assert (exact - content < 1).all()
    assert ((exact - content > -1e-9) | (content == 1)).all()


def test_every_unusable_image_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    sizes = {f"{letter}.jpg": (64, 48) for letter in "abcdefg"}
    for name in sizes:
        quarters().save(tmp_path / name)
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").unlink()
    quarters(48, 64).save(tmp_path / "d.jpg")
    (tmp_path / "e.jpg").write_bytes(b"not an image")
    (tmp_path / "f.jpg").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache")
    message = str(caught.value)
    assert "5 of 7 images" in message
    assert re.search(r"b\.jpg \([^)]*truncated", message, re.IGNORECASE)
    assert "c.jpg (is missing)" in message
    assert "d.jpg (is 48 x 64 px, the annotations say 64 x 48)" in message
    assert "and 2 more" in message
    assert not list((tmp_path / "cache").glob("*.npy"))


@pytest.mark.parametrize("keep", [20, 60, 100, -30, -1])
def test_a_truncated_png_is_named(tmp_path: Path, keep: int) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:keep])
    if keep == -1:  # the last byte belongs to a marker after the pixels
        cached(tmp_path, "a.png")
    else:
        with pytest.raises(UserError, match=r"a\.png"):
            cached(tmp_path, "a.png")


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((48, 64), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float.tif \(has pixels of mode F"):
        cached(tmp_path, "float.tif")


def test_a_repaired_image_is_decoded_again_and_an_unchanged_set_is_not(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    first = cached(tmp_path, "a.png")
    built = list((tmp_path / "cache").glob("*.npy"))
    cached(tmp_path, "a.png")
    assert list((tmp_path / "cache").glob("*.npy")) == built
    Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "a.png")
    assert (cached(tmp_path, "a.png")[:24, :32] == (1, 2, 3)).all()
    assert first[0, 0].tolist() == list(RED)


def test_a_full_disk_is_detected_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarters().save(tmp_path / "a.png")
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"task\.data\.cache_folder or SPINENAS_CACHE"):
        cached(tmp_path, "a.png")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    cached(tmp_path, "a.png")
    (built,) = (tmp_path / "cache").glob("*.npy")
    built.write_bytes(built.read_bytes()[:500])
    with pytest.raises(UserError, match="damaged; delete it"):
        cached(tmp_path, "a.png")


def test_the_cache_cannot_be_written_to(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="read-only"):
        cached(tmp_path, "a.png")[0, 0, 0] = 1


def test_the_number_of_workers_does_not_change_a_pixel(tmp_path: Path) -> None:
    sizes = {f"{i}.png": (40 + i, 30) for i in range(20)}
    for name, size in sizes.items():
        quarters(*size).save(tmp_path / name)
    annotations = annotations_of(tmp_path, sizes)
    one = open_cache(annotations, 24, tmp_path / "one", workers=1)
    many = open_cache(annotations, 24, tmp_path / "many", workers=4)
    assert (one.images == many.images).all()


def test_the_configured_folder_has_priority_over_the_variable_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPINENAS_CACHE", "/somewhere")
    assert cache_root("/configured") == Path("/configured")
    assert cache_root(None) == Path("/somewhere")
    monkeypatch.delenv("SPINENAS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root(None) == Path.home() / ".cache" / "spinenas"


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the cache folder"):
        build_once(tmp_path / "file" / "target", Path.touch)


def test_a_failed_build_leaves_nothing_and_the_next_one_builds(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.mkdir()
        (partial / "half").write_text("")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        build_once(tmp_path / "target", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["target.lock"]
    build_once(tmp_path / "target", lambda partial: partial.write_text("whole") and None)
    assert (tmp_path / "target").read_text() == "whole"


def test_a_builder_killed_half_way_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    """The second of three images is a pipe without a writer: the builder is killed while it waits for it."""
    sizes = {name: (64, 48) for name in ("a.png", "b.png", "c.png")}
    for name in sizes:
        quarters().save(tmp_path / name)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(REPOSITORY / "tests")!r})
        from coco_examples import annotations_of
        from spinenas.proxy_task.data.images.image_cache import open_cache
        folder = Path({str(tmp_path)!r})
        open_cache(annotations_of(folder, {sizes!r}), 32, folder / "cache", workers=1)
    """)
    builder = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 120
        while not (partials := list((tmp_path / "cache").glob("*.partial"))):
            assert builder.poll() is None, "the builder ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    assert partials[0].exists()
    assert not list((tmp_path / "cache").glob("*.npy"))

    (tmp_path / "b.png").unlink()
    quarters().save(tmp_path / "b.png")
    cache = open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache")
    for image in cache.images:
        assert_is_quarters(image, tolerance=0)

    # A file that a killed builder left under the target's name is replaced as well.
    (built,) = (tmp_path / "cache").glob("*.npy")
    built.rename(built.with_name(built.name + ".partial"))
    with open(built.with_name(built.name + ".partial"), "r+b") as file:
        file.truncate(300)
    assert_is_quarters(open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache").images[2], tolerance=0)


def many_images(folder: Path, count: int = 40) -> dict[str, tuple[int, int]]:
    """Write images of noise, each of a different size; return the sizes by name."""
    rng = np.random.default_rng(0)
    sizes = {f"{index:02}.png": (40 + index, 30 + 2 * index) for index in range(count)}
    for name, (width, height) in sizes.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    return sizes


def start_builder(
    folder: Path, sizes: dict[str, tuple[int, int]], log: Path, *, hangs_at: int | None = None
) -> subprocess.Popen[bytes]:
    """Build the cache in another process, which writes down each image before it decodes it.

    It never gets beyond the image it hangs at.
    """
    script = textwrap.dedent(f"""
        import logging, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(REPOSITORY / "tests")!r})
        from coco_examples import annotations_of
        from spinenas.proxy_task.data.images import image_cache
        from spinenas.proxy_task.data.images.image_cache import open_cache
        read = image_cache._read
        def read_until(annotations, index, *args):
            with open({str(log)!r}, "a") as file:
                file.write(f"{{index}}\\n")
            if index == {hangs_at}:
                time.sleep(600)
            return read(annotations, index, *args)
        image_cache._read, image_cache.RECORD_SECONDS = read_until, 0.0
        folder = Path({str(folder)!r})
        logging.basicConfig(filename={str(log.with_suffix(".log"))!r}, level=logging.INFO)
        open_cache(annotations_of(folder, {sizes!r}), 32, folder / "cache", workers=3)
    """)
    return subprocess.Popen([sys.executable, "-c", script])


def recorded(folder: Path, count: int) -> int:
    """Return the number of finished images that the incomplete cache records."""
    partials = list((folder / "cache").glob("*.partial"))
    return image_cache._read_progress(partials[0], 128 + count * 32 * 32 * 3) if partials else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read_if_there(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def decoded(log: Path) -> list[int]:
    """Return the images that a builder has decoded or started to decode."""
    return [int(line) for line in read_if_there(log).split()]


def test_a_build_resumes_from_the_cache_of_killed_builders(tmp_path: Path) -> None:
    sizes = many_images(tmp_path)
    open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "whole")
    (whole,) = (tmp_path / "whole").glob("*.npy")

    done_before = 0
    for hangs_at in (1, 9, 10, 27, 39):
        log = tmp_path / f"decoded until {hangs_at}"
        builder = start_builder(tmp_path, sizes, log, hangs_at=hangs_at)
        wait_for(lambda: recorded(tmp_path, 40) == hangs_at)  # noqa: B023 (called before it changes)
        builder.kill()
        assert builder.wait() == -signal.SIGKILL
        assert sorted(decoded(log))[: hangs_at - done_before + 1] == list(range(done_before, hangs_at + 1))
        assert not list((tmp_path / "cache").glob("*.npy"))
        done_before = hangs_at

    log = tmp_path / "decoded until the end"
    assert start_builder(tmp_path, sizes, log).wait() == 0
    assert decoded(log) == [39]
    (built,) = (tmp_path / "cache").glob("*.npy")
    assert built.name == whole.name
    assert built.read_bytes() == whole.read_bytes()
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_process_that_waits_for_a_killed_builder_resumes_its_work(tmp_path: Path) -> None:
    sizes = many_images(tmp_path)
    log = tmp_path / "second"
    first = start_builder(tmp_path, sizes, tmp_path / "first", hangs_at=25)
    wait_for(lambda: recorded(tmp_path, 40) == 25)
    second = start_builder(tmp_path, sizes, log)
    wait_for(lambda: "waiting for another process" in read_if_there(log.with_suffix(".log")))
    first.kill()
    first.wait()
    assert second.wait() == 0
    assert sorted(decoded(log)) == list(range(25, 40))
    open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "whole")
    built, whole = (next((tmp_path / name).glob("*.npy")) for name in ("cache", "whole"))
    assert built.read_bytes() == whole.read_bytes()


def interrupted_after(
    folder: Path, sizes: dict[str, tuple[int, int]], count: int, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return an incomplete cache with so many finished images, as left by Ctrl-C."""
    read = image_cache._read

    def read_some(annotations: Annotations, index: int, *args: Any) -> Any:
        if index == count:
            raise KeyboardInterrupt
        return read(annotations, index, *args)

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "_read", read_some)
        patch.setattr(image_cache, "RECORD_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            open_cache(annotations_of(folder, sizes), 32, folder / "cache", workers=1)
    (partial,) = (folder / "cache").glob("*.partial")
    assert recorded(folder, len(sizes)) == count
    return partial


def indices_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every decoded image is appended."""
    read, indices = image_cache._read, []

    def read_and_count(annotations: Annotations, index: int, *args: Any) -> Any:
        indices.append(index)
        return read(annotations, index, *args)

    monkeypatch.setattr(image_cache, "_read", read_and_count)
    return indices


def test_an_interruption_from_the_keyboard_keeps_the_decoded_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = many_images(tmp_path, 9)
    interrupted_after(tmp_path, sizes, 6, monkeypatch)
    indices = indices_read(monkeypatch)
    resumed = open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache", workers=1)
    assert indices == [6, 7, 8]
    assert (resumed.images == open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "whole").images).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: b"",
        lambda record: record[:1],
        lambda record: record[:21],
        lambda record: record[:-1],
        lambda record: bytes(len(record)),
        lambda record: record.replace(b"000006", b"000008"),
        lambda record: image_cache._progress_record(8)[:40] + record[40:],
        lambda record: record.replace(b"finished", b"finishes"),
    ],
)
def test_with_an_incomplete_record_no_image_counts_as_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    sizes = many_images(tmp_path, 9)
    partial = interrupted_after(tmp_path, sizes, 6, monkeypatch)
    record = image_cache._progress_record(6)
    content = partial.read_bytes()
    pixels, _, facts = content.rpartition(record)
    assert len(facts) >= 6
    partial.write_bytes(pixels + damage(record))
    indices = indices_read(monkeypatch)
    open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache", workers=1)
    assert indices == list(range(9))


@pytest.mark.parametrize("keep", [0, 5, 100, 128, 5000])
def test_a_truncated_partial_file_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    sizes = many_images(tmp_path, 9)
    os.truncate(interrupted_after(tmp_path, sizes, 6, monkeypatch), keep)
    resumed = open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache")
    assert (resumed.images == open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "whole").images).all()


def test_a_resumed_build_finds_an_unusable_image_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = many_images(tmp_path, 9)
    (tmp_path / "03.png").write_bytes(b"not an image")
    read = image_cache._read

    def read_some(annotations: Annotations, index: int, *args: Any) -> Any:
        if index == 7:
            raise KeyboardInterrupt
        return read(annotations, index, *args)

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "_read", read_some)
        patch.setattr(image_cache, "RECORD_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache", workers=1)
    assert recorded(tmp_path, 9) == 3
    with pytest.raises(UserError, match=r"1 of 9 images .*03\.png"):
        open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_images_are_on_the_disk_before_they_count_as_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = many_images(tmp_path, 9)
    steps: list[str] = []
    write, sync = image_cache._write_all, os.fsync

    def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
        is_record = bytes(data[:9]) == b"finished "
        steps.append("record" if is_record else "facts" if len(data) == 1 else "image")
        write(descriptor, data, offset)

    monkeypatch.setattr(image_cache, "_write_all", write_all)
    monkeypatch.setattr(image_cache, "QUEUED_PER_THREAD", 1)
    monkeypatch.setattr(image_cache, "RECORD_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("sync"), sync(descriptor)))
    open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache", workers=1)
    assert steps == ["image", "facts", "sync", "record"] * 9


def test_images_already_decoded_need_no_free_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = many_images(tmp_path, 9)
    held = interrupted_after(tmp_path, sizes, 6, monkeypatch).stat().st_blocks * 512
    usage = namedtuple("usage", "total used free")
    needed = 9 * 32 * 32 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, needed - held))
    cache = open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache")
    assert all(image.any() for image in cache.images)


def test_a_cache_from_before_progress_records_existed_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = many_images(tmp_path, 9)
    images = open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache").images
    (built,) = (tmp_path / "cache").glob("*.npy")
    os.truncate(built, built.stat().st_size - len(image_cache._progress_record(9)) - 9)
    indices = indices_read(monkeypatch)
    assert (open_cache(annotations_of(tmp_path, sizes), 32, tmp_path / "cache").images == images).all()
    assert indices == []


def test_a_folder_left_incomplete_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "target.partial").mkdir()
    (tmp_path / "target.partial" / "old").write_text("")
    build_once(tmp_path / "target", Path.mkdir)
    assert list((tmp_path / "target").iterdir()) == []


def _build_slowly(folder: Path) -> None:
    def build(partial: Path) -> None:
        with open(folder / "builders", "a") as file:
            file.write("x")
        partial.write_text("half")
        time.sleep(0.3)
        partial.write_text("whole")

    build_once(folder / "target", build)
    assert (folder / "target").read_text() == "whole"


def test_of_two_processes_at_once_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_build_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builders").read_text() == "x"


def test_a_real_data_set_is_cached_completely(tmp_path: Path) -> None:
    paths = find_split(DataConfig(folder=str(shared_folder("data") / "coco_permissive")), "val")
    val = read_annotations(paths.annotations, paths.images)
    cache = open_cache(val, 128, tmp_path)
    assert cache.images.shape == (40, 128, 128, 3)
    for image, (width, height) in zip(cache.images, cache.content_sizes_wh, strict=True):
        assert image[:height, :width].any()
        assert not image[height:].any()
        assert not image[:, width:].any()
