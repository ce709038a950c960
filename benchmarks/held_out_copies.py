"""Print how far reward AP is from AP on new images where a data set has altered copies of each picture.

    python benchmarks/held_out_copies.py

The data set has a few generated pictures, each with copies: mirrored, brightened, darkened and encoded again. Once the
names say which picture a copy is of, as Roboflow's do, so that the hold-out keeps copies together. Once they do not, as
in earlier versions for any names. SpineNet-49 is trained on both, and measured on the reward images and on new ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark_task import small
from PIL import Image, ImageEnhance, ImageOps

from spinenas.proxy_task.config import TaskConfig
from spinenas.proxy_task.data.synthetic import generate_dataset
from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Failure
from spinenas.search.config.presets import preset
from spinenas.space.published import SPINENET_49

NUM_COPIES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="try the script with a narrow network and one epoch")
    arguments = parser.parse_args()
    config = preset("quickstart").task
    config = small(config) if arguments.small else replace(config, train=replace(config.train, epochs=arguments.epochs))
    num_pictures = 16 if arguments.small else arguments.pictures
    print("| names of copies | held out | found in the data | reward AP | AP on new images | difference |")
    print("|---|---|---|---|---|---|")
    for is_named in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            write_copies(Path(folder) / "set", num_pictures, config.image_size_pixels, is_named=is_named)
            print(row(config, Path(folder), is_named=is_named), flush=True)


def write_copies(folder: Path, num_pictures: int, size: int, *, is_named: bool) -> None:
    """Write a data set in which each training picture has NUM_COPIES versions."""
    generate_dataset(folder, num_train=num_pictures, num_val=100, image_size_pixels=size, seed=3)
    path = folder / "annotations/instances_train.json"
    found = json.loads(path.read_text())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in found["images"]:
        boxes = [entry for entry in found["annotations"] if entry["image_id"] == image["id"]]
        with Image.open(folder / "images" / image["file_name"]) as opened:
            picture = opened.convert("RGB")
        for copy in range(NUM_COPIES):
            number = len(images)
            stem = image["file_name"].removesuffix(".png")
            name = f"{stem}_png.rf.{number:032x}.jpg" if is_named else f"{number:05}.jpg"
            altered(picture, copy).save(folder / "images" / name, quality=92)
            images.append({**image, "id": number + 1, "file_name": name})
            for entry in boxes:
                x, y, width, height = entry["bbox"]
                left = size - x - width if copy == 1 else x
                box = {"bbox": [left, y, width, height], "image_id": number + 1, "id": len(annotations) + 1}
                annotations.append({**entry, **box})
    path.write_text(json.dumps({**found, "images": images, "annotations": annotations}))


def altered(picture: Image.Image, copy: int) -> Image.Image:
    """Return a version of a picture; the first is the picture itself, the second is mirrored."""
    if copy == 1:
        return ImageOps.mirror(picture)
    return ImageEnhance.Brightness(picture).enhance((1.0, 1.0, 1.2, 0.8, 1.1)[copy])


def row(config: TaskConfig, folder: Path, *, is_named: bool) -> str:
    """Train and measure; return a line of the table."""
    data = replace(config.data, folder=str(folder / "set"), cache_folder=str(folder / "cache"), held_out_images=None)
    task = ProxyTask(replace(config, data=data), device="cpu")
    task.prepare(with_val=True)
    counts = {finding.what: finding.count for finding in task.data.findings(with_val=False)}
    leaks = sum(count for what, count in counts.items() if what.startswith("reward images that look like"))
    reward = task.evaluate_with_val(SPINENET_49, seed=0, folder=folder)
    if isinstance(reward, Failure):
        raise SystemExit(f"the training failed: {reward.message}")
    new = task.val_metrics(folder)["AP"] or 0.0
    names = "of their picture" if is_named else "of their own"
    return (
        f"| {names} | {len(task.data.reward_rows)} of {len(task.data.train.image_ids)} | {leaks} reward images look "
        f"like one trained on | {reward.objective:.3f} | {new:.3f} | {reward.objective - new:+.3f} |"
    )


if __name__ == "__main__":
    main()
