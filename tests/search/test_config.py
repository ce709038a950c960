"""Configurations: presets, files, overrides, checks and error messages."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from spinenas.controller import CONTROLLERS, PredictorGuidedOptions, make_controller
from spinenas.results.record import Evaluation
from spinenas.search.config.checking import dotted_keys
from spinenas.search.config.commented import commented_toml, sources
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import flattened, parse_override, toml_text, value_at
from spinenas.search.config.loading import load_config, load_config_file, read_source, stored_config, with_changes
from spinenas.search.config.presets import PRESET_SUMMARIES, PRESETS, preset
from spinenas.search.config.reference import attribute_docs, configuration_tables, summary
from spinenas.search.config.suggestions import KEY_BY_ALIAS, suggested_keys
from spinenas.space import UserError, space_by_name


def test_every_suggested_key_exists() -> None:
    known = list(dotted_keys(SearchConfig))
    for alias, key in KEY_BY_ALIAS.items():
        assert suggested_keys(alias, known) == [key]
        assert key in known
        assert alias not in {other.rpartition(".")[2] for other in known}, "a key of its own needs no alias"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name: str) -> None:
    config = preset(name)
    assert SearchConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert json.dumps(SearchConfig.from_json(config.to_json()).to_json()) == json.dumps(config.to_json()), "as text too"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_default_controller_of_a_preset_is_random_for_at_most_a_quarter_of_the_budget(name: str) -> None:
    config = preset(name).resolved()
    assert config.controller.name == "predictor-guided"
    num_random = config.controller.predictor_guided.num_random
    assert num_random is not None
    assert num_random <= config.budget.num_trials // 4
    space = space_by_name(config.space.name)
    assert make_controller(config.controller.name, space, **config.controller.options()).ask() is not None


def test_the_paper_proxy_has_the_published_values() -> None:
    task = preset("spinenet49-proxy").task
    assert (task.scaling.filter_scale, task.scaling.resample_alpha, task.scaling.endpoint_channels) == (0.25, 0.25, 64)
    assert (task.head.num_convs, task.head.channels, task.image_size_pixels) == (4, 64, 512)
    assert (task.train.epochs, task.data.held_out_images) == (5, 7392)


def test_every_preset_has_a_summary() -> None:
    assert PRESET_SUMMARIES.keys() == PRESETS.keys()


def test_every_key_and_table_has_a_meaning() -> None:
    tables = configuration_tables()
    keys = [key for table in tables for key in table.keys]
    assert [key.name for key in keys if value_at(SearchConfig().to_json(), key.name, "missing") != key.default] == []
    assert {key.name for key in keys} >= dict(flattened(SearchConfig().to_json())).keys()
    assert [part.name for part in (*tables, *keys) if not part.meaning] == []


def test_the_meaning_of_a_key_is_read_from_the_docstring_of_its_class() -> None:
    class Example:
        """Something.

        Attributes:
            width, height: of the box; None for
                no box.
            name: what it is called.
        """

    assert attribute_docs(Example) == {
        "width": 'Of the box; "none" for no box.',
        "height": 'Of the box; "none" for no box.',
        "name": "What it is called.",
    }
    assert summary(Example) == "Something."


def test_a_file_starts_from_its_preset_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "search.toml"
    file.write_text('preset = "coco-small"\nseed = 3\n[task.train]\nepochs = 7\nbatch_size = 4\n')
    config = load_config_file(file, {"task.train.epochs": 9})
    assert (config.seed, config.task.train.epochs, config.task.train.batch_size) == (3, 9, 4)
    assert config.task.train.learning_rate == preset("coco-small").task.train.learning_rate


def test_integers_become_floats_and_lists_become_tuples() -> None:
    config = load_config({"task": {"train": {"learning_rate": 1, "scale_jitter": [1, 2]}}})
    assert config.task.train.learning_rate == 1.0
    assert config.task.train.scale_jitter == (1.0, 2.0)


@pytest.mark.parametrize("num_trials", [1, 12, 60, 1000])
def test_a_population_is_at_most_a_quarter_of_the_budget(num_trials: int) -> None:
    config = load_config({"controller": {"name": "evolution"}, "budget": {"num_trials": num_trials}}).resolved()
    population = config.controller.evolution.population_size
    assert population is not None
    assert population <= max(2, num_trials // 4)
    assert make_controller("evolution", space_by_name("tiny"), **config.controller.options()).ask() is not None


def test_the_resolved_population_does_not_change_when_it_is_given() -> None:
    config = load_config({"controller": {"evolution": {"population_size": 7, "tournament_size": 3}}}).resolved()
    assert config.controller.evolution.population_size == 7
    assert config.controller.evolution.tournament_size == 3


def test_data_folders_become_absolute_and_built_in_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config({"task": {"data": {"folder": "fish"}}}).resolved().task.data.folder == str(tmp_path / "fish")
    assert load_config({}).resolved().task.data.folder == "built-in"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("task.train.learning_rate = 0.1", "task.train.learning_rate", 0.1),
        ("executor.ordered=true", "executor.ordered", True),
        ("task.train.scale_jitter=[0.8, 1.25]", "task.train.scale_jitter", [0.8, 1.25]),
        ("task.data.folder=/a b/c=d", "task.data.folder", "/a b/c=d"),
        ("executor.address=none", "executor.address", None),
    ],
)
def test_the_value_of_an_override_is_toml_or_plain_text(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"sed": 1}, ["'sed'", "did you mean 'seed'"]),
        ({"task": {"epochs": 2}}, ["'task.epochs'", "did you mean 'task.train.epochs'"]),
        ({"task": {"train": {"epohcs": 2}}}, ["'task.train.epohcs'", "did you mean 'task.train.epochs'"]),
        ({"task": {"train": {"image_size": 64}}}, ["did you mean 'task.image_size_pixels'?"]),
        ({"image_size_pixel": 64}, ["did you mean 'task.image_size_pixels'?"]),
        ({"epochs": 1}, ["did you mean 'task.train.epochs' or 'budget.epochs'?"]),
        ({"lr": 1}, ["did you mean 'task.train.learning_rate'?"]),
        ({"controller": {"ppo": {"lr": 1}}}, ["did you mean 'controller.ppo.learning_rate'?"]),
        ({"batch": 1}, ["did you mean 'task.train.batch_size'?"]),
        ({"training": {"batch": 1}}, ["'training'", "did you mean 'task.train'?"]),
        ({"max_flops": 1}, ["did you mean 'constraints.max_madds'?"]),
        ({"trials": 1}, ["did you mean 'budget.num_trials'?"]),
        ({"executor": {"gpus": 1}}, ["did you mean 'executor.gpus_per_worker'?"]),
        ({"space": {"zzz": 1}}, ["known are space.name"]),
        ({"task": {"train": {"epochs": "2"}}}, ["'task.train.epochs' is '2'", "integer"]),
        ({"task": {"train": {"epochs": 2.5}}}, ["'task.train.epochs' is 2.5", "integer"]),
        ({"task": {"train": {"epochs": True}}}, ["'task.train.epochs'", "integer"]),
        ({"task": {"train": {"learning_rate": float("nan")}}}, ["'task.train.learning_rate'", "finite"]),
        ({"task": {"train": {"optimizer": "adam"}}}, ["'task.train.optimizer' is 'adam'", "'sgd' or 'adamw'"]),
        ({"task": {"train": {"scale_jitter": [1.0]}}}, ["task.train.scale_jitter"]),
        ({"task": {"image_size_pixels": 100}}, ["task.image_size_pixels is 100", "multiple of 32"]),
        ({"task": 3}, ["'task' is 3", "object"]),
        ({"space": {"name": "spinenet50"}}, ["'spinenet50'", "did you mean 'spinenet49'"]),
        ({"controller": {"name": "evolutoin"}}, ["'evolutoin'", "did you mean 'evolution'"]),
        ({"controller": {"random": {"control": "alife"}}}, ["controller.random.control", "'alive'"]),
        ({"budget": {"num_trials": 0}}, ["budget.num_trials is 0", "at least 1"]),
        ({"budget": {"replicate_share": 1.0}}, ["budget.replicate_share", "below 1"]),
        ({"executor": {"kind": "thread"}}, ["'executor.kind' is 'thread'", "'serial'"]),
        ({"executor": {"workers": 0}}, ["executor.workers is 0", "at least 1"]),
        ({"executor": {"cpus_per_worker": -1}}, ["executor.cpus_per_worker", "0 or more"]),
        ({"preset": "quick"}, ["'quick'", "preset"]),
        ({"preset": 3}, ["3", "preset"]),
        ({"preset": ["quickstart"]}, ["['quickstart']", "preset"]),
    ],
)
def test_an_error_message_names_the_key_and_the_remedy(document: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(document)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


SCALING = {"name": "a", "filter_scale": 1, "endpoint_channels": 8, "resample_alpha": 1, "block_repeats": 1}
MADDS_BAND = {"scaling": SCALING, "image_size_pixels": 640, "low": 1, "high": 2}
WITHOUT_DEFAULTS = load_config(
    {
        "preset": "digits",
        "controller": {"name": "evolution", "random": {"control": "madds-band", "madds_band": MADDS_BAND}},
        "task": {"train": {"gradient_clip_norm": "none"}, "data": {"folder": 'a "b" # c'}},
        "halving": {"rungs": [1, 2]},
    }
)


@pytest.mark.parametrize("config", [*PRESETS.values(), WITHOUT_DEFAULTS], ids=[*PRESETS, "other"])
def test_a_configuration_written_as_toml_is_read_back_the_same(config: SearchConfig) -> None:
    assert load_config(tomllib.loads(toml_text(config.to_json()))) == config
    resolved = config.resolved()
    explained = commented_toml(resolved, sources(resolved, {}, {}))
    assert load_config(tomllib.loads(explained)) == resolved


def test_an_explained_configuration_says_where_each_value_comes_from() -> None:
    document = {"preset": "digits", "controller": {"name": "evolution"}, "seed": 0}
    overrides = {"task.train.epochs": 7}
    config = load_config(document, overrides).resolved()
    found = sources(config, document, overrides)
    assert found["seed"] == "file", "even if it is the default"
    assert found["task.train.epochs"] == "command line"
    assert found["task.train.batch_size"] == "preset digits"
    assert found["controller.evolution.population_size"] == "derived"
    assert found["controller.evolution.max_edits"] == "default"
    lines = commented_toml(config, found).splitlines()
    assert "epochs = 7  # command line; the default is 5" in lines
    assert "seed = 0  # file" in lines


@pytest.mark.parametrize(
    "value", ['a"b\\c', "tab\t\nline\x00\x7f", "ä 𝄞", "", -1, 2.5e-30, 1e20, True, [0.5, 2], [], {}]
)
def test_a_value_written_as_toml_is_read_back_the_same(value: object) -> None:
    assert tomllib.loads(toml_text({"a": {"b": value, "c": None}}))["a"] == {"b": value, "c": "none"}


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"controller": {"name": "evolution", "random": {"control": "uniform"}}}, "controller.random.control"),
        ({"controller": {"name": "random", "evolution": {"max_edits": 2}}}, "controller.evolution.max_edits"),
        ({"executor": {"kind": "serial", "gpus_per_worker": 0}}, "executor.gpus_per_worker"),
    ],
)
def test_a_value_without_effect_is_named(document: dict[str, object], key: str) -> None:
    (sentence,) = load_config(document).unused()
    assert sentence.startswith(f"{key} has no effect")


@pytest.mark.parametrize("name", ["evolution", "random"])
def test_a_value_that_is_used_or_a_default_is_not_named(name: str) -> None:
    options = {"evolution": {"max_edits": 2}, "random": {"control": "uniform"}}
    config = load_config({"controller": {"name": name, name: options[name]}, "executor": {"gpus_per_worker": 1}})
    assert config.unused() == []
    assert config.resolved().unused() == [], "so that a search from its config.json is silent as well"


def test_random_search_has_the_same_defaults_in_python_and_in_a_configuration() -> None:
    space = space_by_name("spinenet49")
    options = load_config({"controller": {"name": "random"}}).controller.options()
    assert make_controller("random", space).ask() == make_controller("random", space, **options).ask()


def test_the_configuration_has_a_table_for_each_controller_and_a_key_for_each_option() -> None:
    tables = SearchConfig().to_json()["controller"]
    assert tables.keys() - {"name"} == {name.replace("-", "_") for name in CONTROLLERS}
    for name, entry in CONTROLLERS.items():
        assert tables[name.replace("-", "_")] == json.loads(json.dumps(asdict(entry.options()))), name


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_every_option_of_a_controller_is_documented(name: str) -> None:
    entry = CONTROLLERS[name]
    documented = re.findall(r"^        (\w+): ", entry.options.__doc__ or "", flags=re.MULTILINE)
    assert sorted(documented) == sorted(option.name for option in fields(entry.options))
    assert entry.summary.endswith(".")


@pytest.mark.parametrize("name", sorted({*CONTROLLERS} - {"plan"}))
def test_a_controller_in_python_has_the_defaults_of_a_large_search(name: str) -> None:
    document = {"controller": {"name": name}, "budget": {"num_trials": 1000}}
    options = load_config(document).resolved().controller.options()
    space = space_by_name("tiny")
    alike = [make_controller(name, space, seed=2), make_controller(name, space, seed=2, **options)]
    for _ in range(30):
        first, second = (controller.ask() for controller in alike)
        assert first == second
        for controller in alike:
            controller.tell(first.number, Evaluation(0.1 + first.number % 7 / 100))


def test_former_names_of_a_controller_and_its_options_keep_working() -> None:
    stored = {"name": "screened", "screened": {"optimism": 0.25, "num_random": 9}}
    config = SearchConfig.from_json({"controller": stored})
    assert config.controller.name == "predictor-guided"
    assert config.controller.predictor_guided == PredictorGuidedOptions(num_random=9, ucb_coefficient=0.25)
    assert load_config({"preset": "digits", "controller": stored}).controller == config.controller
    overridden = load_config({"controller": stored}, {"controller.predictor_guided.num_random": 7})
    assert overridden.controller.predictor_guided.num_random == 7
    overridden = load_config(
        {"controller": {"predictor_guided": {"num_random": 7}}}, {"controller.screened.optimism": 1.0}
    )
    assert overridden.controller.predictor_guided == PredictorGuidedOptions(num_random=7, ucb_coefficient=1.0)


def test_a_stored_run_loads_with_options_of_a_controller_that_was_removed_unless_that_was_chosen() -> None:
    stored = {"name": "evolution", "hybrid": {"policy_share": 0.5}}
    assert SearchConfig.from_json({"controller": stored}).controller.name == "evolution"
    with pytest.raises(UserError, match="no longer has the controller 'hybrid'"):
        SearchConfig.from_json({"controller": {**stored, "name": "hybrid"}})


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="key=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", b'["quickstart"]'),
        ("text.json", b'"quickstart"'),
        ("deep.json", b"[" * 100_000),
        ("deep.toml", b"a = " + b"[" * 100_000),
        ("latin.toml", 'preset = "schön"'.encode("latin-1")),
        ("latin.json", '{"preset": "schön"}'.encode("latin-1")),
        ("folder.toml", None),
        ("folder.json", None),
    ],
)
def test_an_invalid_file_is_refused_in_one_sentence(name: str, content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config_file(file)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_wins_over_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert read_source("digits") == (None, {"preset": "digits"})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        load_config_file(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = \n")
    with pytest.raises(UserError, match=r"broken\.toml is not TOML"):
        load_config_file(broken)


def test_a_retired_key_is_accepted_in_the_configuration_of_a_run_and_unknown_in_a_users_own() -> None:
    document = SearchConfig().to_json()
    document["executor"]["processes_per_trial"] = 1
    assert stored_config(document) == SearchConfig()
    with pytest.raises(UserError, match=r"'executor\.processes_per_trial' is unknown"):
        load_config({"executor": {"processes_per_trial": 1}})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "search.toml"
    file.write_bytes('preset = "quickstart"\r\nseed = 7\r\n# größer\r\n'.encode(encoding))
    assert load_config_file(file).seed == 7
    stored = tmp_path / "config.json"
    stored.write_bytes(json.dumps(load_config_file(file).to_json()).encode(encoding))
    assert load_config_file(stored) == load_config_file(file)


def test_a_budget_in_epochs_becomes_whole_trainings_and_the_epochs_stay() -> None:
    document = {"preset": "quickstart", "task": {"train": {"epochs": 5}}}
    config = load_config(document, {"budget.epochs": 303}).resolved()
    assert (config.budget.num_trials, config.budget.epochs, config.num_epochs) == (60, 303, 303)
    assert config.unused() == [], "the trainings of the preset are replaced, not ignored"
    assert load_config(config.to_json()).resolved() == config
    assert not load_config({"budget": {"epochs": 303}, "preset": "quickstart"}).unused()
    (sentence,) = load_config({"budget": {"epochs": 303, "num_trials": 7}}).unused()
    assert sentence == "budget.num_trials has no effect, since budget.epochs is 303"


@pytest.mark.parametrize("document", [{"budget": {"epochs": 300}}, {"budget": {"epochs": 300, "num_trials": 60}}])
def test_an_override_of_one_budget_replaces_the_other_one_of_a_file(document: dict[str, object]) -> None:
    assert load_config(document, {"budget.num_trials": 8}).num_epochs == 40
    assert load_config(document, {"budget.epochs": 50}).num_epochs == 50
    with pytest.raises(UserError, match="both set the budget; give one"):
        load_config(document, {"budget.num_trials": 8, "budget.epochs": 50})


def test_a_budget_in_epochs_pays_for_one_training_at_least() -> None:
    with pytest.raises(UserError, match=r"budget\.epochs is 4, and one training has 5 epochs"):
        load_config({"budget": {"epochs": 4}})


def test_a_changed_budget_keeps_trainings_and_epochs_together() -> None:
    config = load_config({"budget": {"epochs": 302}}).resolved()
    more = with_changes(config, [{"epochs": 400}])
    assert (more.budget.num_trials, more.num_epochs) == (80, 400)
    assert with_changes(config, [{"num_trials": 90}]).num_epochs == 450
    assert with_changes(config, [{"num_trials": 90}, {"epochs": 500}, {"max_accelerator_hours": 2.0}]).num_epochs == 500


def test_the_configuration_has_the_epochs_at_which_trainings_pause() -> None:
    document = {"controller": {"name": "freeze-thaw"}, "task": {"train": {"epochs": 10}}}
    assert load_config(document).resolved().controller.freeze_thaw.rungs == (2, 6)
    chosen = load_config(document, {"controller.freeze_thaw.rungs": [4]}).resolved()
    assert chosen.controller.freeze_thaw.rungs == (4,)


def test_a_table_is_searched_first_for_a_key_of_the_same_name() -> None:
    known = list(dotted_keys(SearchConfig))
    assert suggested_keys("task.epochs", known) == ["task.train.epochs"]
    assert suggested_keys("epochs", known) == ["task.train.epochs", "budget.epochs"]
