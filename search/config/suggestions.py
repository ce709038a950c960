"""Suggests the configuration key that a user meant, by meaning and by spelling."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_ALIASES = {
    "task.image_size_pixels": "img_size input_size pixels resolution size",
    "task.scaling.filter_scale": "width width_multiplier multiplier",
    "task.scaling.block_repeats": "depth repeats",
    "task.scaling.resample_alpha": "alpha",
    "task.data.folder": "data_dir data_folder data_path dataset root",
    "task.train.batch_size": "batch batchsize bs",
    "task.train.epochs": "epoch max_epochs num_epochs",
    "task.train.learning_rate": "lr",
    "task.train.weight_decay": "l2 wd",
    "task.train.warmup_steps": "warmup warmup_epochs",
    "task.train.schedule": "lr_schedule scheduler",
    "task.train.gradient_clip_norm": "clip_norm grad_clip max_grad_norm",
    "task.train.dtype": "amp bf16 fp16 precision",
    "task.train.image_fraction": "data_fraction subset",
    "task.eval.nms_iou": "iou nms nms_threshold",
    "budget.num_trials": "max_trials n_trials num_samples trials",
    "budget.max_accelerator_hours": "gpu_hours max_gpu_hours max_hours",
    "budget.price_per_accelerator_hour": "cost price",
    "executor.workers": "concurrency max_concurrent num_workers parallel",
    "executor.cpus_per_worker": "cpus num_cpus",
    "executor.gpus_per_worker": "gpus num_gpus",
    "executor.tpus_per_worker": "num_tpus tpus",
    "executor.gpu_memory_gib": "gpu_memory memory",
    "executor.trial_minutes": "time_limit timeout",
    "executor.max_attempts": "retries max_retries",
    "constraints.max_madds": "flops macs madds max_flops max_macs",
    "constraints.max_params": "parameters params max_parameters",
    "controller.name": "algorithm search_algorithm searcher strategy",
    "space.name": "search_space",
    "objective.kind": "goal",
    "halving.rungs": "early_stopping",
    "storage.mirror": "backup",
    "seed": "random_seed",
}
"""Other names for keys, as users of other tools know them."""

KEY_BY_ALIAS = {alias: key for key, aliases in _ALIASES.items() for alias in aliases.split()}

_MAX_SUGGESTIONS = 3


def suggested_keys(wrong: str, known: Sequence[str]) -> list[str]:
    """Return the keys that an unknown one may mean, at most three; none if nothing is similar.

    Args:
        wrong: the unknown dotted key.
        known: all dotted keys.
    """
    table, _, name = wrong.lower().rpartition(".")
    names = {key: key.rpartition(".")[2] for key in known}
    same_table = [key for key in known if key.rpartition(".")[0] == table]
    if alias := KEY_BY_ALIAS.get(name):
        meant = f"{table}.{names[alias]}"
        return [meant if meant in names else alias]
    same_name = [key for key in known if names[key] == name]
    if not table and same_name:
        return same_name[:_MAX_SUGGESTIONS]
    candidates = [key for key in same_name if key.startswith(f"{table}.")] or same_name
    candidates = candidates or _similar(name, same_table, names)
    candidates = candidates or _with_same_words(name, names)
    candidates = candidates or _similar(name, known, names)
    depth = min((key.count(".") for key in candidates), default=0)
    return [key for key in candidates if key.count(".") == depth][:_MAX_SUGGESTIONS]


def _similar(name: str, keys: Sequence[str], names: dict[str, str]) -> list[str]:
    """Return the keys whose last part is spelled most like a name."""
    close = difflib.get_close_matches(name, {names[key] for key in keys}, n=1, cutoff=0.75)
    return [key for key in keys if names[key] in close]


def _with_same_words(name: str, names: dict[str, str]) -> list[str]:
    """Return the keys whose last part shares the most words with a name, at least half of all words."""
    words = set(name.split("_"))
    shares = {key: len(words & set(last.split("_"))) / len(words | set(last.split("_"))) for key, last in names.items()}
    best = max(shares.values(), default=0.0)
    return [key for key, share in shares.items() if share == best] if best >= 0.5 else []
