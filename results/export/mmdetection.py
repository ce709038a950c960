"""Exports a detector for MMDetection 3: a backbone that registers itself, and a RetinaNet config that trains it.

The recipe is that of the paper (SpineNet, section 4.1; configurations of tensorflow/tpu).
"""

from __future__ import annotations

import textwrap

from spinenas.results.export.description import ExportDescription, NetworkOptions
from spinenas.results.export.python_source import METADATA, literal, python_module
from spinenas.space.baseline import genotype_of
from spinenas.space.dialect import dialect_named
from spinenas.space.genotype import BlockKind
from spinenas.space.head import HeadConfig
from spinenas.space.published import PROTOCOLS, PublishedModel

BACKBONE_MODULE = "spinenet_backbone"
"""Name of the module with the backbone, beside the config."""

_BACKBONE_CLASS = '''

from mmdet.registry import MODELS  # noqa: E402


@MODELS.register_module()
class SpineNetBackbone(Backbone):
    """Backbone that returns a tuple of feature maps, finest level first, as MMDetection expects."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(super().forward(x).values())
'''


def mmdet_files(
    description: ExportDescription,
    *,
    head: HeadConfig | None = None,
    head_source: str = "SpineNet-49",
    model: PublishedModel | None = None,
    image_size_pixels: int = 640,
) -> dict[str, str]:
    """Return source by file name: a backbone registered in MMDetection 3, and a RetinaNet config that trains it.

    Args:
        description: the network.
        head: the head and anchors of the config; None for those of SpineNet-49.
        head_source: the detector that has this head, for a comment.
        model: the published model that this is, for a comment about its training.
        image_size_pixels: side of the square input.

    Raises GenotypeError for a genotype that cannot be built, and UserError for a baseline.
    """
    head = head or HeadConfig()
    module = python_module(description)
    comment = _comment(description, head, head_source, model)
    config = _config(description, head, image_size_pixels)
    return {
        f"{BACKBONE_MODULE}.py": module + _BACKBONE_CLASS,
        "retinanet_spinenet.py": f"{comment}{METADATA} = {literal(description.to_json())}\n\n{config}",
    }


def _is_mobile(description: ExportDescription) -> bool:
    genotype = genotype_of(description.architecture, description.name)
    return any(block.kind == BlockKind.MBCONV for block in genotype.blocks)


def _comment(description: ExportDescription, head: HeadConfig, head_source: str, model: PublishedModel | None) -> str:
    """Return the comment of a config: how to use it, what is MMDetection's own, and how the published model trained."""
    protocol = "mobile" if _is_mobile(description) else "B"
    paragraphs = [
        f"The recipe is the paper's protocol {protocol} ({PROTOCOLS[protocol]}), from scratch, with synchronised batch "
        "norm. The learning rate belongs to 256 images per step, and is scaled to the batch size of the training. For "
        "a shorter training, change max_epochs and the milestones.",
        "To begin with exported weights, set init_cfg of the backbone to "
        'dict(type="Pretrained", checkpoint="FILE.safetensors").',
        f"Head and anchors are those of {head_source}. The head has a batch norm for each level after each "
        "convolution, as SpineNet's. MMDetection's uses ReLU, whatever the activation of the backbone.",
        "The exported backbone has no stochastic depth, which protocol C has.",
    ]
    if head.separable:
        paragraphs.append(
            f"The head of {head_source} is separable: its convolutions are depthwise and 1x1. MMDetection's is not "
            "separable: it has 3x3 convolutions, so its parameters and multiply-adds exceed the published ones."
        )
    if model is not None:
        names = list(dict.fromkeys(ap.protocol for ap in model.aps))
        paragraphs += [f"Training protocol {name} of {model.name}: {PROTOCOLS[name]}." for name in names]
        if not names:
            paragraphs.append(f"No AP of {model.name} is published.")
    usage = (
        "# RetinaNet for MMDetection 3 with the backbone in this folder. Put this folder on PYTHONPATH, and run:\n"
        "#     mim train mmdet retinanet_spinenet.py\n"
    )
    lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, 110)]
    return usage + "".join(f"# {line}\n" for line in lines)


def _config(description: ExportDescription, head: HeadConfig, side: int) -> str:
    genotype = genotype_of(description.architecture, description.name)
    options = description.options or NetworkOptions()
    rules = dialect_named(options.dialect)
    levels = sorted(block.level for block in genotype.blocks if block.is_output)
    epochs, decays, weight_decay = (600, [570, 590], 3e-5) if _is_mobile(description) else (350, [320, 340], 4e-5)
    values = {
        "MODULE": BACKBONE_MODULE,
        "SIDE": side,
        "NUM_LEVELS": len(levels),
        "IN_CHANNELS": description.scaling.endpoint_channels,
        "NUM_CONVS": head.num_convs,
        "HEAD_CHANNELS": head.channels,
        "BN_MOMENTUM": rules.bn_momentum if options.bn_momentum is None else options.bn_momentum,
        "BN_EPS": rules.bn_eps if options.bn_eps is None else options.bn_eps,
        "ANCHOR_SCALE": head.anchor_scale,
        "NUM_SCALES": head.num_scales,
        "RATIOS": sorted(1 / ratio for ratio in head.aspect_ratios),  # MMDetection's are height / width
        "STRIDES": [2**level for level in levels],
        "EPOCHS": epochs,
        "DECAYS": decays,
        "WEIGHT_DECAY": weight_decay,
    }
    text = _CONFIG
    for name, value in sorted(values.items(), key=lambda item: len(item[0]), reverse=True):
        text = text.replace(f"<{name}>", str(value))
    return text


_CONFIG = """_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["<MODULE>"], allow_failed_imports=False)
sync_bn = "torch"  # in a distributed training; on a single GPU, batch norm sees its images alone

model = dict(
    # Normalised images are padded with zeros to a square of <SIDE> pixels, in training and in testing.
    data_preprocessor=dict(pad_size_divisor=<SIDE>),
    backbone=dict(_delete_=True, type="SpineNetBackbone", init_cfg=None),
    neck=None,
    bbox_head=dict(
        type="RetinaSepBNHead",
        num_ins=<NUM_LEVELS>,
        in_channels=<IN_CHANNELS>,
        stacked_convs=<NUM_CONVS>,
        feat_channels=<HEAD_CHANNELS>,
        norm_cfg=dict(type="BN", momentum=<BN_MOMENTUM>, eps=<BN_EPS>),
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            octave_base_scale=<ANCHOR_SCALE>,
            scales_per_octave=<NUM_SCALES>,
            ratios=<RATIOS>,
            strides=<STRIDES>,
        ),
        loss_cls=dict(gamma=1.5, alpha=0.25),
        # A Huber loss of delta 0.1 with weight 50, averaged over four coordinates: 50 * 0.1 / 4.
        loss_bbox=dict(_delete_=True, type="SmoothL1Loss", beta=0.1, loss_weight=1.25),
    ),
    train_cfg=dict(assigner=dict(neg_iou_thr=0.5)),  # an anchor below an IoU of 0.5 is background
)

# The long side becomes <SIDE> pixels times a random scale; a larger image is cropped, a smaller one padded.
train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(<SIDE>, <SIDE>), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(<SIDE>, <SIDE>), allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="Resize", scale=(<SIDE>, <SIDE>), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=<EPOCHS>, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.0067 / 0.28, by_epoch=False, begin=0, end=2000),
    dict(type="MultiStepLR", begin=0, end=<EPOCHS>, by_epoch=True, milestones=<DECAYS>, gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.28, momentum=0.9, weight_decay=<WEIGHT_DECAY>),
    # Only kernels decay. The levels share the convolutions of the head, so each is a duplicate.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
auto_scale_lr = dict(enable=True, base_batch_size=256)
"""
