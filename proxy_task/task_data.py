"""Data of a proxy task: annotations, held-out reward images, cached images, evaluators and fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_cache import open_annotations
from spinenas.proxy_task.data.annotation_files.categories import match_categories
from spinenas.proxy_task.data.annotation_files.layout import Split, find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import cache_root
from spinenas.proxy_task.data.findings import Finding, log_findings
from spinenas.proxy_task.data.images.image_cache import cache_path, files_digest, open_cache, space_for_cache
from spinenas.proxy_task.data.images.image_facts import crowded_findings
from spinenas.proxy_task.data.images.image_file import decoding_of
from spinenas.proxy_task.data.images.labelled_images import LabelledImages, attach_boxes
from spinenas.proxy_task.data.splits.grouping import group_images
from spinenas.proxy_task.data.splits.leaks import reward_leaks, val_leaks
from spinenas.proxy_task.data.splits.merging import merge_entries
from spinenas.proxy_task.data.splits.near_identical import HashedImages, hash_images
from spinenas.proxy_task.data.splits.subsets import hold_out, training_subset
from spinenas.proxy_task.data.synthetic import resolve_built_in
from spinenas.proxy_task.evaluation.coco_metrics import MAX_DETECTIONS, CocoEvaluator
from spinenas.proxy_task.training.batches import move_to_device
from spinenas.space.errors import UserError

EvaluatedOn = Literal["reward", "val"]
"""Images that a trained network is evaluated on: the reward images, which are held out of train, or val."""

HOLD_OUT = "hold_out"
"""Key of a fingerprint. It is there if the hold-out keeps images together that the annotation file separates."""


VAL_UNUSABLE = "val cannot be used"
"""What a finding says of a val split that is there and has a mistake."""


def val_unusable(reason: UserError) -> Finding:
    """Return the finding about a val split that has a mistake."""
    return Finding(VAL_UNUSABLE, 0, advice=f"{reason}; a search runs without val, validate and replay do not")


class TaskData:
    """Opens each part of the data when it is first needed, and keeps it open.

    A search uses train alone. Val is opened only for a caller that asks for it.
    """

    def __init__(self, config: DataConfig, image_size_pixels: int, *, max_detections: int = MAX_DETECTIONS):
        """Configure the data without touching it.

        Args:
            config: which data.
            image_size_pixels: size at which the generated data set is drawn.
            max_detections: most detections of an image that its AP counts, if more than COCO's number.
        """
        self._config, self._image_size_pixels = config, image_size_pixels
        self._max_detections = max_detections
        self._splits: dict[tuple[Split, int], LabelledImages] = {}
        self._evaluators: dict[EvaluatedOn, CocoEvaluator] = {}
        self._findings: dict[bool, tuple[Finding, ...]] = {}
        self._is_joined = False  # whether entries or files of train were joined that its annotation file separates

    @cached_property
    def _located(self) -> DataConfig:
        """The configuration with the generated data set, if it is the one configured, written and named."""
        return resolve_built_in(self._config, self._image_size_pixels)

    @property
    def cache_folder(self) -> Path:
        """Folder of everything that is derived from the data."""
        return cache_root(self._config.cache_folder)

    def _open(self, split: Split) -> Annotations:
        paths = find_split(self._located, split)
        as_written = open_annotations(paths.annotations, paths.images, self.cache_folder, exif=self._config.exif)
        annotations = merge_entries(as_written)
        if split == "train":
            annotations = group_images(annotations, self._config.group_pattern, self.cache_folder)
            self._is_joined = annotations.groups is not as_written.groups
        log_findings(annotations.findings[len(as_written.findings) :], paths.annotations)
        return annotations

    @cached_property
    def train(self) -> Annotations:
        """All training annotations, those of the reward images among them."""
        return self._open("train")

    @cached_property
    def val(self) -> Annotations:
        """All val annotations."""
        return match_categories(self.train, self._open("val"))

    @property
    def has_val(self) -> bool:
        """Whether the data set has a val split; it may still be unusable."""
        try:
            find_split(self._located, "val")
        except UserError:
            return False
        return True

    @property
    def class_channels(self) -> int:
        """Number of classes, plus the unused channel 0."""
        return len(self.train.category_ids) + 1

    @cached_property
    def _partition(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = self._config.held_out_images
        if count is None:
            count = max(1, len(self.train.image_ids) // 5)
        try:
            return hold_out(self.train, count, self.train.fingerprint)
        except UserError:
            self.cached_images(self.train, self._image_size_pixels)  # unusable files are named first
            raise

    @cached_property
    def train_rows(self) -> NDArray[np.int64]:
        """Rows of `train` that trials may train on, ascending."""
        return self._partition[0]

    @cached_property
    def reward_rows(self) -> NDArray[np.int64]:
        """Rows of `train` that are held out as reward images, ascending."""
        return self._partition[1]

    def training_rows(self, num_images: int) -> NDArray[np.int64]:
        """Rows of the images that a trial on so many images trains on, ascending."""
        return training_subset(self.train, self.train_rows, num_images)

    def evaluated_rows(self, evaluated_on: EvaluatedOn) -> NDArray[np.int64]:
        """Rows to evaluate on: of `train` for the reward images, of `val` for val."""
        return self.reward_rows if evaluated_on == "reward" else np.arange(len(self.val.image_ids))

    def split(self, name: Split, size: int, device: torch.device) -> LabelledImages:
        """Return a split at an image size, its images in the device's memory if they fit."""
        if (name, size) not in self._splits:
            annotations = self.train if name == "train" else self.val
            images = self._splits[name, size] = self._cached(annotations, size, device)
            log_findings(images.annotations.findings[len(annotations.findings) :], annotations.images_folder)
        return self._splits[name, size]

    def few_images(self, rows: NDArray[np.int64], size: int, device: torch.device) -> LabelledImages:
        """Return these rows of `train` alone, without decoding the other images at this size."""
        return self._cached(self.train.subset(rows), size, device)

    def _cached(self, annotations: Annotations, size: int, device: torch.device) -> LabelledImages:
        return move_to_device(self.cached_images(annotations, size), device)

    def cached_images(self, annotations: Annotations, size: int) -> LabelledImages:
        """Return images in main memory; their annotations have the findings about the files and the size as well."""
        return attach_boxes(
            annotations, open_cache(annotations, size, self.cache_folder, decoding=decoding_of(self._config))
        )

    def cache_space(self) -> str:
        """Return the room that the train images need in the cache and have, in words. Raises UserError."""
        return space_for_cache(self.train, self._image_size_pixels, self.cache_folder, decoding_of(self._config))

    def evaluator(self, evaluated_on: EvaluatedOn) -> CocoEvaluator:
        """Return the evaluator of the reward images or of val.

        Both use the terciles of object sizes of all of train, so that their figures compare.
        """
        if evaluated_on not in self._evaluators:
            annotations = self.train.subset(self.reward_rows) if evaluated_on == "reward" else self.val
            self._evaluators[evaluated_on] = CocoEvaluator(
                annotations, sizes_of=self.train, max_detections=self._max_detections
            )
        return self._evaluators[evaluated_on]

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the train annotations and image files, and the counts that matter; val is no part of it."""
        return {
            "train_annotations": self.train.fingerprint,
            "train_images": files_digest(self.train),
            "num_train_images": len(self.train_rows),
            "num_reward_images": len(self.reward_rows),
            "categories": list(self.train.category_names),
            **({HOLD_OUT: "by picture"} if self._is_joined else {}),
            **decoding_of(self._config).as_fingerprint(),
        }

    def findings(self, *, with_val: bool) -> tuple[Finding, ...]:
        """Return what was found in the data, with the leaks between its splits. Logs the leaks, decodes the images.

        Args:
            with_val: decode val too, to find its images that look like one of train. Otherwise only its names and
                bytes are compared, and a val that is missing is left out.

        Raises UserError.
        """
        if with_val not in self._findings:
            self._findings[with_val] = tuple(self._find(with_val))
        return self._findings[with_val]

    def _find(self, with_val: bool) -> Iterator[Finding]:
        train = self._hashed(self.train)
        yield from train.images.annotations.findings
        yield from _logged(crowded_findings(self.train, self._max_detections), self.train)
        yield from _logged(reward_leaks(train, self.reward_rows, self.train_rows), self.train)
        val = self.val if with_val else self._val_if_any()
        if isinstance(val, Finding):
            yield from _logged([val], self.train)
        elif val is not None:
            hashed = (train, self._hashed(val)) if with_val else None
            found = hashed[1].images.annotations.findings if hashed else val.findings
            found = (*found, *_logged(crowded_findings(val, self._max_detections), val))
            yield from (replace(finding, what=f"val: {finding.what}") for finding in found)
            leaks = val_leaks(self.train, val, self._config.group_pattern, self.cache_folder, hashed)
            yield from _logged(leaks, val)

    def _val_if_any(self) -> Annotations | Finding | None:
        """Return val; None if the data has none, and what is wrong with it if it cannot be used."""
        if not self.has_val:
            return None
        try:
            return self.val
        except UserError as error:
            return val_unusable(error)

    def _hashed(self, annotations: Annotations) -> HashedImages:
        size, root = self._image_size_pixels, self.cache_folder
        images = self.cached_images(annotations, size)
        return hash_images(images, cache_path(annotations, size, root, decoding_of(self._config)))

    @cached_property
    def val_fingerprint(self) -> dict[str, Any]:
        """Hashes of the val annotations and image files, and their number."""
        return {
            "val_annotations": self.val.fingerprint,
            "val_images": files_digest(self.val),
            "num_val_images": len(self.val.image_ids),
        }


def _logged(findings: Sequence[Finding], annotations: Annotations) -> Sequence[Finding]:
    log_findings(findings, annotations.images_folder)
    return findings
