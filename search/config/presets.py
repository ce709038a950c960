"""Ready-made configurations by name. Every key of a preset can be overridden."""

from __future__ import annotations

from dataclasses import replace

from spinenas.proxy_task.config import DataConfig, EvalConfig, LossConfig, TaskConfig, TrainConfig
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.space.errors import UserError, nearest
from spinenas.space.head import HeadConfig
from spinenas.space.scaling import Scaling

# What the CPU presets share. They decode boxes the way they encode them, and learn every coordinate: one pixel is much
# of a small box.
_CPU_TRAIN = TrainConfig(
    epochs=5,
    batch_size=8,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=1e-4,
    warmup_steps=0.1,
    scale_jitter=(0.8, 1.25),
)
_CPU_EVAL = EvalConfig(pre_nms_top=1000, plus_one_decoding=False)

QUICKSTART_TASK = TaskConfig(
    image_size_pixels=128,
    # At an eighth of the width, alpha 0.25 leaves two channels in a connection; 1.0 costs little and learns faster.
    scaling=Scaling("proxy", 0.125, 32, 1.0, 1),
    head=HeadConfig(num_convs=2, channels=32, anchor_scale=2.0),
    loss=LossConfig(box_weight=10.0, mask_zero_targets=False),
    train=replace(_CPU_TRAIN, learning_rate=6e-3),
    eval=_CPU_EVAL,
)
"""Generated shapes, small enough for a CPU: a demonstration, not evidence for real images."""

COCO_SMALL_TASK = TaskConfig(
    image_size_pixels=256,
    data=DataConfig(folder=""),
    scaling=Scaling("proxy", 0.25, 64, 1.0, 1),
    head=HeadConfig(num_convs=1, channels=64, anchor_scale=2.0),
    loss=LossConfig(box_weight=30.0, mask_zero_targets=False),
    # Small batches, because a few hundred images give few steps.
    train=replace(_CPU_TRAIN, epochs=16, batch_size=4, dtype="auto"),
    eval=replace(_CPU_EVAL, every_epochs=8),
)
"""A few hundred photographs on a CPU, a few minutes for each trial."""

DIGITS_TASK = TaskConfig(
    image_size_pixels=128,
    data=DataConfig(folder=""),
    scaling=Scaling("proxy", 0.25, 64, 1.0, 1),
    head=HeadConfig(num_convs=1, channels=64, anchor_scale=2.0),
    loss=LossConfig(box_weight=10.0, mask_zero_targets=False),
    # A mirrored digit is a different sign or none. In 600 steps unscaled images teach more than scaled ones.
    train=replace(_CPU_TRAIN, flip=False, scale_jitter=(1.0, 1.0), dtype="auto"),
    # At 128 px and batch 8, running averages halved the AP of one training in ten, deep networks more often.
    eval=replace(_CPU_EVAL, every_epochs=1, bn_images=512),
)
"""A thousand images of digits or other signs of many sizes on a CPU, a minute for each trial."""

SPINENET49_PROXY_TASK = TaskConfig(
    image_size_pixels=512,
    scaling=Scaling("proxy", 0.25, 64, 0.25, 1),
    data=DataConfig(folder="", held_out_images=7392),
    head=HeadConfig(num_convs=4, channels=64, anchor_scale=3.0),
    train=TrainConfig(
        epochs=5,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.08,
        weight_decay=4e-5,
        warmup_steps=500.0,
        scale_jitter=(0.5, 2.0),
        dtype="auto",
    ),
    eval=EvalConfig(batch_size=128, every_epochs=1),
)
"""The paper's proxy: widths x0.25, alpha 0.25, head 64, 512 px, 5 epochs, 7392 reward images (SpineNet,
section 5.1). The paper gives no batch size, learning rate, warm-up or number of head convolutions. Those here are from
the authors' later search (Google Vertex NAS, `spinenet_search_tpu.yaml`), with a cosine instead of its step at epoch 8
of 10. All published SpineNet configurations train in bfloat16 (tensorflow/tpu), and so does "auto"
on an accelerator that has it.
"""

PRESETS = {
    "quickstart": SearchConfig(task=QUICKSTART_TASK, budget=BudgetConfig(num_trials=12)),
    "digits": SearchConfig(task=DIGITS_TASK, budget=BudgetConfig(num_trials=60)),
    "coco-small": SearchConfig(task=COCO_SMALL_TASK, budget=BudgetConfig(num_trials=24)),
    "spinenet49-proxy": SearchConfig(
        task=SPINENET49_PROXY_TASK,
        budget=BudgetConfig(num_trials=1000),
        executor=ExecutorConfig(workers=8, cpus_per_worker=4.0, gpus_per_worker=1.0, threads_per_trial=4),
    ),
}
"""Configurations by name."""

PRESET_SUMMARIES = {
    "quickstart": "Generated shapes at 128 px on a CPU, half a minute for each training: a demonstration.",
    "digits": "Digits or other signs of many sizes at 128 px on a CPU, a minute for each training.",
    "coco-small": "A few hundred images at 256 px on a CPU, minutes for each training.",
    "spinenet49-proxy": "The paper's proxy task: 512 px, a quarter of the width, 5 epochs, on accelerators.",
}
"""One sentence for each preset."""


def preset(name: str) -> SearchConfig:
    """Return a preset by name. Raises UserError."""
    if name not in PRESETS:
        raise UserError(f"no preset is called {name!r}{nearest(str(name), PRESETS)}")
    return PRESETS[name]
