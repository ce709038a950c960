"""The command line: what each command prints where, and its error messages."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_task import FakeTask, FakeValTask, matches_of
from shared_fixtures import REPOSITORY

import spinenas.search.run.components as run_parts
import spinenas.search.run.lifecycle as loop
import spinenas.search.studies.replay as replay_module
import spinenas.search.studies.validation as validation_module
from spinenas.controller import CONTROLLERS, make_controller
from spinenas.results.export.architecture_files import read_genotype
from spinenas.search.cli.main import main
from spinenas.search.config.loading import load_config, load_config_file
from spinenas.search.config.presets import PRESETS
from spinenas.search.run.run import Run
from spinenas.space import PUBLISHED, Genotype, UserError, network_key, space_by_name

SERIAL = ("--set", "executor.kind=serial")
EVOLVED = ("--controller", "evolution", *SERIAL)


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> FakeValTask:
    """Let the commands search with a task that trains nothing."""
    task = FakeValTask()
    monkeypatch.setattr(run_parts, "proxy_task", lambda config: task)
    monkeypatch.setattr(replay_module, "proxy_task", lambda config: task)
    monkeypatch.setattr(validation_module, "proxy_task", lambda config: task)
    monkeypatch.setattr(validation_module, "RESAMPLES", 100)
    return task


def spinenas(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="spinenas")


def succeed(*words: object) -> Result:
    result = spinenas(*words)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = tmp_path / "a run"
    succeed("search", "quickstart", "--out", out, "--trials", 9, "--seed", 1, *SERIAL)
    return out


def winner_line(result: Result) -> str:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("winner")]
    return line


def test_a_search_prints_its_ranking_on_stdout_and_its_progress_on_stderr(tmp_path: Path) -> None:
    result = succeed("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, *SERIAL)
    assert result.stdout.splitlines()[0].split()[:2] == ["number", "objective"]
    assert len(result.stdout.splitlines()) == 4
    assert "3/3 done" in result.stderr
    assert winner_line(result).startswith("winner, unconfirmed: trial ")
    assert f"spinenas validate {tmp_path / 'run'}" in result.stderr
    assert "export the winner with" in result.stderr
    assert f"train it again with: spinenas resume {tmp_path / 'run'} --trials 11" in result.stderr


def test_the_command_that_confirms_a_winner_trains_it_again(tmp_path: Path) -> None:
    first = succeed("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, *SERIAL).stderr
    (command,) = re.findall(r"train it again with: spinenas (.*)", first)
    then = succeed(*shlex.split(command)).stderr
    assert winner_line(spinenas("leaderboard", tmp_path / "run")).startswith("winner: trial ")
    assert "train it again with" not in then
    without = ("--set", "budget.replicate_share=0")
    said = succeed("search", "quickstart", "--out", tmp_path / "other", "--trials", 3, *SERIAL, *without).stderr
    assert f"train it again with: spinenas validate {tmp_path / 'other'}" in said


def test_the_readme_ends_its_first_search_as_the_command_does(tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    (name,) = re.findall(r"^    spinenas search quickstart --trials 12 --out (\S+)$", readme, flags=re.MULTILINE)
    result = succeed("search", "quickstart", "--trials", 12, "--out", tmp_path / "run", *SERIAL)
    last = result.stderr.partition("winner: trial ")[2].splitlines()[1:]
    shown = readme.partition("    winner: trial ")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.strip().replace(name, str(tmp_path / "run")) for line in shown] == last


def test_the_configuration_as_given_makes_the_same_run_again(run: Path, tmp_path: Path) -> None:
    succeed("search", run / "config.toml", "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads((run / "config.json").read_text())


def test_the_printed_configuration_is_a_file_that_makes_the_same_search(run: Path, tmp_path: Path) -> None:
    """From a preset with options, from the printed file, and from a run made with it."""
    options = ("--trials", 2, "--seed", 4, "--max-params", "60M", *EVOLVED, "--set", "task.train.epochs=2")
    printed = succeed("config", "quickstart", *options)
    assert "--max-params" not in printed.stdout, "data alone is on stdout"
    file, out = tmp_path / "printed.toml", tmp_path / "again"
    file.write_text(printed.stdout)
    succeed("search", file, "--out", out)
    assert (out / "config.toml").read_text() == printed.stdout
    kept = load_config(json.loads((out / "config.json").read_text()))
    assert replace(kept, constraints=replace(kept.constraints, class_channels=None)) == load_config_file(file)
    of_run = succeed("config", out)
    assert load_config(tomllib.loads(of_run.stdout)) == kept
    assert "seed = 4  # run; the default is 0" in of_run.stdout


def test_a_value_without_effect_is_noted_beside_the_printed_configuration() -> None:
    printed = succeed("config", "quickstart", "--target", "49@640")
    assert printed.stderr.startswith("note: constraints.target has no effect")


def test_presets_are_listed() -> None:
    rows = json.loads(succeed("presets", "--json").stdout)
    assert [row["preset"] for row in rows] == list(PRESETS)
    assert "quickstart" in succeed("presets").stdout


def test_controllers_are_listed_with_their_options() -> None:
    rows = json.loads(succeed("controllers", "--json").stdout)
    assert [row["controller"] for row in rows] == list(CONTROLLERS)
    for row in rows:
        options = row["options"] | ({"architectures": ["r50-fpn"]} if row["controller"] == "plan" else {})
        assert make_controller(row["controller"], space_by_name("tiny"), **options)
    listed = succeed("controllers", "evolution").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["option", "population_size", "tournament_size", "max_edits"]
    assert succeed("controllers", "screened").stdout == succeed("controllers", "predictor-guided").stdout
    assert CONTROLLERS["ppo"].summary in succeed("controllers").stdout
    assert CONTROLLERS["ppo"].summary in succeed("config", "quickstart", "--controller", "ppo").stdout


def test_a_search_from_a_file_keeps_the_file_and_records_overrides(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "quickstart"\n[budget]\nnum_trials = 2\n')
    succeed("search", file, "--out", tmp_path / "run", "--seed", 4, "--controller", "random", *SERIAL)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["seed"], config["budget"]["num_trials"], config["controller"]["name"]) == (4, 2, "random")
    kept = (tmp_path / "run" / "config.toml").read_text()
    assert kept.startswith(file.read_text())
    assert "# seed = 4" in kept


def test_the_kept_configuration_is_toml_whatever_was_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "quickstart"\nexecutor.kind = "serial"\n[budget]\nnum_trials = 1')
    odd = [
        *("--set", "executor.address=none", "--set", "task.train.learning_rate=1e-3"),
        *("--set", "task.data.cache_folder=2020-01-01", "--set", 'task.data.folder="\\u0007\\U0001D11E"'),
        *("--set", "task={train={epochs=2}}", "--set", "task.train.scale_jitter=[1, 2]"),
    ]
    commands = {
        "preset": ["search", "quickstart", "--trials", 1, *SERIAL, *odd],
        "data": ["search", "quickstart", "--trials", 1, *SERIAL, "--data", "built-in"],
        "file": ["search", file, *odd],
        "run": ["replay", tmp_path / "preset", 0, "--seed", 3, *odd],
        "python": ["replay", "spinenet-49", *SERIAL],
    }
    for name, words in commands.items():
        succeed(*words, "--out", tmp_path / name)
        tomllib.loads((tmp_path / name / "config.toml").read_text())
    kept = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (kept["seed"], kept["task"]["train"]["scale_jitter"]) == (3, [1, 2])


@pytest.mark.parametrize("command", ["search", "replay"])
@pytest.mark.parametrize("data", ["elsewhere", "built-in"])
def test_the_data_option_wins_over_files_of_the_configuration(command: str, data: str, tmp_path: Path) -> None:
    names = ("train_annotations", "train_images", "val_annotations", "val_images")
    file = tmp_path / "mine.toml"
    file.write_text(
        'preset = "quickstart"\nexecutor.kind = "serial"\nbudget.num_trials = 1\n[task.data]\nfolder = "mine"\n'
        + "".join(f'{name} = "mine/{name}"\n' for name in names)
    )
    words = ["search", file] if command == "search" else ["replay", "spinenet-49", "--preset", file]
    succeed(*words, "--data", data, "--out", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["task"]["data"]
    assert [kept[name] for name in names] == [None] * 4
    assert kept["folder"] == ("built-in" if data == "built-in" else str(Path("elsewhere").absolute()))


def test_a_larger_budget_on_resume_adds_trials(run: Path) -> None:
    succeed("resume", run, "--trials", 11)
    rows = json.loads(succeed("leaderboard", run, "--json", "--top", 99).stdout)
    assert sum(len(row["numbers"]) for row in rows) == 11


def test_the_winner_line_names_the_trial_that_best_means(tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed("search", "quickstart", "--out", run, "--trials", 9, "--seed", 4, *EVOLVED)
    rows = json.loads(succeed("leaderboard", run, "--json", "--top", 99).stdout)
    best = max((row for row in rows if row["n"] > 1), key=lambda row: row["objective"])
    assert best["number"] != rows[0]["number"], "otherwise the test could not fail: a single run leads the table"
    said = (
        f"winner: trial {best['number']}, mean AP {best['objective']:.4f} over {best['n']} runs "
        f"(sd {best['std']:.4f}, 95 %: {best['lower']:.4f} to {best['upper']:.4f})"
    )
    assert winner_line(succeed("leaderboard", run)) == said
    assert succeed("show", run, "best").stdout.startswith(f"{run} {best['number']}: ")


@pytest.mark.parametrize("trials", [3, 9])
def test_no_command_presents_the_highest_single_run_as_a_result(tmp_path: Path, trials: int) -> None:
    """Such a run appears only in tables, with n = 1 and no interval, and in the line of its own trial."""
    run = tmp_path / "run"
    searched = succeed("search", "quickstart", "--out", run, "--trials", trials, "--seed", 4, *EVOLVED)
    listed = succeed("leaderboard", run)
    rows = json.loads(succeed("leaderboard", run, "--json", "--top", 99).stdout)
    highest = rows[0]
    assert highest["n"] == 1, "otherwise the test could not fail"
    assert (highest["std"], highest["lower"], highest["upper"]) == (None, None, None)
    figure = f"{highest['objective']:.4f}"
    for output in (searched.output, listed.output):
        for line in output.splitlines():
            told = line.startswith(f"trial {highest['number']} AP {figure}; ")
            in_table = line.split()[:6] == [str(highest["number"]), figure, "-", "-", "-", "1"]
            outside = line.replace(f"best {figure} (one run)", "")
            assert figure not in outside or told or in_table, line
        if trials == 9:
            assert "only unconfirmed single runs (n = 1) rank above it in the table" in output
    validated = succeed("validate", run, "--seeds", 2)
    assert figure not in validated.output
    assert figure[:-1] not in succeed("validate", run, "--seeds", 2, "--json").output


def test_a_failed_trial_is_shown_with_its_reason(tmp_path: Path, task: FakeValTask) -> None:
    task.fail = {1: "raise"}
    succeed("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, *SERIAL)
    shown = succeed("show", tmp_path / "run", 1)
    assert "bug: a bug in the task" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    in_full = succeed("show", tmp_path / "run", 1, "--json")
    assert "ZeroDivisionError: a bug in the task" in in_full.stderr.splitlines()[-1]
    assert json.loads(in_full.stdout)


def test_json_and_csv_of_the_leaderboard_hold_the_same_rows_in_full(run: Path) -> None:
    rows = json.loads(succeed("leaderboard", run, "--json", "--top", 2).stdout)
    assert len(rows) == 2
    assert {"number", "key", "network_key", "status", "objective", "params", "madds"} <= set(rows[0])
    assert rows[0]["objective"] >= rows[1]["objective"]
    table = list(csv.DictReader(io.StringIO(succeed("leaderboard", run, "--csv", "--top", 2).stdout)))
    assert [row["key"] for row in table] == [row["key"] for row in rows]
    assert [float(row["objective"]) for row in table] == [row["objective"] for row in rows]


def test_the_best_can_be_shown_exported_and_checked(run: Path, tmp_path: Path) -> None:
    best = json.loads(succeed("leaderboard", run, "--json").stdout)
    winner = next(row for row in best if row["n"] > 1)
    for format in ("json", "block-specs"):
        file = tmp_path / f"best.{format}.json"
        assert succeed("export", run, "best", "--format", format, "--out", file).stdout == ""
        genotype = read_genotype(file)
        assert network_key(genotype) == winner["network_key"]
        assert genotype.key in succeed("space", "check", file).stdout
    shown = json.loads(succeed("show", run, "best", "--json").stdout)
    assert [row["node"] for row in shown[:17]] == [str(node) for node in range(17)]
    assert "AP" in succeed("show", run, "best").stdout


def test_a_published_model_is_shown_with_its_published_counts() -> None:
    result = succeed("show", "spinenet-49", "--json")
    assert "28.54 M parameters, 85.28 G multiply-adds" in result.stderr
    rows = json.loads(result.stdout)
    assert sum(row["params"] or 0 for row in rows) == 28_543_383
    (output,) = [row for row in rows if row["node"] == "14"]
    assert output["merged"] == "11", "the dangling block"


def test_all_published_models_are_shown_beside_their_figures() -> None:
    rows = {row["name"]: row for row in json.loads(succeed("show", "--json").stdout)}
    assert rows.keys() == PUBLISHED.keys()
    assert rows["spinenet-49"]["madds_ratio"] == pytest.approx(85.28 / 85.4, rel=1e-4)
    assert rows["spinenet-49"]["baseline_ratio"] == pytest.approx(1 - 0.12, abs=1e-3)
    assert rows["spinenet-143l"]["params_ratio"] is None
    assert "28.543 M" in succeed("show").stdout


def test_each_published_ap_is_shown_with_its_split_protocol_and_source() -> None:
    rows = {row["name"]: row for row in json.loads(succeed("show", "--json").stdout)}
    columns = ("ap_a", "ap_b", "ap_c", "ap_mobile", "ap_c_test_dev")
    assert [rows["spinenet-49-896"][name] for name in columns] == [None, 0.453, None, None, 0.467]
    assert rows["spinenet-mobile-49"]["ap_sources"] == ["val2017 mobile: model zoo of tensorflow/tpu"]
    for row in rows.values():
        assert len(row["ap_sources"]) == sum(row[name] is not None for name in columns)
    assert (
        "AP 0.428 on val2017 with protocol B (SpineNet, RetinaNet results on val2017)"
        in succeed("show", "spinenet-49").stdout
    )
    assert "B: 350 epochs" in succeed("show").stderr


def test_published_figures_are_shown_without_a_digit_that_was_not_printed() -> None:
    (line,) = [line for line in succeed("show").stdout.splitlines() if line.startswith("spinenet-190 ")]
    assert " 163.6 M " in line
    assert " 1885.0 G " in line
    assert line.split()[-3:] == ["0.520", "-", "0.521"]


def test_a_baseline_is_shown_and_replayed_but_has_no_genotype_to_export(tmp_path: Path) -> None:
    shown = succeed("show", "r50-fpn")
    assert (
        "34.09 M parameters, 96.88 G multiply-adds; published: 34.0 M parameters, 97.0 G multiply-adds" in shown.stdout
    )
    assert "stage4" in shown.stdout
    succeed("replay", "r50-fpn", "--out", tmp_path / "replay", *SERIAL)
    (row,) = json.loads(succeed("leaderboard", tmp_path / "replay", "--json").stdout)
    assert (row["architecture"], row["network_key"]) == ("r50-fpn", PUBLISHED["r50-fpn"].architecture.key)
    assert "stage4" in succeed("show", tmp_path / "replay", "0").stdout
    result = spinenas("export", "r50-fpn", "--format", "json", "--out", tmp_path / "r50.json")
    assert (result.exit_code, "which has no genotype" in result.stderr) == (1, True)


def test_a_file_is_shown_and_exported_again_with_the_scaling_it_names(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    succeed("export", "spinenet-49", "--format", "json", "--out", first, "--scaling", "96")
    assert "RetinaNet at scaling 96" in succeed("show", first).stdout
    succeed("export", first, "--format", "json", "--out", second)
    assert second.read_text() == first.read_text()


def test_a_winner_is_exported_to_other_programs(run: Path, tmp_path: Path) -> None:
    python, folder, weights = tmp_path / "backbone.py", tmp_path / "mmdet", tmp_path / "fresh.safetensors"
    for format, out in (("python", python), ("mmdet", folder), ("safetensors", weights)):
        words = ["export", run, "best", "--format", format, "--out", out]
        words += ["--random-weights"] * (format == "safetensors")
        assert succeed(*words).stdout == ""
        again = spinenas(*words)
        assert (again.exit_code, "exists already" in again.stderr) == (1, True)
        succeed(*words, "--force")
    from safetensors.torch import load_file

    module: dict[str, Any] = {}
    exec(python.read_text(), module)
    backbone = module["Backbone"]()
    backbone.load_state_dict(load_file(weights))
    assert backbone.out_strides == (8, 16, 32, 64, 128)
    assert sorted(path.name for path in folder.iterdir()) == ["retinanet_spinenet.py", "spinenet_backbone.py"]
    assert "optuna-dashboard sqlite:///" in succeed("to-optuna", run, "--out", tmp_path / "run.db").stderr
    assert spinenas("to-optuna", run, "--out", tmp_path / "run.db").exit_code == 1


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.endswith("-fpn")])
def test_mmdetection_gets_the_head_anchors_and_protocols_of_each_published_model(name: str, tmp_path: Path) -> None:
    model = PUBLISHED[name]
    result = succeed("export", name, "--format", "mmdet", "--out", tmp_path)
    assert f"wrote {name} (relu, dialect tensorflow/tpu) to {tmp_path}\n" in result.stderr
    source = (tmp_path / "retinanet_spinenet.py").read_text()
    config: dict[str, Any] = {}
    exec(source, config)
    head = config["model"]["bbox_head"]
    assert head["in_channels"] == model.scaling.endpoint_channels
    assert (head["stacked_convs"], head["feat_channels"]) == (model.head_convs, model.head_channels)
    assert head["anchor_generator"]["octave_base_scale"] == model.anchor_scale
    assert ("MMDetection's is not separable" in source.replace("\n# ", " ")) == model.separable_head
    protocols = set(re.findall(rf"Training protocol (\w+) of {name}:", source))
    assert protocols == {ap.protocol for ap in model.aps}
    assert (f"No AP of {name} is published" in source) == (not model.aps)


def test_mmdetection_gets_figures_of_a_published_head_that_are_named_here(tmp_path: Path) -> None:
    def head(name: str) -> tuple[Any, ...]:
        succeed("export", name, "--format", "mmdet", "--out", tmp_path / name)
        config: dict[str, Any] = {}
        exec((tmp_path / name / "retinanet_spinenet.py").read_text(), config)
        found = config["model"]["bbox_head"]
        return found["stacked_convs"], found["feat_channels"], found["anchor_generator"]["octave_base_scale"]

    assert head("spinenet-49s") == (4, 128, 3)
    assert head("spinenet-143") == (4, 256, 4)
    assert head("spinenet-190") == (7, 512, 4)
    assert head("spinenet-mobile-49xs") == (4, 24, 3)


def test_a_winner_is_exported_with_the_head_activation_and_dialect_of_its_task(run: Path, tmp_path: Path) -> None:
    stored = json.loads((run / "config.json").read_text())
    stored["task"]["dialect"], stored["task"]["train"]["activation"] = "tensorflow/models", "swish"
    stored["task"]["head"] |= {"num_convs": 2, "channels": 48, "anchor_scale": 2.5}
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "config.json").write_text(json.dumps(stored))
    result = succeed("export", copy, "best", "--format", "mmdet", "--out", tmp_path / "mmdet")
    assert "(swish, dialect tensorflow/models) to" in result.stderr
    config: dict[str, Any] = {}
    source = (tmp_path / "mmdet" / "retinanet_spinenet.py").read_text()
    exec(source, config)
    head = config["model"]["bbox_head"]
    assert (head["stacked_convs"], head["feat_channels"]) == (2, 48)
    assert head["anchor_generator"]["octave_base_scale"] == 2.5
    assert "those of the search's task" in source
    assert 'ACTIVATION = "swish"' in (tmp_path / "mmdet" / "spinenet_backbone.py").read_text()


def test_an_export_takes_another_activation_and_dialect_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "backbone.py"
    words = ["export", "spinenet-190", "--format", "python", "--out", out]
    result = succeed(*words, "--activation", "swish", "--dialect", "tensorflow/models")
    assert result.stderr == f"wrote spinenet-190 (swish, dialect tensorflow/models) to {out}\n"
    assert 'ACTIVATION = "swish"\n' in out.read_text()
    assert "SAME_PADDING = True\n" in out.read_text()
    plain = succeed("export", "spinenet-190", "--format", "json", "--out", tmp_path / "190.json")
    assert plain.stderr == f"wrote spinenet-190 (relu, dialect tensorflow/tpu) to {tmp_path / '190.json'}\n"


def test_weights_keep_the_activation_they_were_trained_with(tmp_path: Path) -> None:
    from spinenas.proxy_task.weights.weights_file import published_detector, save_detector

    spec = published_detector(PUBLISHED["spinenet-mobile-49xs"], dialect="tensorflow/models", activation="swish")
    weights = tmp_path / "weights.safetensors"
    save_detector(weights, spec.build(), spec)
    words = ["export", weights, "--format", "python", "--out", tmp_path / "backbone.py"]
    result = spinenas(*words, "--activation", "relu")
    assert result.exit_code == 1
    assert "trained with swish in the dialect tensorflow/models; leave out --activation" in result.stderr
    assert "(swish, dialect tensorflow/models)" in succeed(*words, "--activation", "swish").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "json", "--random-weights"], "--random-weights belongs to safetensors and onnx; a json file has"),
        (
            ["--format", "safetensors"],
            "spinenet-49 has no weights that can be exported; train it by `spinenas replay spinenet-49 --width full "
            "--out FOLDER` and export FOLDER/trials/000000/weights.safetensors, or add --random-weights",
        ),
        (["--format", "onnx", "--image-size", 100], "--image-size is 100; it must be a multiple of 32"),
        (["--format", "safetensors", "--image-size", 640], "--image-size belongs to the format onnx"),
        (
            ["--format", "safetensors", "--scaling", "spinenet-96"],
            "scaling 'spinenet-96' is unknown; did you mean '96'",
        ),
        (
            ["--format", "safetensors", "--random-weights", "--out", "missing/a.safetensors"],
            "the folder missing does not exist; create it",
        ),
    ],
)
def test_an_export_that_cannot_succeed_builds_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[Any], message: str
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a network was built")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spinenas.proxy_task.weights.backbone_files.initial_backbone", fail)
    result = spinenas("export", "spinenet-49", "--out", "a.file", *words)
    assert (result.exit_code, message in result.stderr) == (1, True), result.stderr


def exports(words: list[Any], folder: Path) -> dict[str, Path]:
    """Export an architecture in every format, and return the files by format."""
    names = {"json": "a.json", "block-specs": "b.json", "python": "c.py", "mmdet": "mmdet"}
    names |= {"safetensors": "d.safetensors", "onnx": "e.onnx"}
    for format, name in names.items():
        options = ["--random-weights"] * (format in ("safetensors", "onnx"))
        succeed("export", *words, "--format", format, "--out", folder / name, *options)
    return {format: folder / name for format, name in names.items()}


def test_every_format_is_read_back_with_its_source(run: Path, tmp_path: Path) -> None:
    files = exports([run, 0], tmp_path)
    genotype = read_genotype(files["json"])
    for format, file in files.items():
        facts = {row["what"]: row["value"] for row in json.loads(succeed("import", file, "--json").stdout)}
        assert facts["network key"] == network_key(genotype)
        assert facts["source"] == f"trial 0 of {run}"
        assert facts["weights"] == ("random" if format in ("safetensors", "onnx") else "none")
        assert facts["dialect"] == "tensorflow/tpu"
        shown = succeed("show", file, "--json")
        assert [row["node"] for row in json.loads(shown.stdout)][:2] == ["0", "1"]
        assert f"from trial 0 of {run} (relu, dialect tensorflow/tpu, " in shown.stderr
        assert ("random weights, not trained" in shown.stderr) == (facts["weights"] == "random")
        out = tmp_path / f"again-{format}.json"
        assert spinenas("import", file, "--out", out).exit_code == 0
        assert out.read_text() == files["json"].read_text()
    for format in ("python", "mmdet", "safetensors", "onnx"):
        replayed = succeed("replay", files[format], "--out", tmp_path / f"replay-{format}", *SERIAL)
        assert ("its weights are not used" in replayed.stderr) == (format == "safetensors")
        assert loop.Run.open(tmp_path / f"replay-{format}").records()[0].genotype == genotype
    assert succeed("import", files["mmdet"] / "spinenet_backbone.py", "--json").stdout
    assert succeed("import", files["mmdet"] / "retinanet_spinenet.py", "--json").stdout


def test_random_weights_stay_random_when_they_are_exported_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    words = ["--format", "safetensors", "--random-weights", "--out"]
    result = succeed("export", "spinenet-mobile-49xs", *words, first)
    assert "(relu, dialect tensorflow/tpu, random weights, not trained) to" in result.stderr
    refused = spinenas("export", first, "--format", "safetensors", "--out", second)
    assert (refused.exit_code, "has random weights; train it by `spinenas replay" in refused.stderr) == (1, True)
    succeed("export", first, *words, second)
    assert second.read_bytes() == first.read_bytes()
    refused = spinenas("export", first, "--format", "python", "--activation", "swish", "--out", tmp_path / "a.py")
    assert (refused.exit_code, "leave out --activation and --dialect" in refused.stderr) == (1, True)


def test_trained_weights_are_exported_as_such_with_the_trial_that_trained_them(run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    from spinenas.proxy_task.weights.weights_file import published_detector, save_detector

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    weights, out = copy / "trials" / "000000" / "weights.safetensors", tmp_path / "backbone.safetensors"
    spec = published_detector(PUBLISHED["spinenet-mobile-49xs"], dialect="tensorflow/models", activation="swish")
    save_detector(weights, spec.build(), spec)
    refused = spinenas("export", weights, "--format", "safetensors", "--out", out, "--random-weights")
    assert (refused.exit_code, "has trained weights; leave out --random-weights" in refused.stderr) == (1, True)
    assert "trained weights) to" in succeed("export", weights, "--format", "safetensors", "--out", out).stderr
    with safe_open(out, framework="pt") as file:
        metadata = json.loads(file.metadata()["spinenas"])
    assert (metadata["weights"], metadata["run"], metadata["trial"]) == ("trained", str(copy), 0)
    assert (metadata["dialect"], metadata["activation"]) == ("tensorflow/models", "swish")
    assert succeed("import", weights, "--json").stdout
    assert succeed("export", out, "--format", "safetensors", "--out", tmp_path / "again.safetensors").exit_code == 0


def test_the_remedy_for_missing_weights_is_quoted_for_the_shell(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "my run"
    shutil.copytree(run, copy)
    result = spinenas("export", copy, "best", "--format", "onnx", "--out", tmp_path / "a.onnx")
    assert f"`spinenas replay '{copy}' best --width full --out FOLDER`" in result.stderr


def test_an_export_that_was_changed_by_hand_is_not_taken_for_what_it_says(tmp_path: Path) -> None:
    python, plain = tmp_path / "a.py", tmp_path / "a.json"
    succeed("export", "spinenet-49", "--format", "python", "--out", python)
    python.write_text(python.read_text().replace("FILTER_SCALE = 1.0", "FILTER_SCALE = 0.5"))
    result = spinenas("show", python)
    assert (result.exit_code, "its FILTER_SCALE was changed after the export" in result.stderr) == (1, True)
    succeed("export", "spinenet-49", "--format", "json", "--out", plain)
    document = json.loads(plain.read_text())
    document["blocks"][0]["level"] = 3
    plain.write_text(json.dumps(document))
    result = spinenas("show", plain)
    assert (result.exit_code, "after an edit, remove the metadata" in result.stderr) == (1, True)
    del document["metadata"]
    plain.write_text(json.dumps(document))
    succeed("show", plain)


def test_an_imported_table_has_no_known_activation_or_dialect(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    blocks = [[b.level, str(b.kind), list(b.parents), b.is_output] for b in PUBLISHED["spinenet-49"].genotype.blocks]
    rows.write_text(json.dumps(blocks))
    succeed("import", rows, "--out", tmp_path / "a.json")
    metadata = json.loads((tmp_path / "a.json").read_text())["metadata"]
    assert (metadata["dialect"], metadata["activation"]) == (None, None)
    assert "(activation and dialect unknown, no weights)" in succeed("show", tmp_path / "a.json").stdout
    written = succeed("export", tmp_path / "a.json", "--format", "json", "--out", tmp_path / "b.json")
    assert written.stderr == f"wrote {tmp_path / 'a.json'} to {tmp_path / 'b.json'}\n"


def test_an_architecture_can_be_drawn_alone_and_beside_another(run: Path, tmp_path: Path) -> None:
    svg, png = tmp_path / "best.svg", tmp_path / "pair.png"
    result = succeed("show", run, "best", "--draw", svg)
    assert "level" in result.stdout, "the table as well"
    assert f"in {svg}" in result.stderr
    assert "AP 0." in svg.read_text()
    succeed("show", "r0-sp53", "--draw", png, "--beside", f"{run} 0")
    assert png.read_bytes().startswith(b"\x89PNG")
    succeed("show", "r0-sp53", "--draw", svg, "--beside", "r23-sp30", "--force")
    assert "15 of 17 positions differ" in svg.read_text()


def test_architectures_of_different_detectors_are_compared_in_the_first_ones(run: Path, tmp_path: Path) -> None:
    svg = tmp_path / "pair.svg"
    result = succeed("show", run, 0, "--draw", svg, "--beside", "spinenet-49")
    assert f"both are counted in the detector of {run} 0; that of spinenet-49 differs" in result.stderr
    assert svg.read_text().count("scaling proxy, 128 px") >= 2
    assert "640 px" not in svg.read_text()
    result = succeed("show", run, 0, "--draw", svg, "--beside", f"{run} 1", "--force")
    assert "counted in" not in result.stderr
    assert "different tasks" not in result.stderr


def test_a_replay_prints_reward_and_val_and_keeps_them(run: Path, tmp_path: Path) -> None:
    result = succeed("replay", "spinenet-49", "--out", tmp_path / "replay", "--json", *SERIAL)
    (row,) = [row for row in json.loads(result.stdout) if row["metric"] == "AP"]
    assert row["val"] == matches_of(row_of_trial(tmp_path / "replay")["objective"]).average_precision()
    assert "val: measured on the val images of the data, by hotcoco, confirmed by pycocotools" in result.stderr
    assert "trained here: scaling " in result.stderr
    assert "the published figures of spinenet-49 (full size, COCO) are not comparable" in result.stderr
    assert "0.443" not in result.stderr, "a published AP beside that of another training misleads"
    kept = json.loads((tmp_path / "replay" / "replay.json").read_text())
    assert kept["val"] == {"AP": row["val"], "AP50": None}
    assert Genotype.from_json(kept["genotype"]) == PUBLISHED["spinenet-49"].genotype
    weights = tmp_path / "replay" / "trials" / "000000" / "weights.safetensors"
    assert weights.exists()
    assert f"the trained weights are in {weights}" in result.stderr


def test_figures_on_which_the_evaluators_disagree_are_not_printed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(self: object, folder: Path) -> None:
        raise UserError("pycocotools differs")

    monkeypatch.setattr(FakeValTask, "val_metrics", differ)
    for words in (["replay", "spinenet-49", *SERIAL], ["validate", run, "--seeds", 2]):
        result = spinenas(*words, "--out", tmp_path / words[0])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "pycocotools differs" in result.stderr
        assert not list((tmp_path / words[0]).glob("validation.json"))
        assert not (tmp_path / words[0] / "replay.json").exists()


def row_of_trial(folder: Path) -> dict[str, Any]:
    (row,) = json.loads(succeed("leaderboard", folder, "--json").stdout)
    return dict(row)


def test_a_replayed_trial_of_a_run_is_trained_as_it_was(run: Path, tmp_path: Path) -> None:
    succeed("replay", run, "2", "--out", tmp_path / "replay")
    (row,) = json.loads(succeed("leaderboard", tmp_path / "replay", "--json").stdout)
    record = loop.Run.open(run).records()[2]
    again = loop.Run.open(tmp_path / "replay").records()[0]
    assert record.evaluation is not None
    assert (again.seed, row["objective"]) == (record.seed, record.evaluation.objective)


def test_a_failed_replay_ends_with_a_sentence(tmp_path: Path, task: FakeValTask) -> None:
    task.fail = {0: "diverged"}
    result = spinenas("replay", "spinenet-49", "--out", tmp_path / "replay", *SERIAL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "failed: diverged, trial 0 was told to fail" in result.stderr.splitlines()[-1]
    assert "another --out" in result.stderr.splitlines()[-1]


def test_a_search_without_any_result_ends_with_a_sentence(tmp_path: Path, task: FakeValTask) -> None:
    task.fail = dict.fromkeys(range(3), "out_of_memory")
    result = spinenas("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, *SERIAL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of the 3 trials has a result" in result.stderr


def test_ctrl_c_prints_how_to_resume_and_exits_with_130(tmp_path: Path, task: FakeValTask) -> None:
    task.interrupt_at = 1
    result = spinenas("search", "quickstart", "--out", tmp_path / "a run", "--trials", 3, *SERIAL)
    assert result.exit_code == 130
    assert f"spinenas resume '{tmp_path / 'a run'}'" in result.stderr
    task.interrupt_at = None
    succeed("resume", tmp_path / "a run")


def test_ctrl_c_before_the_run_exists_does_not_mention_resuming(
    tmp_path: Path, task: FakeValTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "prepare", stopped)
    result = spinenas("search", "quickstart", "--out", tmp_path / "run", *SERIAL)
    assert result.exit_code == 130
    assert "resume" not in result.stderr
    assert "repeat the command" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_replay_is_resumed_by_the_same_command(tmp_path: Path, task: FakeValTask) -> None:
    command = ["replay", "spinenet-49", "--out", tmp_path / "replay", "--json", *SERIAL]
    whole = succeed("replay", "spinenet-49", "--out", tmp_path / "whole", "--json", *SERIAL)
    task.interrupt_at = 0
    result = spinenas(*command)
    assert result.exit_code == 130
    assert "resume it with the same command" in result.stderr
    assert not (tmp_path / "replay" / "replay.json").exists()
    task.interrupt_at = None
    assert succeed(*command).stdout == whole.stdout
    looks = task.num_val_looks
    assert succeed(*command).stdout == whole.stdout
    assert task.num_val_looks == looks, "a complete replay only prints its figures"


def test_a_replay_is_resumed_like_any_run_and_then_prints_its_figures(tmp_path: Path, task: FakeValTask) -> None:
    command = ["replay", "spinenet-49", "--out", tmp_path / "replay", "--json", *SERIAL]
    task.interrupt_at = 0
    spinenas(*command)
    task.interrupt_at = None
    resumed = succeed("resume", tmp_path / "replay")
    assert "repeat the `spinenas replay` command that began it" in resumed.stderr
    assert "winner.json" not in resumed.stderr
    succeed(*command)
    assert {path.name for path in (tmp_path / "replay").glob("trials/*/attempt-*")} == {"attempt-0", "attempt-1"}
    figures = (tmp_path / "replay" / "replay.json").read_text()
    (tmp_path / "replay" / "replay.json").unlink()
    succeed(*command)
    assert (tmp_path / "replay" / "replay.json").read_text() == figures
    (tmp_path / "replay" / "replay.json").unlink()
    task.val_name = "other val images"
    assert "the data changed" in spinenas(*command).stderr


def test_the_folder_of_a_replay_takes_no_other_replay(tmp_path: Path) -> None:
    succeed("replay", "spinenet-49", "--out", tmp_path / "replay", *SERIAL)
    for words in (["r0-sp53"], ["spinenet-49", "--width", "full"], ["spinenet-49", "--seed", 9]):
        result = spinenas("replay", *words, "--out", tmp_path / "replay", *SERIAL)
        assert (result.exit_code, "another --out" in result.stderr) == (1, True)


def test_a_replay_at_full_width_keeps_its_scaling_in_the_configuration(tmp_path: Path) -> None:
    succeed("replay", "spinenet-49s", "--width", "full", "--out", tmp_path / "replay", *SERIAL)
    config = json.loads((tmp_path / "replay" / "config.json").read_text())
    assert config["task"]["scaling"] == asdict(PUBLISHED["spinenet-49s"].scaling)
    assert tomllib.loads((tmp_path / "replay" / "config.toml").read_text())["task"]["scaling"]["filter_scale"] == 0.65
    assert "scaling 49S" in succeed("show", tmp_path / "replay", 0).stdout


def test_a_replay_by_an_earlier_version_is_shown_but_not_resumed(tmp_path: Path) -> None:
    command = ["replay", "spinenet-49", "--out", tmp_path / "replay", *SERIAL]
    succeed(*command)
    path = tmp_path / "replay" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "replay"}))
    succeed("leaderboard", tmp_path / "replay")
    succeed("show", tmp_path / "replay", 0)
    for words in (["resume", tmp_path / "replay"], command):
        result = spinenas(*words)
        assert (result.exit_code, "with another --out" in result.stderr.splitlines()[-1]) == (1, True)


def test_spaces_are_described_and_sampled_the_same_for_the_same_seed() -> None:
    rows = {row["what"]: row["value"] for row in json.loads(succeed("space", "describe", "tiny", "--json").stdout)}
    assert rows["genotypes"] <= rows["decision vectors"]
    first = succeed("space", "sample", "spinenet49", "-n", 3, "--seed", 2, "--json").stdout
    assert first == succeed("space", "sample", "quickstart", "-n", 3, "--seed", 2, "--json").stdout
    assert len({row["genotype"] for row in json.loads(first)}) == 3


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["search", "quikstart", "--out", "{new}"], 1, "did you mean 'quickstart'"),
        (["search", "nowhere.toml", "--out", "{new}"], 1, "nowhere.toml"),
        (["search", "quickstart.toml", "--out", "{new}"], 1, "did you mean the preset 'quickstart'"),
        (
            [
                "config",
                "runs/quikstart",
            ],
            1,
            "did you mean the preset 'quickstart'",
        ),
        (["config", "{new}"], 1, "cannot read the configuration {new}"),
        (["config", "{run}/trials"], 1, "is a folder without a run"),
        (["config", "quickstart", "--controller", "evo"], 1, "did you mean 'evolution'"),
        (["controllers", "evo"], 1, "did you mean 'evolution'"),
        (["replay", "spinenet-49", "--preset", "quick", "--out", "{new}"], 1, "did you mean 'quickstart'"),
        (["search", "quickstart"], 2, "--out"),
        (["search", "quickstart", "--out", "{new}", "--trials", "0"], 2, "--trials"),
        (["search", "quickstart", "--out", "{new}", "--trials", "four"], 2, "'four' is not a valid whole number"),
        (["search", "{coco}", "--out", "{new}"], 1, "is an annotation file, not a configuration"),
        (["search", "quickstart", "--out", "{new}", "--set", "task.epochs=2"], 1, "task.train.epochs"),
        (["search", "quickstart", "--out", "{new}", "--set", "seed"], 1, "key=value"),
        (["search", "quickstart", "--out", "{new}", "--set", "task.train.epochs=x"], 1, "integer"),
        (["search", "quickstart", "--out", "{new}", "--controller", "evolve"], 1, "evolution"),
        (["search", "quickstart", "--out", "{run}"], 1, "already holds a run"),
        (["search", "quickstart", "--out", "{file}"], 1, "not an empty folder"),
        (["resume", "{new}"], 1, "does not exist"),
        (["resume", "{run}", "--trials", "2"], 1, "not reduced to 2"),
        (["resume", "{run}", "--set", "seed=1"], 2, "spinenas search '{run}' --set seed=1 --out NEW"),
        (["export", "{run}", "best", "--format", "json", "--out", "{new}.py"], 1, "end it in .json"),
        (["export", "{run}", "best", "--format", "python", "--out", "{new}.json"], 1, "end it in .py"),
        (["export", "{run}", "best", "--format", "mmdet", "--out", "{new}.py"], 1, "a folder; leave out its suffix"),
        (["leaderboard", "{new}"], 1, "does not exist"),
        (["show", "{run}", "99"], 1, "its trials are 0 to 8"),
        (["show", "{run}", "x"], 1, "no trial 'x'"),
        (["show", "{run}"], 2, "number of a trial"),
        (["export", "--format", "json", "--out", "{new}"], 2, "NAME"),
        (
            ["convert", "{file}", "--model", "spinenet-49s", "--activation", "relu", "--out", "{new}.safetensors"],
            1,
            "is no TensorFlow checkpoint",
        ),
        (
            ["convert", "{file}", "--model", "spinenet-49s", "--activation", "relu", "--out", "{new}"],
            1,
            "ends in .safetensors",
        ),
        (["show", "{new}.safetensors"], 1, "there is no file"),
        (["show", "spinenet-49", "--draw", "{file}.svg/a.svg"], 1, "does not exist; create it first"),
        (["show", "spinenet-49", "--draw", "{new}.jpg"], 1, "end it in .svg or .png"),
        (["show", "spinenet-49", "--draw", "{picture}"], 1, "exists already"),
        (["show", "spinenet-49", "--draw", "{new}.svg", "--beside", "r0-sp5"], 1, "did you mean 'r0-sp53'"),
        (["show", "spinenet-49", "--draw", "{new}.svg", "--beside", "r50-fpn"], 1, "which has no genotype"),
        (["show", "r50-fpn", "--draw", "{new}.svg"], 1, "which has no genotype"),
        (["show", "spinenet-49", "--beside", "r0-sp53"], 2, "--draw"),
        (["show", "--draw", "{new}.svg"], 2, "--draw needs an architecture"),
        (["show", "spinenet-4"], 1, "did you mean 'spinenet-4"),
        (["show", "nowhere.json"], 1, "nowhere.json"),
        (["show", "{file}"], 1, "not JSON"),
        (["export", "{run}", "best", "--format", "onnxx", "--out", "{new}"], 1, "'onnxx'"),
        (["export", "{run}", "0", "--format", "json", "--out", "{file}"], 1, "exists already"),
        (["export", "{run}", "0", "--format", "json", "--out", "{new}", "--scaling", "50"], 1, "'50'"),
        (["export", "spinenet-49", "--format", "python", "--out", "{new}/a.py"], 1, "does not exist; create it first"),
        (["export", "r50-fpn", "--format", "python", "--out", "{new}"], 1, "which has no genotype"),
        (
            ["export", "r0-sp53", "--format", "python", "--out", "{new}", "--image-size", "64"],
            1,
            "belongs to the format onnx",
        ),
        (["replay", "spinenet-49", "--out", "{run}"], 1, "holds a search, not a study of given architectures"),
        (["space", "describe", "spinenet"], 1, "'spinenet'"),
        (["space", "check", "{file}"], 1, "not JSON"),
        (["space", "sample", "tiny", "-n", "0"], 2, "-n"),
    ],
)
def test_bad_input_is_answered_by_one_sentence_and_writes_nothing(
    words: list[str], status: int, said: str, run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("this is not JSON")
    picture = tmp_path / "picture.svg"
    picture.write_text("a picture")
    annotations = tmp_path / "coco.json"
    annotations.write_text('{"images": []}')
    places = {"run": run, "file": file, "picture": picture, "coco": annotations, "new": tmp_path / "new"}
    before = files_of(tmp_path)
    result = spinenas(*(word.format(**places) for word in words))
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert said.format(**places) in result.stderr
    assert "Traceback" not in result.stderr
    if status == 1:
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("spinenas: error: ")
    assert files_of(tmp_path) == before


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return the content of all files that a command could have changed, except leases."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "lease"}


def test_a_genotype_of_another_space_is_refused_with_the_rule_it_breaks(tmp_path: Path) -> None:
    succeed("export", "spinenet-49", "--format", "json", "--out", tmp_path / "49.json")
    result = spinenas("space", "check", tmp_path / "49.json", "--space", "r0-sp53")
    assert result.exit_code == 1
    assert "block" in result.stderr


def test_the_command_starts_without_the_packages_that_take_long_to_load() -> None:
    code = (
        "import sys; from spinenas.search.cli.main import main\n"
        "try: main(['--help'], prog_name='spinenas')\n"
        "except SystemExit: print(*sorted({'torch', 'ray', 'pandas', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "spinenas.search", "show", "nothing"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("spinenas: error: 'nothing' is neither a file nor a published model")


def test_the_same_command_starts_and_resumes_a_run(tmp_path: Path, task: FakeValTask) -> None:
    command = ("search", "quickstart", "--out", tmp_path / "run", "--trials", 9, "--seed", 1, "--or-resume", *SERIAL)
    task.interrupt_at = 4
    assert spinenas(*command).exit_code == 130
    task.interrupt_at = None
    result = succeed(*command)
    assert "resumed with 4 of 9 trials done" in result.stderr
    again = succeed(*command)
    assert again.stdout == result.stdout
    assert "started on" not in again.stderr, "a finished run is unchanged"
    assert "resumed with 9 of 11" in succeed(*command, "--trials", 11).stderr


def test_a_search_that_dies_before_its_first_event_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spinenas.results.storage.journal import Journal

    command = ("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, "--or-resume", *SERIAL)

    def die(journal: Journal, event: dict[str, Any], **_: Any) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", die)
        assert spinenas(*command).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    assert "3/3 done" in succeed(*command).stderr


def test_another_search_is_not_resumed_in_the_same_folder(tmp_path: Path) -> None:
    command = ("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, "--or-resume", *SERIAL)
    succeed(*command)
    for other, key in (("task.train.epochs=99", "task.train.epochs"), ("seed=9", "seed")):
        result = spinenas(*command, "--set", other)
        assert result.exit_code == 1
        assert f"holds another run: its {key} is" in result.stderr
    succeed(*command, "--set", "executor.max_attempts=9")


def test_options_of_other_controllers_do_not_prevent_resuming(tmp_path: Path) -> None:
    """They have no effect, and a later version may have other defaults for them."""
    command = ("search", "quickstart", "--out", tmp_path / "run", "--trials", 3, "--or-resume", *SERIAL)
    command = (*command, "--set", "controller.name=random")
    succeed(*command, "--set", "controller.local.num_parents=3")
    succeed(*command)
    named = spinenas(*command, "--set", "controller.name=local")
    assert "holds another run: its controller.name is 'random', not 'local'" in named.stderr


def test_sigterm_ends_a_search_in_order(tmp_path: Path, task: FakeValTask, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    evaluate = FakeTask.evaluate

    def terminated(self: FakeTask, *args: Any, folder: Path, **named: Any) -> Any:
        if int(folder.name) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, *args, folder=folder, **named)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(FakeTask, "evaluate", terminated)
        result = spinenas("search", "quickstart", "--out", tmp_path / "run", "--trials", 4, *SERIAL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "a second signal changes nothing"
    signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 143
    assert "stopped by SIGTERM; resume it with: spinenas resume" in result.stderr
    assert "Traceback" not in result.stderr
    events = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert json.loads(events[-1])["reason"] == "it was sent SIGTERM"
    succeed("resume", tmp_path / "run")


def test_a_damaged_journal_is_repaired_on_request(run: Path) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":7', 1))
    refused = spinenas("resume", run)
    assert refused.exit_code == 1
    assert f"spinenas resume '{run}' --salvage" in refused.stderr
    assert "damaged lines removed: 1;" in succeed("resume", run, "--salvage").stderr
    assert "is valid, there is nothing to salvage" in succeed("resume", run, "--salvage").stderr


def test_a_repeated_command_changes_executor_settings_and_keeps_an_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("search", "quickstart", "--out", tmp_path / "run", "--seed", 1, "--or-resume", *SERIAL)
    succeed(*command, "--trials", 3, "--max-accelerator-hours", 100)
    succeed("resume", tmp_path / "run", "--trials", 5, "--max-accelerator-hours", 200)
    configs = []
    make = loop.make_executor

    def noted(task: Any, config: Any, *rest: Any) -> Any:
        configs.append(config)
        return make(task, config, *rest)

    monkeypatch.setattr(loop, "make_executor", noted)
    assert "5/5" not in succeed(*command, "--trials", 3, "--max-accelerator-hours", 100).stderr
    assert configs == [], "it is finished, with its extension"
    succeed(*command, "--trials", 6, "--max-accelerator-hours", 100, "--set", "executor.max_errors=9")
    assert [config.max_errors for config in configs] == [9]
    changes = [json.loads(line)["changes"] for line in _lines(tmp_path / "run") if '"resumed"' in line]
    assert [change.get("max_accelerator_hours") for change in changes] == [200.0, None]
    for other in ("executor.threads_per_trial=2", "executor.ordered=true", "budget.replicate_share=0.5"):
        refused = spinenas(*command, "--trials", 6, "--set", other)
        assert refused.exit_code == 1
        assert f"its {other.partition('=')[0]} is" in refused.stderr


def _lines(run: Path) -> list[str]:
    return (run / "journal.jsonl").read_text().splitlines()


def test_a_noise_study_resumes_and_repeats_its_answer(tmp_path: Path, task: FakeValTask) -> None:
    command = ["proxy", "noise", "quickstart", "--out", tmp_path / "study", "--genotypes", 4, "--seeds", 2, *SERIAL]
    task.interrupt_at = 5
    stopped = spinenas(*command)
    assert stopped.exit_code == 130
    task.interrupt_at = None
    done = succeed(*command)
    assert "intraclass correlation" in done.stdout
    assert "upward bias of the best of 100 single runs" in done.stdout
    assert done.stderr.strip().endswith(".")
    document = json.loads(succeed(*command, "--json").stdout)
    assert (document["num_architectures"], document["num_seeds"]) == (4, 2)
    assert document["advice"] in done.stderr
    assert spinenas("leaderboard", tmp_path / "study").exit_code == 0
    near = ["proxy", "noise", "quickstart", "--genotypes", 2, "--seeds", 2, "--mutants-of", tmp_path / "study", *SERIAL]
    assert "intraclass correlation" in succeed(*near, "--out", tmp_path / "near").stdout
    trained = [{record.network_key for record in Run.open(tmp_path / name).records()} for name in ("study", "near")]
    assert not trained[0] & trained[1]


def test_a_ladder_prints_the_papers_order_beside_the_tasks(tmp_path: Path) -> None:
    command = ["proxy", "ladder", "quickstart", "--out", tmp_path / "study", "--random", 3, "--seeds", 2, *SERIAL]
    done = succeed(*command)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["SpineNet-49", "R0-SP53"]
    assert "Kendall's tau with the paper's order" in done.stderr
    assert "with 3 random genotypes of equal cost" in done.stderr
    assert "not checked against the paper's table: 35.6, 28.6, 28.2" in done.stderr
    rows = list(csv.DictReader(io.StringIO(succeed(*command, "--csv").stdout)))
    assert len(rows) == 7
    assert float(rows[0]["paper"]) == 40.8


def test_studies_of_two_fidelities_are_compared(tmp_path: Path, task: FakeValTask) -> None:
    for name, seeds in (("short", 2), ("long", 1)):
        command = ["proxy", "noise", "quickstart", "--out", tmp_path / name, "--genotypes", 5, "--seeds", seeds]
        trained = succeed(*command, *SERIAL)
        assert ("measures no noise" in trained.stderr) == (seeds == 1)
        task.num_epochs = 8
    done = succeed("proxy", "rank", tmp_path / "long", tmp_path / "short")
    assert done.stdout.splitlines()[1].split()[-1] == "yes"
    assert "whole trainings: the cheapest that reaches 0.7" in done.stderr
    alone = spinenas("proxy", "rank", tmp_path / "long")
    assert alone.exit_code == 1
    assert "there is nothing to compare" in alone.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("proxy", "noise", "quickstarts", "--out", "x"), "no preset is called 'quickstarts'"),
        (("proxy", "rank", "nothing"), "nothing does not exist"),
        (("proxy", "noise", "quickstart", "--out", "x", "--set", "task.epochs=3"), "unknown"),
    ],
)
def test_a_problem_with_a_study_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    result = spinenas(*words)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_validation_resumes_and_repeats_its_answer(run: Path, task: FakeValTask) -> None:
    command = ["validate", run, "--seeds", 2]
    task.interrupt_at = 4
    stopped = spinenas(*command)
    assert stopped.exit_code == 130
    assert "resume it with the same command" in stopped.stderr
    task.interrupt_at = None
    done = succeed(*command)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["architecture", "origin", "key", "reward_AP", "sd", "n", "val_AP", "lower", "upper"]
    assert [line.split()[0] for line in lines[1:]] == ["winner", "SpineNet-49", "random"]
    document = json.loads(succeed(*command, "--json").stdout)
    assert done.stderr.splitlines()[-5].startswith("figures on val are by hotcoco, confirmed by pycocotools")
    sentences = [pair["sentence"] for pair in document["comparisons"]]
    assert len(sentences) == 3
    assert done.stderr.splitlines()[-4:-1] == sentences
    assert f"spinenas show '{run / 'validation'}' 2" in done.stderr.splitlines()[-1]
    control = document["architectures"][2]
    assert control["key"] in succeed("show", run / "validation", "2").stdout
    rows = list(csv.DictReader(io.StringIO(succeed(*command, "--csv").stdout)))
    assert [float(row["val_AP"]) for row in rows] == [row["val_AP"] for row in document["architectures"]]
    looks = task.num_val_looks
    again = succeed(*command)
    assert (again.stdout, task.num_val_looks) == (done.stdout, looks)


def test_an_unfinished_search_is_validated_with_a_note(tmp_path: Path, task: FakeValTask) -> None:
    task.interrupt_at = 4
    spinenas("search", "quickstart", "--out", tmp_path / "run", "--trials", 6, *SERIAL)
    task.interrupt_at = None
    out = tmp_path / "elsewhere"
    done = succeed("validate", tmp_path / "run", "--out", out, "--seeds", 2, "--set", "executor.max_errors=9")
    assert "4 of 6 trials are finished; continue the search with: spinenas resume" in done.stderr
    assert (out / "validation.json").exists()
    assert json.loads((out / "config.json").read_text())["executor"]["max_errors"] == 9


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("validate", "nothing"), 1, "nothing does not exist"),
        (
            ("validate", "{run}", "--set", "task.train.epochs=9"),
            2,
            "the task is the run's own, so only executor settings",
        ),
        (("validate", "{run}", "--seeds", "1"), 2, "--seeds"),
        (("validate", "{run}", "--out", "{run}"), 1, "holds another run; give another --out"),
    ],
)
def test_a_problem_with_a_validation_is_one_sentence(run: Path, words: tuple[str, ...], status: int, said: str) -> None:
    result = spinenas(*(word.format(run=run) for word in words))
    assert result.exit_code == status
    assert said in result.stderr


def test_a_search_that_learnt_nothing_names_no_winner_in_any_command(tmp_path: Path, task: FakeValTask) -> None:
    task.scale = 0.0
    result = succeed("search", "quickstart", "--trials", 3, "--out", tmp_path / "run", "--set", "executor.kind=serial")
    for shown in (result, succeed("leaderboard", tmp_path / "run")):
        assert "no winner: none of the 3 complete trainings has learnt to detect anything" in shown.stderr
        assert "spinenas export" not in shown.stderr
        assert "spinenas validate" not in shown.stderr
    for words in (
        ("show", tmp_path / "run", "best"),
        ("export", tmp_path / "run", "best", "--format", "json", "--out", tmp_path / "best.json"),
        ("validate", tmp_path / "run"),
    ):
        refused = spinenas(*words)
        assert refused.exit_code == 1
        assert "no winner: none of the 3" in refused.stderr
    assert not (tmp_path / "run" / "validation").exists(), "nothing is trained"
    assert "AP 0.0000" in succeed("show", tmp_path / "run", 1).stdout
