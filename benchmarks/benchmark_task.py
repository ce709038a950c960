"""Makes the proxy task that a benchmark measures: that of a preset, or a small one that trains in a second."""

from __future__ import annotations

import argparse
from dataclasses import replace

from spinenas.proxy_task.config import TaskConfig
from spinenas.search.config.presets import preset
from spinenas.space import Scaling


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_task` reads."""
    parser.add_argument("preset", nargs="?", default="quickstart")
    parser.add_argument("--data", help="a COCO folder; the preset's own by default")
    parser.add_argument(
        "--small", action="store_true", help="try the script with a narrow network and one epoch on 32 images of 96 px"
    )


def chosen_task(arguments: argparse.Namespace) -> TaskConfig:
    """Return the task of the preset that the arguments name."""
    config = preset(arguments.preset).task
    if arguments.data:
        config = replace(config, data=replace(config.data, folder=arguments.data))
    return small(config) if arguments.small else config


def small(config: TaskConfig) -> TaskConfig:
    """Return a task of a narrow network and one epoch on 32 generated images of 96 px, evaluated on 8."""
    return replace(
        config,
        image_size_pixels=96,
        scaling=Scaling("small", 0.125, 8, 1.0, 1),
        head=replace(config.head, num_convs=1, channels=8, num_scales=1),
        data=replace(config.data, built_in_train_images=40, built_in_val_images=4),
        train=replace(config.train, epochs=1),
        eval=replace(config.eval, pre_nms_top=100, batch_size=4),
    )
