"""Measure the paper's proxy on the accelerator of this machine, against straightforward code, and write one JSON.

    python benchmarks/accelerator.py --json accelerator.json
    python benchmarks/accelerator.py --small               # all steps in seconds, also on a CPU

The script needs torch, numpy and Pillow, but no installation and no network. It ends within --minutes (8). The images
are generated: JPEGs of 640 x 480 for the straightforward code, and their cache. Networks have the paper's proxy scale
(width 0.25, 512 px, batches of 64, bfloat16): SpineNet-49 in each mode of compilation, eight random genotypes in the
faster of the first two modes, and SpineNet-49 at the half width of Google's managed search. Utilisation is three times
the multiply-adds of a forward pass relative to a bfloat16 peak: that of the data sheet if the chip is known, and the
measured rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

if "spinenas" not in sys.modules:  # from a checkout, installed or not
    package = types.ModuleType("spinenas")
    package.__path__ = [str(ROOT)]
    sys.modules["spinenas"] = package

from plain_training import PlainTraining  # noqa: E402

from spinenas.proxy_task.config import EvalConfig, LossConfig, TaskConfig, TrainConfig  # noqa: E402
from spinenas.proxy_task.data.annotations import Annotations  # noqa: E402
from spinenas.proxy_task.data.images.image_cache import open_cache  # noqa: E402
from spinenas.proxy_task.data.images.labelled_images import LabelledImages, attach_boxes  # noqa: E402
from spinenas.proxy_task.detector.losses import detection_loss  # noqa: E402
from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet  # noqa: E402
from spinenas.proxy_task.evaluation.detect import detect  # noqa: E402
from spinenas.proxy_task.training import compilation  # noqa: E402
from spinenas.proxy_task.training.batches import device_batch, draw_raw_batch, move_to_device  # noqa: E402
from spinenas.proxy_task.training.compilation import Mode, compile_seconds, prepare_compilation  # noqa: E402
from spinenas.proxy_task.training.device import autocast, choose_device, peak_memory_bytes, reset_peak_memory  # noqa: E402
from spinenas.proxy_task.training.train import make_optimizer, train_detector  # noqa: E402
from spinenas.space.cost import retinanet_cost  # noqa: E402
from spinenas.space.genotype import Genotype  # noqa: E402
from spinenas.space.head import HeadConfig  # noqa: E402
from spinenas.space.published import SPINENET_49  # noqa: E402
from spinenas.space.random_streams import generator  # noqa: E402
from spinenas.space.sampling import sample_without_dead_blocks  # noqa: E402
from spinenas.space.scaling import Scaling  # noqa: E402
from spinenas.space.search_space import SearchSpace  # noqa: E402

PEAKS = {
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
}
"""Dense bfloat16 TFLOP/s by part of the device name, from NVIDIA's data sheets. A multiply-add counts as two FLOPs."""

TRAIN_IMAGES, REWARD_IMAGES = 110_895, 7_392
"""Training images of the paper's proxy: COCO's train2017 without the reward images (SpineNet, section 5.1)."""

CATEGORIES = 80


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of all measurements."""

    image: int
    batch: int
    eval_batch: int
    jpegs: int
    steps: int
    genotypes: int
    boxes: int


FULL = Size(image=512, batch=64, eval_batch=128, jpegs=256, steps=24, genotypes=8, boxes=40)
SMALL_GENOTYPE = Genotype.from_text("2b 2b / 3b0,1 3b0,1! 4r1,2! 5r3,4!")
SMALL = Size(image=96, batch=2, eval_batch=2, jpegs=6, steps=2, genotypes=1, boxes=4)


def proxy(size: Size, scaling: Scaling, head_channels: int, mode: Mode) -> TaskConfig:
    """Return the paper's proxy task, or one of another width."""
    return TaskConfig(
        image_size_pixels=size.image,
        scaling=scaling,
        head=HeadConfig(num_convs=4, channels=head_channels, anchor_scale=3.0),
        loss=LossConfig(mask_zero_targets=True),
        train=TrainConfig(epochs=1, batch_size=size.batch, dtype="bfloat16", compile=mode),
        eval=EvalConfig(batch_size=size.eval_batch, plus_one_decoding=True),
    )


PAPER = Scaling("proxy", 0.25, 64, 0.25, 1)
HALF = Scaling("half", 0.5, 128, 0.5, 1)
"""Google's managed search trains at half width for 12 epochs. We assume half of alpha and of the endpoints too."""


def generated(folder: Path, size: Size) -> Annotations:
    """Write JPEGs of smooth noise with random boxes."""
    rng = generator(0, "accelerator", "images")
    width, height = (640, 480) if size is FULL else (128, 96)
    for number in range(size.jpegs):
        coarse = Image.fromarray(rng.integers(0, 256, size=(height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
    counts = rng.integers(0, size.boxes + 1, size=size.jpegs)
    counts[0] = size.boxes
    total = int(counts.sum())
    corners = rng.uniform(0, [width * 0.7, height * 0.7], size=(total, 2))
    sides = rng.uniform(8, [width * 0.3, height * 0.3], size=(total, 2))
    boxes = np.concatenate([corners, sides], axis=1)
    names = tuple(f"{number}.jpg" for number in range(size.jpegs))
    return Annotations(
        images_folder=folder,
        image_ids=np.arange(size.jpegs),
        file_names=names,
        groups=names,
        widths=np.full(size.jpegs, width),
        heights=np.full(size.jpegs, height),
        category_ids=np.arange(1, CATEGORIES + 1),
        category_names=tuple(map(str, range(CATEGORIES))),
        box_offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_xywh=boxes,
        labels=rng.integers(1, CATEGORIES + 1, size=total),
        areas=boxes[:, 2] * boxes[:, 3],
        iscrowd=np.zeros(total, dtype=bool),
        annotation_ids=np.arange(total),
    )


class Bench:
    """All measurements on one device."""

    def __init__(self, size: Size, device: torch.device, annotations: Annotations, data: LabelledImages):
        self.size, self.device, self.annotations, self.data = size, device, annotations, data
        self.genotype = SPINENET_49 if size is FULL else SMALL_GENOTYPE

    def now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, do: Callable[[], object]) -> float:
        started = self.now()
        do()
        return self.now() - started

    def network(self, genotype: Genotype, config: TaskConfig) -> RetinaNet:
        network = build_retinanet(genotype, config.scaling, config.head, class_channels=CATEGORIES + 1)
        network.to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def rows(self, steps: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.resize(np.arange(self.size.jpegs), steps * self.size.batch)

    def train(self, network: RetinaNet, config: TaskConfig, steps: int) -> None:
        train_detector(
            network,
            self.data,
            self.rows(steps),
            seed=0,
            device=self.device,
            # A learning rate at which generated boxes do not cause divergence.
            train=replace(config.train, learning_rate=1e-4, warmup_steps=0),
            loss=config.loss,
            decay_depthwise=True,
            after_epoch=lambda state, figures: None,
        )

    def candidate(self, genotype: Genotype, config: TaskConfig) -> dict[str, Any]:
        """Train one network for some steps, and measure detection."""
        reset_peak_memory(self.device)
        compiled_before = compile_seconds()
        network = self.network(genotype, config)
        first = self.seconds(lambda: self.train(network, config, 2))
        # The difference of two lengths excludes the time before the first step.
        short = self.seconds(lambda: self.train(network, config, self.size.steps))
        long = self.seconds(lambda: self.train(network, config, 3 * self.size.steps))
        step_seconds = max(long - short, 1e-9) / (2 * self.size.steps)
        memory = peak_memory_bytes(self.device)
        compiled = compile_seconds() - compiled_before

        def detection() -> None:
            rows = np.resize(np.arange(self.size.jpegs), 2 * self.size.eval_batch)
            detect(network, self.data, rows, device=self.device, config=config.eval, dtype=config.train.dtype)

        detection()
        detect_seconds = self.seconds(detection) / (2 * self.size.eval_batch)
        madds = retinanet_cost(
            genotype,
            config.scaling,
            config.image_size_pixels,
            class_channels=CATEGORIES + 1,
            **config.head.as_cost_arguments(),
        ).madds
        images_per_second = self.size.batch / step_seconds
        return {
            "genotype": genotype.text,
            "compile": config.train.compile,
            "madds": madds,
            "images_per_second": images_per_second,
            "step_seconds": step_seconds,
            "detect_seconds_per_image": detect_seconds,
            "first_two_steps_seconds": first,
            "compile_seconds": compiled,
            "peak_memory_bytes": memory,
            "madds_per_second": 3 * madds * images_per_second,
        }

    def plain(self, config: TaskConfig) -> dict[str, float]:
        """Measure the straightforward step: eager float32 in NCHW, JPEGs decoded by workers of a DataLoader."""
        network = build_retinanet(self.genotype, config.scaling, config.head, class_channels=CATEGORIES + 1)
        workers = max(1, min(16, (os.cpu_count() or 1) - 1))
        quiet = replace(config, train=replace(config.train, learning_rate=1e-4))
        plain = PlainTraining(network.to(self.device), self.annotations, quiet, self.device, num_workers=workers)
        plain.train(self.rows(2))
        seconds = self.seconds(lambda: plain.train(self.rows(self.size.steps)))
        return {"images_per_second": self.size.steps * self.size.batch / seconds, "workers": workers}

    def parts(self, config: TaskConfig) -> dict[str, float]:
        """Return milliseconds of the parts of an uncompiled step, synchronised after each part."""
        network = self.network(self.genotype, config)
        network.train()
        train, loss = config.train, config.loss
        optimizer = make_optimizer(network, train)
        parameters = list(network.parameters())
        anchors = network.anchors((self.size.image, self.size.image)).to(self.device)
        rng = generator(0, "accelerator", "parts")
        found: dict[str, list[float]] = {}

        @contextmanager
        def part(name: str) -> Iterator[None]:
            started = self.now()
            yield
            found.setdefault(name, []).append(1e3 * (self.now() - started))

        for _ in range(6):
            with part("draw and gather (done ahead)"):
                drawn = draw_raw_batch(self.data, self.rows(1), rng, train, self.device)
            with part("copy, augment, match"):
                images, classes, box_targets = device_batch(drawn, anchors, train)
            with part("forward"), autocast(self.device, train.dtype):
                logits, deltas = network(images)
            with part("losses"):
                total, _, _ = detection_loss(
                    logits,
                    deltas,
                    classes,
                    box_targets,
                    alpha=loss.focal_alpha,
                    gamma=loss.focal_gamma,
                    delta=loss.huber_delta,
                    box_weight=loss.box_weight,
                )
            optimizer.zero_grad(set_to_none=True)
            with part("backward"):
                total.backward()  # type: ignore[no-untyped-call]
            with part("clip, optimiser"):
                torch.nn.utils.clip_grad_norm_(parameters, 10.0)
                optimizer.step()
        return {name: statistics.median(values[1:]) for name, values in found.items()}

    def matmul_madds_per_second(self) -> float:
        """Return the measured rate of a large bfloat16 matrix product."""
        side = 8192 if self.size is FULL and self.device.type != "cpu" else 512
        first, second = (torch.randn(side, side, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        torch.mm(first, second)
        return side**3 / statistics.median(self.seconds(lambda: torch.mm(first, second)) for _ in range(7))


def peak_madds_per_second(name: str) -> float | None:
    """Return the figure of the data sheet; None for an unknown chip."""
    known = next((peak for part, peak in PEAKS.items() if all(word in name for word in part.split())), None)
    return None if known is None else known * 1e12 / 2


def projected(candidate: dict[str, Any], epochs: int, evaluations: int) -> dict[str, float]:
    """Return the accelerator hours of a whole trial, from the figures of a candidate."""
    training = epochs * TRAIN_IMAGES / candidate["images_per_second"]
    evaluation = evaluations * REWARD_IMAGES * candidate["detect_seconds_per_image"]
    hours = (training + evaluation + candidate["compile_seconds"]) / 3600
    return {
        "epochs": epochs,
        "hours": hours,
        "share_in_evaluation": evaluation / 3600 / hours,
        "share_in_compilation": candidate["compile_seconds"] / 3600 / hours,
        "madds_per_second": 3 * candidate["madds"] * epochs * TRAIN_IMAGES / (3600 * hours),
    }


def measured(bench: Bench, device_name: str, deadline: float, note: Callable[[str], None]) -> dict[str, Any]:
    """Run all measurements that fit the time, the most important ones first."""
    size = bench.size
    figures: dict[str, Any] = {"matmul_madds_per_second": bench.matmul_madds_per_second(), "skipped": []}
    peaks = {"data sheet": peak_madds_per_second(device_name), "matrix product": figures["matmul_madds_per_second"]}

    def with_time_for(seconds: float, name: str, do: Callable[[], Any]) -> Any:
        if time.monotonic() + seconds > deadline:
            figures["skipped"].append(name)
            note(f"{name}: skipped, no time is left for it")
            return None
        started = time.monotonic()
        try:
            result = do()
        except Exception as error:  # a failed mode must not prevent the others
            figures.setdefault("failed", {})[name] = f"{type(error).__name__}: {error}"[:500]
            note(f"{name}: failed, {type(error).__name__}")
            return None
        note(f"{name}: {time.monotonic() - started:.0f} s")
        return result

    note("plain first: it is what all else is compared with")
    plain = with_time_for(0, "straightforward", lambda: bench.plain(proxy(size, PAPER, 64, "off")))
    modes: list[Mode] = ["off", "blocks", "whole"]
    by_mode = {}
    for mode, least in zip(modes, (0, 60, 120), strict=True):
        trained = partial(bench.candidate, bench.genotype, proxy(size, PAPER, 64, mode))
        result = with_time_for(least, f"SpineNet-49, compile {mode}", trained)
        if result is not None:
            by_mode[mode] = result
    figures |= {"plain": plain, "spinenet_49": by_mode}
    figures["parts_ms"] = with_time_for(10, "parts of a step", lambda: bench.parts(proxy(size, PAPER, 64, "off")))
    if not by_mode:
        return figures
    # Only "blocks" shares programs between candidates; "whole" would compile each candidate again.
    best: Mode = max(("off", "blocks"), key=lambda mode: by_mode.get(mode, {}).get("images_per_second", 0.0))
    figures["mode_of_the_others"] = best
    others = proxy(size, PAPER, 64, best)
    space = SearchSpace.spinenet49() if size is FULL else SearchSpace.tiny()
    figures["random_genotypes"] = []
    for number in range(size.genotypes):
        genotype = sample_without_dead_blocks(space, generator(0, "accelerator", number))
        result = with_time_for(30, f"random genotype {number}", partial(bench.candidate, genotype, others))
        if result is not None:
            figures["random_genotypes"].append(result)
    half = with_time_for(60, "half width", partial(bench.candidate, bench.genotype, proxy(size, HALF, 128, best)))
    figures["half_width"] = half
    bench.data = move_to_device(bench.data, bench.device)
    figures["images_on_device"] = with_time_for(
        20, "images in its memory", partial(bench.candidate, bench.genotype, proxy(size, PAPER, 64, best))
    )

    fastest = max(by_mode.values(), key=lambda result: result["images_per_second"])
    figures["ratio_to_plain"] = None if not plain else fastest["images_per_second"] / plain["images_per_second"]
    trials = {"paper's proxy, 5 epochs": projected(fastest, 5, 5)}
    if half:
        trials["half width, 12 epochs"] = projected(half, 12, 1)
    for trial in trials.values():
        trial["utilisation"] = {
            name: trial["madds_per_second"] / peak for name, peak in peaks.items() if peak is not None
        }
    figures["trials"] = trials
    return figures


def table(figures: dict[str, Any]) -> str:
    """Return the most important figures as Markdown."""
    lines = [
        "| candidate | compile | images/s | ms per step | compile s | peak GiB | G multiply-adds |",
        "|---|---|---|---|---|---|---|",
    ]
    named = [("SpineNet-49", result) for result in figures["spinenet_49"].values()]
    named += [(f"random {number}", result) for number, result in enumerate(figures.get("random_genotypes", []))]
    if figures.get("half_width"):
        named.append(("SpineNet-49, half width", figures["half_width"]))
    if figures.get("images_on_device"):
        named.append(("SpineNet-49, images in its memory", figures["images_on_device"]))
    for name, result in named:
        memory = result["peak_memory_bytes"]
        cells = [
            name,
            result["compile"],
            f"{result['images_per_second']:.1f}",
            f"{1e3 * result['step_seconds']:.1f}",
            f"{result['compile_seconds']:.1f}",
            "-" if memory is None else f"{memory / 2**30:.2f}",
            f"{result['madds'] / 1e9:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    plain = figures["plain"]
    if plain:
        lines.append(f"| SpineNet-49, straightforward | off | {plain['images_per_second']:.1f} | | | | |")
        lines.append(f"\nFastest against straightforward: {figures['ratio_to_plain']:.2f}")
    for name, trial in figures.get("trials", {}).items():
        shares = ", ".join(f"{share:.1%} of the {peak}'s peak" for peak, share in trial["utilisation"].items())
        lines.append(f"{name}: {trial['hours']:.2f} hours, {shares}")
    if figures.get("parts_ms"):
        lines.append("parts of a step, ms: " + ", ".join(f"{k} {v:.1f}" for k, v in figures["parts_ms"].items()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks and images, without real compilation")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes - 20
    size = SMALL if arguments.small else FULL
    device = choose_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    if arguments.small:
        compilation.BACKEND = "eager"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        annotations = generated(root / "images", size)
        prepare_compilation(root / "compiled")
        # In host memory, because COCO's images do not fit the memory of an accelerator.
        data = attach_boxes(annotations, open_cache(annotations, size.image, root / "cache"))
        bench = Bench(size, device, annotations, data)
        figures = {
            "date": str(datetime.now().date()),
            "device": name,
            "torch": str(torch.__version__),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "size": asdict(size),
            **measured(bench, name, deadline, lambda line: print(line, file=sys.stderr, flush=True)),
        }
    print(f"{name}, torch {figures['torch']}, {figures['cores']} cores, {figures['date']}\n{table(figures)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
