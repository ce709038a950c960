"""The published models beside their published figures, as rows of a table and in words."""

from __future__ import annotations

from typing import Any

from spinenas.space.published import PUBLISHED, TEST_DEV, VAL, PublishedModel

AP_COLUMNS = {
    "ap_a": (VAL, "A"),
    "ap_b": (VAL, "B"),
    "ap_c": (VAL, "C"),
    "ap_mobile": (VAL, "mobile"),
    "ap_c_test_dev": (TEST_DEV, "C"),
}
"""Columns of published APs: the split and training protocol of each."""


def published_words(model: PublishedModel) -> str:
    """The published figures of a model, each with its source, and each AP with its protocol."""
    sizes = (("{} M parameters", model.params_millions), ("{} G multiply-adds", model.madds_billions))
    words = [text.format(figure) for text, figure in sizes if figure is not None]
    aps = [f"AP {ap.ap:.3f} on {ap.split} with protocol {ap.protocol} ({ap.source})" for ap in model.aps]
    if words:
        sizes_words = f"published: {', '.join(words)} ({model.source})"
    else:
        sizes_words = f"no parameter count or multiply-adds were published (architecture: {model.source})"
    return "; ".join([sizes_words, *aps])


def published_rows() -> list[dict[str, Any]]:
    """One row for each published model: our counts, the published figures, their ratios, and the baseline's.

    Each published AP stands in the column of its split and protocol.
    """
    rows = []
    for model in PUBLISHED.values():
        cost = model.cost()
        base = PUBLISHED[model.baseline].cost().madds if model.baseline else None
        aps = {(ap.split, ap.protocol): ap.ap for ap in model.aps}
        rows.append(
            {
                "name": model.name,
                "pixels": model.image_size_pixels,
                "params": cost.params,
                "published_params": model.params_millions and round(model.params_millions * 1e6),
                "params_ratio": model.params_millions and cost.params / (model.params_millions * 1e6),
                "madds": cost.madds,
                "published_madds": model.madds_billions and round(model.madds_billions * 1e9),
                "madds_ratio": model.madds_billions and cost.madds / (model.madds_billions * 1e9),
                "baseline": model.baseline,
                "baseline_ratio": base and cost.madds / base,
                **{name: aps.get(key) for name, key in AP_COLUMNS.items()},
                "source": model.source,
                "ap_sources": [f"{ap.split} {ap.protocol}: {ap.source}" for ap in model.aps],
            }
        )
    return rows
