"""Writes the checkpoint beside it with TensorFlow (2.21.0 did), values by formula; not run by the tests.

python write.py FOLDER
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

VARIABLES = {
    "spinenet/conv2d/kernel": ("float32", (3, 3, 2, 4)),
    "spinenet/conv2d/kernel/Momentum": ("float32", (3, 3, 2, 4)),
    "spinenet/batch_normalization/gamma": ("float32", (4,)),
    "spinenet/batch_normalization/moving_variance": ("float64", (4,)),
    "spinenet/half": ("float16", (2, 5)),
    "spinenet/bfloat": ("bfloat16", (2, 5)),
    "spinenet/empty": ("float32", (0, 3)),
    "class_net/counts": ("int32", (7,)),
    "class_net/mask": ("bool", (2, 3)),
    "class_net/bytes": ("uint8", (5,)),
    "global_step": ("int64", ()),
}
"""Number format and shape by name."""


def values(name: str, dtype: str, shape: tuple[int, ...]) -> tf.Tensor:
    """The index of an element in C order plus a number from the name, as multiples of 1/8 (bool: odd or even)."""
    numbers = zlib.crc32(name.encode()) % 100 + np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if dtype == "bool":
        return tf.constant(numbers % 2 == 1)
    return tf.cast(tf.constant(numbers if "int" in dtype else numbers / 8), dtype)


def main(folder: Path) -> None:
    """Write a checkpoint of two shards, and one variable in two slices, as TensorFlow 1 would."""
    v1 = tf.compat.v1
    v1.disable_eager_execution()
    for name, (dtype, shape) in VARIABLES.items():
        with tf.device("/cpu:1" if name.startswith("class_net") else "/cpu:0"):
            v1.get_variable(name, initializer=values(name, dtype, shape))
    slices = v1.fixed_size_partitioner(2)
    with tf.device("/cpu:1"):
        v1.get_variable("class_net/sliced", (4, 2), initializer=v1.zeros_initializer(), partitioner=slices)
    with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=True, save_relative_paths=True)
        saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
