from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from shared_fixtures import REPOSITORY

from spinenas.controller import EvolutionOptions
from spinenas.controller.base import Continuation, Proposal, SpaceExhausted
from spinenas.controller.evolution import RegularizedEvolution
from spinenas.results.record import Evaluation, Failure
from spinenas.search.cli.main import main
from spinenas.search.controller_bench import simulated_search
from spinenas.search.controller_bench.cell import BY_MADDS, Cell, checkpoints
from spinenas.search.controller_bench.comparison import NOISES, cells, run_cells
from spinenas.search.controller_bench.landscapes import make_landscape
from spinenas.search.controller_bench.learnt_landscape import measured_fit, table_score
from spinenas.search.controller_bench.outcome_tables import lead, of_synthetic_families, reach, summary
from spinenas.search.controller_bench.simulated_search import run_cell
from spinenas.search.controller_bench.tabular import RestrictedToRows, TableRows
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.space.errors import UserError
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

CELL = Cell(
    "evolution",
    "nk",
    1,
    seed=0,
    workers=4,
    noise=0.35,
    budget=60,
    options={"population_size": 16, "tournament_size": 4},
)


TABLE = REPOSITORY / "benchmarks/tables/digits.csv.gz"


def untimed(outcome):
    return {key: value for key, value in outcome.items() if "milliseconds" not in key}


def test_a_cell_has_the_same_outcome_again_and_each_seed_its_own():
    outcome = untimed(run_cell(CELL))
    assert untimed(run_cell(CELL)) == outcome
    assert untimed(run_cell(replace(CELL, seed=1)))["chosen"] != outcome["chosen"]
    assert json.loads(json.dumps(outcome)) == outcome
    assert (outcome["num_trials"], outcome["duplicates"]) == (60, 0)
    assert list(outcome["chosen"]) == list(outcome["replicated"]) == ["10", "20", "30", "50", "60"]


def test_the_number_of_workers_changes_the_outcome():
    few, many = (run_cell(replace(CELL, workers=workers)) for workers in (1, 50))
    assert untimed(few)["chosen"] != untimed(many)["chosen"]


def test_without_noise_evolution_chooses_better_than_the_most_expensive_of_random_networks():
    chosen = [run_cell(replace(CELL, noise=0.0, landscape=number))["chosen"]["60"] for number in range(3)]
    most_expensive = [
        run_cell(replace(CELL, controller=BY_MADDS, noise=0.0, landscape=number, options={}))["chosen"]["60"]
        for number in range(3)
    ]
    assert sum(chosen) > sum(most_expensive) + 3


def test_replicates_of_the_leaders_improve_the_choice_under_noise():
    outcomes = [
        run_cell(replace(CELL, controller="random", options={}, noise=1.5, seed=seed, budget=100)) for seed in range(12)
    ]
    gain = [outcome["replicated"]["100"] - outcome["chosen"]["100"] for outcome in outcomes]
    assert sum(gain) > 0


def test_the_end_of_a_budget_is_always_a_checkpoint():
    assert checkpoints(60) == [10, 20, 30, 50, 60]
    assert checkpoints(300) == [20, 30, 50, 100, 200, 300]
    assert checkpoints(1000) == [50, 100, 200, 300, 350, 500, 1000]


def test_landscapes_alternate_between_families_and_noises():
    wanted = cells(["random"], num_landscapes=9, first_landscape=0, num_seeds=2, workers=1, budget=10)
    assert len(set(map(str, wanted))) == 18
    assert {(cell.family, cell.noise) for cell in wanted} == {
        (family, noise) for family in ("edges", "nk", "flow") for noise in NOISES
    }
    with pytest.raises(UserError, match="'evolutoin' cannot be compared; did you mean 'evolution'"):
        cells(["evolutoin"], num_landscapes=1, first_landscape=0, num_seeds=1, workers=1, budget=10)


def test_a_killed_comparison_continues(tmp_path):
    path, notes = tmp_path / "out.jsonl", []
    wanted = cells(["random"], num_landscapes=3, first_landscape=0, num_seeds=1, workers=2, budget=8)
    whole = run_cells(wanted, path, processes=1, note=notes.append)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:40])  # killed while it wrote
    notes.clear()
    again = run_cells(wanted, path, processes=1, note=notes.append)
    assert notes[0].startswith("1 of 3 searches are in")
    assert [untimed(outcome) for outcome in again] == [untimed(outcome) for outcome in whole]
    assert len(path.read_text().splitlines()) == 3
    path.write_text("nonsense\n" + lines[0])
    with pytest.raises(UserError, match=r"line 1 of .*out.jsonl is not the outcome"):
        run_cells(wanted, path, processes=1, note=notes.append)


def made_up(controller: str, landscape: int, values: dict[str, float]):
    """An outcome whose budget is the last of `values`; each value holds until the next, the first also before."""
    budget = max(map(int, values))
    first, *_ = values.values()
    values = {
        str(point): next((value for at, value in reversed(values.items()) if int(at) <= point), first)
        for point in checkpoints(budget)
    }
    return {
        **replace(CELL, controller=controller, landscape=landscape, budget=budget, options={}).identity(),
        "chosen": values,
        "replicated": values,
        "duplicates": 1,
        "ask_milliseconds": 2.0,
        "ask_milliseconds_p99": 3.0 + landscape,
        "tell_milliseconds": 1.0,
    }


def test_the_landscape_is_the_unit_and_the_reference_is_reinforce_at_the_end():
    outcomes = []
    for landscape in range(8):
        outcomes += [made_up("reinforce", landscape, {"50": 1.0, "100": 2.0})] * 2
        outcomes += [made_up("evolution", landscape, {"50": 2.0 + 0.1 * landscape, "100": 4.0})] * 2
        outcomes += [made_up("random", landscape, {"50": 0.0, "100": 1.0 + 0.01 * landscape})] * 2
    rows = {row["controller"]: row for row in summary(outcomes, "replicated")}
    assert list(rows) == ["evolution", "reinforce", "random"]
    other, random = rows["evolution"], rows["random"]
    assert (other["50"], other["100"]) == (pytest.approx(2.35), 4.0)
    assert other["reached at"] == "10"
    assert (other["tested at"], other["ahead"]) == ("30", "7/8")
    assert other["p"] == pytest.approx(2**-7)  # seven landscapes are better, one is equal and left out
    assert (random["reached at"], random["p"] > 0.99) == (None, True)
    assert rows["reinforce"]["p"] is None
    assert (other["duplicates"], other["ms p99"]) == (16, 10.0)


def with_budgets(controller: str, landscape: int, values: dict[str, float]):
    """Outcomes of a controller that counts epochs: one for each budget."""
    of_one = made_up(controller, landscape, {"100": 0.0})
    return [
        {**of_one, "budget": int(point), "chosen": {point: value}, "replicated": {point: value}}
        for point, value in values.items()
    ]


def test_a_controller_that_counts_epochs_is_tested_at_its_own_budgets():
    outcomes = []
    for landscape in range(8):
        outcomes.append(made_up("reinforce", landscape, {"50": 1.0, "100": 2.0}))
        outcomes += with_budgets("freeze-thaw", landscape, {"20": 1.5, "33": 2.5 - 0.1 * landscape, "50": 2.7})
    first, reference = summary(outcomes, "replicated")
    assert (first["controller"], reference["controller"]) == ("freeze-thaw", "reinforce")
    assert (first["33"], first["100"], reference["33"]) == (pytest.approx(2.15), None, None)
    assert (first["reached at"], first["tested at"], first["ahead"]) == ("33", "33", "5/8")
    reached, own = reach(outcomes, "replicated")[::-1]
    assert (reached["controller"], reached["20"], reached["50"]) == ("freeze-thaw", "0/8, p 1", "8/8, p 0.004")
    assert (reached["100"], own["100"]) == (None, "0/8")
    (over_reinforce,) = lead(outcomes, "replicated", "freeze-thaw")
    assert (over_reinforce["33"], over_reinforce["50"]) == (None, "8/8, p 0.004")


PAUSING = replace(CELL, controller="freeze-thaw", options={"num_random": 6, "num_candidates": 10}, budget=16)


def test_a_controller_that_counts_epochs_spends_its_budget_on_paused_trainings():
    outcome = run_cell(PAUSING)
    assert untimed(run_cell(PAUSING)) == untimed(outcome)
    assert outcome["num_trials"] > 16
    assert 5 * 16 - 5 < outcome["num_epochs"] <= 5 * 16
    assert outcome["chosen"] == outcome["replicated"]
    assert list(outcome["chosen"]) == ["16"]
    assert outcome["duplicates"] == 0
    assert outcome["protocol"] == "1.1.1"


class Recorder:
    """Pauses every training after epochs 1 and 3, and keeps what it is told."""

    def __init__(self, genotypes):
        self.left, self.told, self.again = list(genotypes), [], []
        self.number = self.running = 0

    def ask(self):
        if not (self.again or self.left):
            if self.running:
                return None
            raise SpaceExhausted("all are proposed")
        self.running += 1
        if self.again:
            return self.again.pop()
        self.number += 1
        return Proposal(self.number - 1, self.left.pop(), until=1)

    def tell(self, number, result):
        self.told.append((number, result))
        self.running -= 1
        if isinstance(result, Evaluation) and result.stopped_after is not None:
            self.again.append(Continuation(number, {1: 3, 3: None}[result.stopped_after]))
        return True


def test_a_paused_training_goes_on_along_its_curve_and_ends_as_a_whole_one(monkeypatch):
    rng = generator(0, "test")
    genotypes = [sample_without_dead_blocks(SearchSpace.spinenet49(), rng) for _ in range(60)]
    recorder = Recorder(genotypes)
    monkeypatch.setattr(simulated_search, "make_controller", lambda *args, **options: recorder)
    run_cell(replace(CELL, controller="freeze-thaw", options={}, budget=1000))
    landscape = make_landscape("nk", 1, SearchSpace.spinenet49())
    failed = 0
    for number, genotype in enumerate(reversed(genotypes)):
        results = [result for of, result in recorder.told if of == number]
        whole = landscape.train(genotype, 0, seed=0, noise=0.35)
        if isinstance(whole, Failure):
            assert results.pop() == whole
            failed += 1
        else:
            assert results[-1] == whole
            assert [len(result.by_epoch) for result in results] == [1, 3, 5]
            assert {result.by_epoch[0] for result in results} == {whole.by_epoch[0]}
        assert [result.stopped_after for result in results] == [1, 3, None][: len(results)]
        assert all(result.objective == result.by_epoch[-1][1] for result in results)
    assert 0 < failed < 10


def test_time_passes_in_proportion_to_epochs(monkeypatch):
    rng = generator(0, "test")
    recorder = Recorder([sample_without_dead_blocks(SearchSpace.spinenet49(), rng) for _ in range(10)])
    monkeypatch.setattr(simulated_search, "make_controller", lambda *args, **options: recorder)
    run_cell(replace(CELL, controller="freeze-thaw", options={}, workers=10))  # no training waits
    order = [number for number, _ in recorder.told]
    ends = []
    for number in range(10):
        whole = generator(CELL.seed, "bench/duration", number).lognormal(sigma=0.3)
        ends += [(whole * epochs / 5, number) for epochs in (1, 3, 5)[: order.count(number)]]
    assert order == [number for _, number in sorted(ends)]


def test_only_controllers_that_count_epochs_depend_on_early_epochs():
    names = ("evolution", "freeze-thaw")
    plain, crossed = ([replace(CELL, controller=name, options={}, crossing=crossing) for name in names]
                      for crossing in (False, True))  # fmt: skip
    assert [a.identity() == b.identity() for a, b in zip(plain, crossed, strict=True)] == [True, False]
    assert untimed(run_cell(PAUSING)) != untimed(run_cell(replace(PAUSING, crossing=True)))


def test_a_comparison_has_a_search_for_each_budget_of_a_controller_that_counts_epochs():
    sizes = {"num_landscapes": 1, "first_landscape": 0, "num_seeds": 1, "workers": 1}
    wanted = cells(["random", "freeze-thaw"], **sizes, budget=1000)
    assert [(cell.controller, cell.budget) for cell in wanted] == [
        ("random", 1000), *(("freeze-thaw", budget) for budget in (50, 100, 200, 330, 500))
    ]  # fmt: skip
    wanted = cells(["freeze-thaw"], **sizes, budget=1000, budgets=[100], noise=0.6, crossing=True)
    assert [(cell.budget, cell.noise, cell.crossing) for cell in wanted] == [(100, 0.6, True)]
    with pytest.raises(UserError, match="the rows of a table have their own noise and curves"):
        cells(["random"], **sizes, budget=10, table=str(TABLE), rows=True, crossing=True)


def test_a_lead_compares_equal_numbers_of_trainings():
    outcomes = []
    for landscape in range(8):
        outcomes.append(made_up("reinforce", landscape, {"50": 1.0, "100": 4.0}))
        outcomes.append(made_up("evolution", landscape, {"50": 2.0, "100": 3.0 + 0.25 * landscape}))
        outcomes.append(made_up("random", landscape, {"50": 1.0, "100": 1.0}))
    over_reinforce, over_random = lead(outcomes, "replicated", "evolution")
    assert (over_reinforce["over"], over_random["over"]) == ("reinforce", "random")
    assert over_reinforce["50"] == over_random["100"] == "8/8, p 0.004"
    assert over_reinforce["100"].startswith("3/8, p 0.")  # one of the five others is equal
    assert lead(outcomes, "replicated", "random")[0]["50"] == "0/8"  # equal on all: nothing to test


def test_the_command_prints_a_row_for_each_controller(tmp_path):
    arguments = ["bench", "controllers", "--out", str(tmp_path / "out.jsonl"), "--controllers", "random,local",
                 "--landscapes", "1", "--seeds", "1", "--budget", "8", "--processes", "1", "--csv"]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith("controller,8,lower quartile")
    assert {line.split(",")[0] for line in done.stdout.splitlines()[1:3]} == {"random", "local"}
    (row,) = json.loads(CliRunner().invoke(main, [*arguments[:-1], "--lead-of", "local", "--json"]).stdout)
    assert row["over"] == "random"
    assert row["8"] in ("0/1, p 1", "1/1, p 0.5")
    refused = CliRunner().invoke(main, [*arguments, "--reach"])
    assert refused.exit_code == 2
    assert "--reach needs reinforce among --controllers" in refused.stderr
    refused = CliRunner().invoke(main, [*arguments, "--epoch-budgets", "3,0"])
    assert refused.exit_code == 2
    assert "--epoch-budgets is '3,0'; it lists whole numbers" in refused.stderr
    refused = CliRunner().invoke(main, [*arguments, "--lead-of", "evolution"])
    assert refused.exit_code == 2
    assert "--lead-of evolution is not one of the compared controllers: random, local" in refused.stderr


def test_the_test_is_at_a_third_of_the_budget_whenever_the_target_is_reached():
    outcomes = []
    for landscape in range(6):
        outcomes.append(made_up("reinforce", landscape, {"50": 1.0, "100": 2.0, "200": 2.0}))
        outcomes.append(made_up("evolution", landscape, {"50": 1.0, "100": 3.0, "200": 3.0}))
    other = summary(outcomes, "chosen")[0]
    assert (other["controller"], other["reached at"]) == ("evolution", "100")
    assert (other["tested at"], other["p"]) == ("50", 1.0)


def test_a_search_of_rows_proposes_only_networks_of_the_table():
    wanted = cells(
        ["evolution", "predictor-guided"], num_landscapes=2, first_landscape=0, num_seeds=2, workers=3, budget=20,
        table=str(TABLE), rows=True,
    )  # fmt: skip
    assert [cell.seed for cell in wanted[::2]] == [0, 1, 1000, 1001]
    table = TableRows(TABLE, SearchSpace.spinenet49())
    outcome = run_cell(wanted[0])
    assert untimed(run_cell(wanted[0])) == untimed(outcome)
    assert outcome["num_trials"] == 20
    assert outcome["duplicates"] == 0
    known = {genotype.text: table.value(genotype) for genotype in measured_curves(TABLE).genotypes().values()}
    assert set(outcome["chosen"].values()) | set(outcome["replicated"].values()) <= set(known.values())


def test_the_most_similar_row_replaces_each_proposal_and_is_learnt_from():
    table, space = TableRows(TABLE, SearchSpace.spinenet49()), SearchSpace.spinenet49()
    rows = list(measured_curves(TABLE).genotypes().values())
    controller = RestrictedToRows(
        RegularizedEvolution(space, EvolutionOptions(population_size=8, tournament_size=2), seed=3), table
    )
    taken = []
    for _ in rows:
        proposal = controller.ask()
        assert proposal.genotype in rows
        assert proposal.genotype not in taken
        assert proposal.network_key == network_key(proposal.genotype), "not that of the proposal that it replaces"
        taken.append(proposal.genotype)
        result = table.train(proposal.genotype, 0, seed=5, noise=0.0)
        assert result.objective in measured_curves(TABLE).aps()[network_key(proposal.genotype)]
        assert controller.tell(proposal.number, result)
    with pytest.raises(SpaceExhausted):
        controller.ask()
    replicates = {table.train(rows[0], number, seed=5, noise=0.0).objective for number in range(3)}
    assert replicates == set(measured_curves(TABLE).aps()[network_key(rows[0])])


def test_paused_trainings_of_rows_follow_the_recorded_curves():
    table = TableRows(TABLE, SearchSpace.spinenet49())
    key, genotype = next(iter(table.genotypes.items()))
    recorded = [tuple(training.ap_by_epoch.values()) for training in measured_curves(TABLE).trainings
                if training.network_key == key]  # fmt: skip
    for replicate in range(3):
        paused, whole = (table.train(genotype, replicate, seed=5, noise=0.0, until=until) for until in (3, None))
        assert (paused.stopped_after, whole.stopped_after) == (3, None)
        assert paused.by_epoch == whole.by_epoch[:3]
        assert tuple(ap for _, ap in whole.by_epoch[:4]) in {curve[:4] for curve in recorded}


def test_a_search_of_rows_may_pause_trainings_until_all_rows_are_proposed():
    (cell,) = cells(["freeze-thaw"], num_landscapes=1, first_landscape=0, num_seeds=1, workers=3, budget=50,
                    table=str(TABLE), rows=True, budgets=[50])  # fmt: skip
    outcome = run_cell(replace(cell, options={"num_random": 6, "num_candidates": 5, "rungs": (1,)}))
    assert outcome["num_trials"] >= 96
    assert (outcome["duplicates"], outcome["num_epochs"] <= 250) == (0, True)
    rows = TableRows(TABLE, SearchSpace.spinenet49())
    assert outcome["chosen"]["50"] in {rows.value(genotype) for genotype in rows.genotypes.values()}


def test_families_are_printed_separately_and_plotted(tmp_path):
    picture = tmp_path / "plot.svg"
    arguments = ["bench", "controllers", "--out", str(tmp_path / "out.jsonl"), "--controllers", "random,local", "--csv",
                 "--landscapes", "2", "--seeds", "1", "--budget", "8", "--processes", "1", "--by-family",
                 "--plot", str(picture)]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    families = [line.split(",")[0] for line in done.stdout.splitlines()]
    assert families == ["family", "edges", "edges", "nk", "nk"]
    assert ">local</text>" in picture.read_text()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code != 0
    assert "plot.svg" in again.stderr


def test_kept_outcomes_under_a_former_name_are_not_run_again(tmp_path):
    (cell,) = cells(["screened"], num_landscapes=1, first_landscape=0, num_seeds=1, workers=3, budget=10)
    identity = cell.identity()
    options = dict(identity["options"])
    kept = {**identity, "controller": "screened", "options": {**options, "optimism": options.pop("ucb_coefficient")}}
    del kept["options"]["ucb_coefficient"]
    path = tmp_path / "outcomes.jsonl"
    path.write_text(json.dumps({**kept, "chosen": {"10": 1.25}}) + "\n")
    notes = []
    (outcome,) = run_cells([cell], path, processes=1, note=notes.append)
    assert notes == [f"1 of 1 searches are in {path}"]
    assert (outcome["controller"], outcome["chosen"]) == ("predictor-guided", {"10": 1.25})


def test_only_controllers_that_propose_other_networks_have_new_outcomes():
    protocols = {
        name: replace(CELL, controller=name, options={}).identity()["protocol"]
        for name in ("ppo", "reinforce", "local")
    }
    assert protocols == {"ppo": 1, "reinforce": "1.2", "local": 1}


def test_outcomes_are_told_apart_by_options_in_full_and_by_what_the_table_holds(tmp_path):
    assert CELL.identity()["options"]["max_edits"] == 1
    guided = [replace(CELL, controller="predictor-guided", options={}, budget=budget) for budget in (40, 1000)]
    assert [cell.identity()["options"]["num_random"] for cell in guided] == [10, 60]  # as in a search
    assert (
        replace(CELL, options={"tournament_size": 4, "population_size": 16, "max_edits": 1}).identity()
        == CELL.identity()
    )
    copy = tmp_path / "copy.csv.gz"
    copy.write_bytes(TABLE.read_bytes())
    of_copy, of_table = (replace(CELL, family="table", table=str(path)).identity() for path in (copy, TABLE))
    assert of_copy == of_table
    assert str(TABLE.parent) not in json.dumps(of_table)
    with pytest.raises(UserError, match="is not a table of trainings"):
        replace(CELL, table=str(tmp_path / "nothing.csv.gz")).identity()


def test_no_two_landscapes_share_a_seed_and_more_seeds_begin_with_the_same():
    few, many = (
        cells(["random"], num_landscapes=4, first_landscape=0, num_seeds=seeds, workers=1, budget=10)
        for seeds in (2, 3)
    )
    assert len({cell.seed for cell in few}) == 8
    assert set(map(str, few)) <= set(map(str, many))
    with pytest.raises(UserError, match="1000 at most"):
        cells(["random"], num_landscapes=1, first_landscape=0, num_seeds=1001, workers=1, budget=10)


def test_a_failed_search_is_reported_and_the_others_are_kept(tmp_path):
    path, notes = tmp_path / "out.jsonl", []
    good = cells(["random"], num_landscapes=2, first_landscape=0, num_seeds=1, workers=2, budget=8)
    bad = replace(good[0], family="nkk")
    with pytest.raises(
        UserError, match=r"1 of 3 searches failed, the first one: random on nkk-0, seed 0: .*'nkk' is unknown"
    ):
        run_cells([bad, *good], path, processes=1, note=notes.append)
    assert len(path.read_text().splitlines()) == 2
    assert len(run_cells(good, path, processes=1, note=notes.append)) == 2


def killed(cell):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_the_comparison_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("spinenas.search.controller_bench.comparison.run_cell", killed)
    wanted = cells(["random"], num_landscapes=2, first_landscape=0, num_seeds=1, workers=2, budget=8)
    with pytest.raises(UserError, match="process was killed, perhaps for lack of memory; repeat the command"):
        run_cells(wanted, tmp_path / "out.jsonl", processes=1, note=lambda text: None)


def test_a_complete_last_line_without_a_newline_is_kept(tmp_path):
    path, notes = tmp_path / "out.jsonl", []
    wanted = cells(["random"], num_landscapes=2, first_landscape=0, num_seeds=1, workers=2, budget=8)
    run_cells(wanted[:1], path, processes=1, note=notes.append)
    path.write_text(path.read_text().rstrip("\n"))
    run_cells(wanted, path, processes=1, note=notes.append)
    assert len(run_cells(wanted, path, processes=1, note=notes.append)) == 2
    assert len(path.read_text().splitlines()) == 2


def test_landscapes_learnt_from_a_table_are_left_out_beside_others():
    of_table = [{"family": "table"}]
    assert of_synthetic_families([{"family": "nk"}, *of_table]) == [{"family": "nk"}]
    assert of_synthetic_families(of_table) == of_table


def test_the_rugged_part_of_a_table_landscape_is_as_large_as_the_error():
    space = SearchSpace.spinenet49()
    rng = generator(0, "test")
    genotypes = [sample_without_dead_blocks(space, rng) for _ in range(150)]
    one, other = (table_score(TABLE, number, space) for number in (1, 2))
    apart = np.std([one(genotype) - other(genotype) for genotype in genotypes])
    assert apart > measured_fit(TABLE, space).error * 2**0.5 * 0.85, "two rugged parts and two resamples differ"
