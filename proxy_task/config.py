"""Configuration of the proxy task: data, network, training and evaluation.

Defaults are the published values of RetinaNet SpineNet (SPINENET, section 4.1; tensorflow/tpu `retinanet_config.py`);
presets change what small data and short trainings need changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from spinenas.space.cost import MIN_IMAGE_SIZE
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import UserError
from spinenas.space.genotype import MAX_LEVEL
from spinenas.space.head import HeadConfig
from spinenas.space.scaling import Scaling

BUILT_IN = "built-in"
"""The value of `DataConfig.folder` that means the generated data set."""


DATA_PATHS = ("folder", "train_annotations", "train_images", "val_annotations", "val_images", "cache_folder")
"""The keys of `DataConfig` that are paths."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The data set.

    Attributes:
        folder: a data set folder in a known layout; "built-in" for the generated data set; "" for none.
        train_annotations, train_images, val_annotations, val_images: explicit paths instead; the last two may be left
            out where val is not needed.
        held_out_images: number of reward images held out of train; None for a fifth (7392 in the paper).
        group_pattern: a regular expression that finds the name of an image's group in its file name, such as the name
            of a video: its first group, or else the whole match. The hold-out never separates images of one group.
        built_in_train_images, built_in_val_images: size of the generated data set.
        cache_folder: folder of parsed annotations and decoded images; None for $SPINENAS_CACHE, else ~/.cache/spinenas.
        exif: whether boxes in images with an EXIF orientation are in coordinates of the displayed (upright) or of the
            stored image; "auto" takes what the sizes in the annotations say, and "stored" where they fit both.
        bit_depth: bits that images with 16 bits per pixel use, such as 12.
        max_megapixels: largest image to decode; a JPEG counts at the reduced size at which it is decoded.
    """

    folder: str = BUILT_IN
    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None
    held_out_images: int | None = None
    group_pattern: str | None = None
    built_in_train_images: int = 500
    built_in_val_images: int = 100
    cache_folder: str | None = None
    exif: Literal["auto", "displayed", "stored"] = "auto"
    bit_depth: int = 16
    max_megapixels: float = 179.0

    def __post_init__(self) -> None:
        train = [path is not None for path in (self.train_annotations, self.train_images)]
        val = [path is not None for path in (self.val_annotations, self.val_images)]
        if any(train) != all(train) or any(val) != all(val) or (any(val) and not any(train)):
            raise UserError(
                "task.data names some of train_annotations, train_images, val_annotations and val_images; "
                "give all four, the two of train, or none"
            )
        if self.group_pattern is not None:
            try:
                re.compile(self.group_pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise UserError(
                    f"task.data.group_pattern is {self.group_pattern!r}, which is no regular expression: {error}"
                ) from error
        if not 8 <= self.bit_depth <= 16:
            raise UserError(f"task.data.bit_depth is {self.bit_depth}; it is 8 to 16")
        _above_zero("data", self, "max_megapixels")
        _at_least("data", self, held_out_images=1, built_in_train_images=2, built_in_val_images=1)


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Losses (SPINENET section 4.1; tensorflow/tpu `losses.py`).

    Attributes:
        focal_alpha, focal_gamma: parameters of the class loss.
        huber_delta, box_weight: parameter of the box loss, and its weight in the sum.
        mask_zero_targets: exclude box coordinates whose target is exactly 0 from the loss; None for the dialect's rule.
    """

    focal_alpha: float = 0.25
    focal_gamma: float = 1.5
    huber_delta: float = 0.1
    box_weight: float = 50.0
    mask_zero_targets: bool | None = None

    def __post_init__(self) -> None:
        _at_least("loss", self, focal_gamma=0, box_weight=0)
        _above_zero("loss", self, "huber_delta")
        _share("loss", self, "focal_alpha")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a trial trains.

    Attributes:
        epochs: passes over the training images; the length of a training is never given in seconds.
        image_fraction: share of the training images that trials train on, selected by `subsets.training_subset`.
        batch_size: images per step.
        optimizer: "sgd" (momentum 0.9) or "adamw".
        learning_rate: rate at the end of the warm-up.
        weight_decay: for convolution kernels only.
        warmup_steps: linear warm-up from a tenth of the learning rate; a value below 1 is a share of all steps.
        schedule: "cosine" to zero, or "step" by 0.1 at each of step_at.
        step_at: shares of all steps.
        gradient_clip_norm: largest global norm of the gradient; None for no clipping.
        flip: flip half of the images horizontally.
        scale_jitter: range of the random scale; the image is then cropped or padded to size.
        bn_momentum: weight of a batch in the running statistics (as in PyTorch); None to derive it from the number of
            steps.
        bn_eps: added to the variance; None for the dialect's value.
        dtype: number format of convolutions; batch norm, losses and boxes are always float32. "auto" is bfloat16 where
            the processor or accelerator has instructions for it, else float32; a run keeps what it began with.
        activation: activation of backbone and head.
        stochastic_depth: drop rate of the last block's residual branch; earlier blocks have smaller rates.
        compile: "blocks" compiles programs that candidates share, "whole" one program per candidate. Which is faster
            depends on the device. Changes results in the last bits.
    """

    epochs: int = 5
    image_fraction: float = 1.0
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.08
    weight_decay: float = 4e-5
    warmup_steps: float = 500.0
    schedule: Literal["cosine", "step"] = "cosine"
    step_at: tuple[float, ...] = (0.8,)
    gradient_clip_norm: float | None = 10.0
    flip: bool = True
    scale_jitter: tuple[float, float] = (0.5, 2.0)
    bn_momentum: float | None = None
    bn_eps: float | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    activation: Literal["relu", "swish"] = "relu"
    stochastic_depth: float = 0.0
    compile: Literal["off", "blocks", "whole"] = "off"

    def __post_init__(self) -> None:
        _at_least("train", self, epochs=1, batch_size=1, weight_decay=0, warmup_steps=0)
        _above_zero("train", self, "learning_rate", "image_fraction", "bn_eps", "gradient_clip_norm")
        _share("train", self, "image_fraction", "bn_momentum")
        if not 0 <= self.stochastic_depth < 1:
            raise UserError(f"task.train.stochastic_depth is {self.stochastic_depth}; it is at least 0 and below 1")
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise UserError(f"task.train.scale_jitter is {list(self.scale_jitter)}; it is two scales, 0 < low <= high")


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """Detection after training (tensorflow/tpu `postprocess.py`).

    Attributes:
        score_threshold: lowest score of a detection.
        nms_iou: IoU above which NMS drops the lower-scoring of two boxes of a class.
        pre_nms_top: candidates for NMS per image, over all classes.
        max_detections: detections kept per image. AP counts the best 100 of an image and category, or this many if
            it is larger.
        batch_size: images per batch of the evaluation; changes results in the last bit at most.
        every_epochs: interval in epochs at which AP is measured during training; 0 for only after the last epoch.
        plus_one_decoding: decode boxes in the "+1 pixel" convention of tensorflow/tpu, which encodes without it;
            otherwise decoding is the inverse of encoding. None for the dialect's rule.
        bn_images: number of training images from which batch-norm statistics are estimated before AP is measured; 0
            for the running averages of training. See `training/batch_norm.py`.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    pre_nms_top: int = 5000
    max_detections: int = 100
    batch_size: int = 16
    every_epochs: int = 0
    plus_one_decoding: bool | None = None
    bn_images: int = 0

    def __post_init__(self) -> None:
        _at_least("eval", self, pre_nms_top=1, max_detections=1, batch_size=1, every_epochs=0, bn_images=0)
        _share("eval", self, "score_threshold", "nms_iou")


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """The whole proxy task.

    Attributes:
        image_size_pixels: side of the square input; a multiple of 32, at least 96.
        scaling: width, alpha and repeats of the backbone.
        dialect: code base to follow where the two published ones differ; see `spinenas.space.dialect`.
    """

    image_size_pixels: int = 512
    dialect: Literal["tensorflow/tpu", "tensorflow/models"] = "tensorflow/tpu"
    scaling: Scaling = field(default_factory=lambda: Scaling("proxy", 0.25, 64, 0.25, 1))
    data: DataConfig = field(default_factory=DataConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if not is_image_size(self.image_size_pixels):
            raise UserError(
                f"task.image_size_pixels is {self.image_size_pixels}; it is a multiple of 32, and at least 96 "
                "(below that levels 6 and 7 have the same size)"
            )
        if self.train.batch_size == 1 and self.image_size_pixels <= 2**MAX_LEVEL:
            raise UserError(
                f"task.train.batch_size is 1, and at {self.image_size_pixels} px level {MAX_LEVEL} is a single cell, "
                "of which batch norm has no variance; take batches of 2 or more"
            )

    def with_dialect(self) -> TaskConfig:
        """Return the same task with the dialect's rules filled in where the configuration leaves them open."""
        rules = DIALECTS[self.dialect]
        loss, detection = self.loss, self.eval
        if loss.mask_zero_targets is None:
            loss = replace(loss, mask_zero_targets=rules.mask_by_value)
        if detection.plus_one_decoding is None:
            detection = replace(detection, plus_one_decoding=rules.decode_plus_one)
        return replace(self, loss=loss, eval=detection)


def is_image_size(pixels: int) -> bool:
    """Whether levels 3 to 7 of an image of this side have different sizes, and level 5 has whole cells."""
    return pixels >= MIN_IMAGE_SIZE and pixels % 32 == 0


def _given(config: object, names: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the names and values that are not None, which means that a value is chosen elsewhere."""
    values = ((name, getattr(config, name)) for name in names)
    return ((name, value) for name, value in values if value is not None)


def plain(part: Any) -> dict[str, Any]:
    """Return a configuration, or a part of one, as plain data in which a float is always written as one.

    500 and 500.0 are equal, and Python takes either for a float, but digests of their texts would differ.
    """
    hints, values = get_type_hints(type(part)), {}
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            value = plain(value)
        elif float in (hints[item.name], *get_args(hints[item.name])):
            if isinstance(value, tuple):
                value = tuple(map(float, value))
            elif value is not None:
                value = float(value)
        values[item.name] = value
    return values


def _at_least(part: str, config: object, **least: float) -> None:
    for name, value in _given(config, least):
        if not value >= least[name]:  # not `<`, which is False for NaN
            raise UserError(f"task.{part}.{name} is {value}; it is at least {least[name]}")


def _above_zero(part: str, config: object, *names: str) -> None:
    for name, value in _given(config, names):
        if not 0 < value < float("inf"):
            raise UserError(f"task.{part}.{name} is {value}; it is above 0")


def _share(part: str, config: object, *names: str) -> None:
    for name, value in _given(config, names):
        if not 0 <= value <= 1:
            raise UserError(f"task.{part}.{name} is {value}; it is 0 to 1")
