"""`benchmarks/accelerator.py`: its small form runs to the end, and its arithmetic is right for given figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_files import loaded_benchmark
from shared_fixtures import REPOSITORY

CANDIDATE = {"images_per_second": 100.0, "detect_seconds_per_image": 0.01, "compile_seconds": 60.0, "madds": 10**9}


@pytest.fixture(scope="module")
def accelerator() -> ModuleType:
    return loaded_benchmark("accelerator")


def test_the_small_form_measures_every_part_and_leaves_nothing_out(tmp_path: Path) -> None:
    script, out = REPOSITORY / "benchmarks" / "accelerator.py", tmp_path / "figures.json"
    command = [sys.executable, str(script), "--small", "--device", "cpu", "--minutes", "60", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert "failed" not in figures, figures["failed"]
    assert figures["skipped"] == []
    assert figures["spinenet_49"].keys() == {"off", "blocks", "whole"}
    assert figures["spinenet_49"]["off"]["compile_seconds"] == 0
    assert figures["spinenet_49"]["blocks"]["compile_seconds"] > 0
    assert len(figures["random_genotypes"]) == 1
    assert figures["trials"].keys() == {"paper's proxy, 5 epochs", "half width, 12 epochs"}
    for trial in figures["trials"].values():
        assert trial["utilisation"].keys() == {"matrix product"}, "the data sheet of a CPU is not known"
    assert "Fastest against straightforward" in done.stdout


def test_a_trial_is_projected_from_the_figures_of_a_candidate(accelerator: ModuleType) -> None:
    trial = accelerator.projected(CANDIDATE, epochs=5, evaluations=2)
    training, evaluation = 5 * 110_895 / 100, 2 * 7_392 * 0.01
    assert trial["hours"] == pytest.approx((training + evaluation + 60) / 3600)
    assert trial["share_in_evaluation"] == pytest.approx(evaluation / (training + evaluation + 60))
    assert trial["share_in_compilation"] == pytest.approx(60 / (training + evaluation + 60))
    assert trial["madds_per_second"] == pytest.approx(3 * 10**9 * 5 * 110_895 / (training + evaluation + 60))


def test_the_peak_of_a_chip_is_found_by_its_name(accelerator: ModuleType) -> None:
    assert accelerator.peak_madds_per_second("NVIDIA H200") == 989.4e12 / 2
    assert accelerator.peak_madds_per_second("NVIDIA H100 80GB HBM3") == 989.4e12 / 2
    assert accelerator.peak_madds_per_second("NVIDIA H100 PCIe") == 756e12 / 2
    assert accelerator.peak_madds_per_second("a processor") is None
