"""Predicted cost of a trial: fitted to probes, stored by device and setting, for any fidelity."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional

import spinenas.proxy_task.task_data as data_module
from spinenas.proxy_task.config import DataConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.cost_model import (
    ROUNDS,
    CostModel,
    Sample,
    calibrate,
    fit_model,
    load_model,
    model_path,
    probed_fidelities,
    probed_genotypes,
    random_genotypes,
    save_model,
)
from spinenas.proxy_task.data.synthetic import generate_dataset
from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import peak_memory_bytes, reset_peak_memory
from spinenas.results.record import Fidelity
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.ray_session import packed_share
from spinenas.search.planning import predicted_cost as bench
from spinenas.search.planning.predicted_cost import MEMORY_MARGIN, packing
from spinenas.space.cost import Cost, retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.head import HeadConfig
from spinenas.space.published import MOBILE_49, R23_SP30, SPINENET_49
from spinenas.space.scaling import Scaling
from spinenas.space.search_space import SearchSpace

SCALING = Scaling("test", 0.0625, 8, 1.0, 1)
SPACE = SearchSpace.spinenet49()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    folder.mkdir()
    generate_dataset(folder, num_train=30, num_val=2, image_size_pixels=96, seed=1)
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> TaskConfig:
    return TaskConfig(
        image_size_pixels=128,
        scaling=SCALING,
        data=DataConfig(folder=str(folder), held_out_images=10, cache_folder=str(tmp_path / "cache")),
        head=HeadConfig(num_convs=1, channels=8, num_scales=1),
        train=TrainConfig(epochs=3, batch_size=4, optimizer="adamw", learning_rate=1e-3),
    )


def made_up(task: ProxyTask, genotype: Any, fidelity: Fidelity | None, noise: float = 1.0) -> Probe:
    """The probe of a machine that follows the model exactly."""
    fidelity = fidelity or task.fidelity
    cost, batch = task.cost(genotype, fidelity.scaling, fidelity.image_size_pixels), fidelity.batch_size
    pixels = batch * fidelity.image_size_pixels**2
    step = 0.01 + 1e-4 * cost.convs + 1e-8 * cost.params + batch * (1e-10 * cost.madds + 1e-8 * cost.activations)
    detect = 0.001 + 1e-5 * cost.convs + 2e-11 * cost.madds
    peak = 4e8 + 12 * cost.params + 10 * batch * cost.activations + 300 * pixels
    return Probe(noise * (step + 2e-7 * pixels), noise * detect, 1.0, round(peak))


@pytest.fixture
def task(config: TaskConfig, monkeypatch: pytest.MonkeyPatch) -> ProxyTask:
    """A task with invented probes, twice as slow in the first round; `num_probes` counts the calls."""
    task = ProxyTask(config)
    num_probes = 0
    num_jobs = len(probed_genotypes(task, SPACE)) * len(probed_fidelities(task.fidelity))

    def probe(self: ProxyTask, genotype: Any, fidelity: Any = None, clock: Any = None) -> Probe:
        nonlocal num_probes
        num_probes += 1
        return made_up(self, genotype, fidelity, 2.0 if num_probes <= 1 + num_jobs else 1.0)

    monkeypatch.setattr(ProxyTask, "probe", probe)
    return task


def held_out() -> list[Genotype]:
    return random_genotypes(SearchSpace.spinenet49(window=None), 12)


def changed(fidelity: Fidelity) -> list[Fidelity]:
    """Larger in every respect than the probed fidelities."""
    wide = replace(fidelity.scaling, filter_scale=0.25, block_repeats=2)
    return [
        fidelity,
        replace(fidelity, image_size_pixels=256),
        replace(fidelity, batch_size=32),
        replace(fidelity, scaling=wide),
    ]


def test_a_calibration_predicts_genotypes_and_fidelities_that_were_not_probed(task: ProxyTask) -> None:
    said: list[str] = []
    model = calibrate(task, SPACE, said.append)
    assert len(said) == ROUNDS
    for genotype in held_out():
        for fidelity in changed(task.fidelity):
            found, true = model.predict(task, genotype, fidelity), made_up(task, genotype, fidelity)
            assert found.step_seconds == pytest.approx(true.step_seconds, rel=0.01)
            assert found.detect_seconds == pytest.approx(true.detect_seconds, rel=0.01)
            assert found.peak_memory_bytes == pytest.approx(true.peak_memory_bytes, rel=0.01)
    for fit in (model.step_seconds, model.detect_seconds, model.peak_memory_bytes):
        assert fit is not None
        assert min(fit.coefficients) >= 0
        assert fit.median_error <= fit.largest_error < 0.01


def test_the_held_out_error_is_that_of_probes_left_out(task: ProxyTask) -> None:
    def sample(params: int, seconds: float) -> Sample:
        return Sample("", Cost(params, 1, 1, 1), task.fidelity, Probe(seconds, 1.0, 1.0, None))

    model = fit_model([sample(0, 1.0), sample(0, 1.0), sample(0, 1.0), sample(10**6, 4.0)])
    assert model.step_seconds.largest_error == pytest.approx(0.75), "1 is predicted where 4 was measured"
    assert model.step_seconds.median_error == pytest.approx(0, abs=1e-6)
    assert model.peak_memory_bytes is None
    assert model.predict(task, SPINENET_49).peak_memory_bytes is None


def test_the_time_of_a_trial_counts_the_steps_and_evaluations_of_its_fidelity(config: TaskConfig) -> None:
    config = replace(config, eval=replace(config.eval, every_epochs=2))
    task = ProxyTask(config)
    fidelity = replace(task.fidelity, epochs=5, num_train_images=15, batch_size=4)
    seconds = task.trial_seconds(fidelity, step_seconds=1.0, detect_seconds=0.01)
    assert seconds == pytest.approx(5 * 3 + 3 * 10 * 0.01), "after epochs 2, 4 and 5, on 10 images"
    assert task.trial_seconds(replace(fidelity, epochs=10), step_seconds=1.0, detect_seconds=0.0) == 30


@pytest.mark.parametrize(("bn_images", "counted"), [(6, 6), (512, 15)])
def test_images_for_batch_norm_statistics_take_a_third_of_their_training_time(
    config: TaskConfig, bn_images: int, counted: int
) -> None:
    task = ProxyTask(replace(config, eval=replace(config.eval, every_epochs=2, bn_images=bn_images)))
    fidelity = replace(task.fidelity, epochs=5, num_train_images=15, batch_size=4)
    seconds = task.trial_seconds(fidelity, step_seconds=1.2, detect_seconds=0.0)
    assert seconds == pytest.approx(5 * 3 * 1.2 + 3 * counted * 0.1), "no more than there are"


def test_the_extremes_are_probed_and_nothing_larger_than_the_task(config: TaskConfig) -> None:
    task = ProxyTask(config)
    genotypes = probed_genotypes(task, SPACE)
    assert SPINENET_49 in genotypes
    assert genotypes == probed_genotypes(task, SPACE)
    for count in ("madds", "activations"):
        values = [getattr(task.cost(genotype), count) for genotype in random_genotypes(SPACE, 200)]
        probed = {getattr(task.cost(genotype), count) for genotype in genotypes}
        assert {min(values), max(values)} <= probed
    assert SPINENET_49 not in probed_genotypes(task, SearchSpace.tiny())
    base = task.fidelity
    fidelities = probed_fidelities(base)
    assert fidelities[0] == base
    assert len(fidelities) == 4
    for fidelity in fidelities:
        assert fidelity.batch_size in (2, 4)
        assert fidelity.image_size_pixels in (96, 128)
        assert fidelity.scaling.filter_scale <= base.scaling.filter_scale
    alone = replace(base, batch_size=1, image_size_pixels=160)
    assert {fidelity.batch_size for fidelity in probed_fidelities(alone)} == {1}
    assert {fidelity.image_size_pixels for fidelity in probed_fidelities(alone)} == {160}


def test_running_out_of_memory_is_reported_in_one_sentence_and_a_bug_is_raised(
    config: TaskConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in ((torch.OutOfMemoryError("of 80 GiB"), UserError), (ZeroDivisionError("x"), None)):

        def probe(self: Any, *_: Any, error: Exception = error, **__: Any) -> Probe:
            raise error

        monkeypatch.setattr(ProxyTask, "probe", probe)
        with pytest.raises(
            expected or type(error),
            match=r"runs out of memory \(of 80 GiB\); choose a smaller" if expected else "x",
        ):
            calibrate(ProxyTask(config), SPACE, print)


def test_a_calibration_is_loaded_for_its_device_and_setting_at_every_fidelity(
    task: ProxyTask, config: TaskConfig
) -> None:
    model = calibrate(task, SPACE, print)
    save_model(model, task)
    train = config.train
    for same in (
        config,
        replace(config, image_size_pixels=256),
        replace(config, scaling=replace(SCALING, filter_scale=1.0)),
        replace(config, train=replace(train, epochs=7, batch_size=2, image_fraction=0.5, learning_rate=0.1)),
    ):
        assert load_model(ProxyTask(same)) == model
    for other, threads in (
        (config, 2),
        (replace(config, head=replace(config.head, num_convs=2)), 1),
        (replace(config, dialect="tensorflow/models"), 1),
        (replace(config, train=replace(train, dtype="bfloat16")), 1),
        (replace(config, train=replace(train, optimizer="sgd")), 1),
        (replace(config, train=replace(train, compile="blocks")), 1),
        (replace(config, eval=replace(config.eval, batch_size=1)), 1),
    ):
        assert load_model(ProxyTask(other, threads=threads)) is None


def test_a_damaged_calibration_is_ignored_and_one_that_cannot_be_written_is_an_error(
    task: ProxyTask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(calibrate(task, SPACE, print), task)
    document = json.loads(path.read_text())
    for text in (path.read_text()[:-40], "[]", json.dumps({**document, "step_seconds": None})):
        path.write_text(text)
        caplog.clear()
        assert load_model(task) is None
        assert "calibrate again" in caplog.text
    model = fit_model([Sample("", Cost(1, 1, 1, 1), task.fidelity, Probe(1.0, 1.0, 1.0, 1))] * 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spinenas.proxy_task.cost_model.write_text_atomically", full)
    with pytest.raises(UserError, match=r"No space left on device; name another folder by task.data.cache_folder"):
        save_model(model, task)


def test_a_real_calibration_of_a_small_task_predicts_memory_and_seconds(config: TaskConfig) -> None:
    task = ProxyTask(replace(config, image_size_pixels=96, eval=replace(config.eval, batch_size=4)))
    task.prepare()
    model = calibrate(task, SearchSpace.tiny(), print)
    assert len(model.samples) >= 8
    for sample in model.samples:
        found = model.predict(task, Genotype.from_text(sample.genotype), sample.fidelity)
        # Measured seconds vary with the load of the machine; docs/benchmarks.md has the errors on a quiet one.
        assert found.step_seconds > 0
        assert sample.probe.peak_memory_bytes is not None
        assert found.peak_memory_bytes == pytest.approx(sample.probe.peak_memory_bytes, rel=0.5)
    names = os.listdir(Path(str(config.data.cache_folder)))
    assert "cost_models" not in names, "it is kept by who asked for it"


def test_a_probe_at_another_size_decodes_only_the_images_it_uses(
    config: TaskConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ProxyTask(config)
    task.prepare()
    opened: list[tuple[int, int]] = []
    open_cache = data_module.open_cache

    def spy(annotations: Any, size: int, root: Path, **options: Any) -> Any:
        opened.append((len(annotations.image_ids), size))
        return open_cache(annotations, size, root, **options)

    monkeypatch.setattr(data_module, "open_cache", spy)
    task.probe(SPINENET_49)
    assert opened == [], "its own size is in the cache"
    ticks = iter([0.0, 8.0, 10.0, 11.0])
    fidelity = replace(task.fidelity, image_size_pixels=96, batch_size=2)
    probe = task.probe(SPINENET_49, fidelity, clock=lambda: next(ticks))
    assert opened == [(2 + 10, 96)], "a batch, and the reward images"
    assert (probe.step_seconds, probe.detect_seconds) == (2.0, 0.1)
    assert probe.trial_seconds == 3 * 10 * 2.0 + 10 * 0.1


def test_the_peak_memory_of_a_trial_does_not_include_the_trial_before() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the kernel does not reset peaks here")
    cpu = torch.device("cpu")
    kept = [bytearray(b"x" * 2**16) for _ in range(2000)]  # small blocks stay with the process when freed
    before = peak_memory_bytes(cpu)
    del kept[:-1]  # except the last, below which the C library returns no memory by itself
    reset_peak_memory(cpu)
    after = peak_memory_bytes(cpu)
    assert before is not None
    assert after is not None
    assert before - after > 100e6


def counted(network: nn.Module, size: int) -> tuple[int, int]:
    """Return the number of values that convolutions and resamplings write for one image, and of convolutions run."""
    activations, convs = 0, 0

    def conv(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal activations, convs
        activations, convs = activations + output[0].numel(), convs + 1

    def watched(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any, **options: Any) -> Tensor:
            nonlocal activations
            output = function(*arguments, **options)
            activations += output[0].numel()
            return output

        return call

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(conv)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "interpolate", watched(functional.interpolate))
        patch.setattr(functional, "max_pool2d", watched(functional.max_pool2d))
        network(torch.zeros(2, 3, size, size))
    return activations, convs


@pytest.mark.parametrize(
    "architecture",
    [SPINENET_49, R23_SP30, MOBILE_49, *random_genotypes(SearchSpace.spinenet49(window=None), 4)],
    ids=lambda architecture: architecture.key,
)
@pytest.mark.parametrize("separable", [False, True])
def test_activations_and_convolutions_are_those_of_the_torch_network(architecture: Genotype, separable: bool) -> None:
    scaling = Scaling("test", 0.25, 16, 1.0, 2)
    head = HeadConfig(num_convs=2, channels=8, num_scales=1, separable=separable)
    network = build_retinanet(architecture, scaling, head, class_channels=5)
    cost = retinanet_cost(architecture, scaling, 128, class_channels=5, **head.as_cost_arguments())
    activations, convs = counted(network, 128)
    if architecture is not MOBILE_49:
        activations -= 64 * 32 * 32  # the max-pool of the stem, equal for all, is not counted
    assert (cost.activations, cost.convs) == (activations, convs)


def test_the_command_prints_the_predictions_of_a_calibration_or_that_there_is_none(
    config: TaskConfig, task: ProxyTask, tmp_path: Path
) -> None:
    file = tmp_path / "search.toml"
    file.write_text("[task]\nimage_size_pixels = 128\n[task.train]\nepochs = 3\nbatch_size = 4\n")
    data = config.data
    words = [
        "bench",
        "proxy",
        str(file),
        "--data",
        str(data.folder),
        "--set",
        f"task.data.cache_folder={data.cache_folder}",
    ]

    def run(*more: str) -> Any:
        return CliRunner().invoke(main, [*words, *more])

    missing = run()
    assert missing.exit_code == 1
    assert "there is no calibration of this task for " in missing.stderr
    assert missing.stderr.rstrip().endswith("with 1 thread yet; make one with --calibrate")
    made = run("--calibrate")
    assert made.exit_code == 0, made.output
    assert "minutes of a trial, largest" in made.stdout
    assert "the calibration is in" in made.stderr
    longer, own = (
        {row["what"]: row["value"] for row in json.loads(run("--json", *more).stdout)}
        for more in (("--set", "task.train.epochs=6"), ())
    )
    assert longer["minutes of a trial, median"] > 1.9 * own["minutes of a trial, median"]
    assert longer["seconds of a step, median"] == own["seconds of a step, median"]
    assert 0.3 < own["GiB of peak memory, median"] <= own["GiB of peak memory, largest"]
    assert not any("fit" in what for what in own), "nothing is packed on a CPU"


def test_an_accelerator_is_told_how_many_trials_fit_it(
    config: TaskConfig, task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(calibrate(task, SPACE, print), task)
    monkeypatch.setattr(ProxyTask, "device", "cuda")
    monkeypatch.setattr(bench, "accelerator_memory_gib", lambda: 24.0)
    large = replace(config, train=replace(config.train, batch_size=512))
    found = bench.predicted_facts(SearchConfig(task=large), print, calibrate_first=False)
    memory_gib = found["executor.gpu_memory_gib to set"]
    assert memory_gib >= MEMORY_MARGIN * found["GiB of peak memory, largest"]
    assert found["trials that fit one device"] == packing(found["GiB of peak memory, largest"] * 2**30, 24.0)[1]


@pytest.mark.parametrize(
    ("peak_gib", "device_gib", "expected"), [(3.2, 80.0, (4.0, 20)), (8.0, 23.5, (10.0, 2)), (70.0, 80.0, (87.5, 0))]
)
def test_trials_are_packed_with_a_margin(peak_gib: float, device_gib: float, expected: tuple[float, int]) -> None:
    memory_gib, count = packing(peak_gib * 2**30, device_gib)
    assert (memory_gib, count) == expected
    if count:
        assert count * packed_share(memory_gib, device_gib) <= 1 < (count + 1) * packed_share(memory_gib, device_gib)


def test_every_field_of_a_model_is_stored(task: ProxyTask) -> None:
    model = calibrate(task, SPACE, print)
    document = json.loads(save_model(model, task).read_text())
    assert document.keys() == {"setting", *(item.name for item in dataclasses.fields(CostModel))}
    assert document["setting"]["torch"] == str(torch.__version__)
    assert np.isfinite(document["step_seconds"]["coefficients"]).all()
    assert model_path(task).parent.name == "cost_models"
