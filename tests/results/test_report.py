"""Report of a run: its facts are right, single runs stay unconfirmed, and nothing of a journal is executed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_pages import ATTRIBUTES, HOSTILE, TAGS, Page, facts_of, searched
from shared_fixtures import REPOSITORY
from trials import trial

from spinenas.results.leaderboard import winner_words
from spinenas.results.pictures.charts import Dots
from spinenas.results.record import Evaluation, Failure, FailureKind, Status
from spinenas.results.report import contrast
from spinenas.results.report import facts as report_facts
from spinenas.results.report.comparison import compare_page
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.front_figures import front_figures
from spinenas.results.report.lineage import changes, lineage
from spinenas.results.report.page import figures, report_page
from spinenas.results.report.progress_figures import progress_figures
from spinenas.results.storage.journal_lines import decode, encode
from spinenas.results.storage.lease import Lease
from spinenas.search.cli.main import main
from spinenas.search.outputs.report_files import watch_report, write_figures, write_report
from spinenas.search.outputs.run_facts import read_control, read_facts
from spinenas.search.run.run import Run
from spinenas.search.studies.ladder import damaged
from spinenas.space.errors import UserError
from spinenas.space.limits import CostTarget
from spinenas.space.published import PUBLISHED, R0_SP53, SPINENET_49


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "run"
    searched(out, fail={4: "diverged", 9: "out_of_memory"})
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed_journal(run: Path, change: Any) -> None:
    """Rewrite each event of a journal; bytes are written as they are."""
    path = run / "journal.jsonl"
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        event = decode(line, checked=True)
        assert event is not None
        del event["crc32"]
        fence = event.pop("fence")
        made = change(event)
        lines.append(made if isinstance(made, bytes) else encode(made, fence))
    path.write_bytes(b"".join(lines))


def test_the_report_names_the_winner_as_the_leaderboard_does(run: Path) -> None:
    facts = write_report(run, run / "report.html")
    page = Page((run / "report.html").read_text())
    for sentence in winner_words(Run.open(run).records()):
        assert sentence[1:] in page.text
    assert f"{len(facts.told)} of 30 trials are finished" in page.text
    assert "2 failed" in page.text
    assert "The search is over" in page.text


def test_the_page_is_one_file_that_loads_and_executes_nothing(run: Path) -> None:
    write_report(run, run / "report.html")
    source = (run / "report.html").read_text()
    page = Page(source)
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert all(value.startswith("data:image/svg+xml;base64,") for name, value in page.attributes if name == "src")
    assert "default-src 'none'" in source
    assert page.tags["svg"] >= 8
    assert page.tags["img"] == 3
    assert "prefers-color-scheme: dark" in source


def test_every_figure_has_a_title_labels_and_a_description(run: Path) -> None:
    for figure in figures(read_facts(run)).values():
        assert figure.title
        assert len(figure.description) > 20
        assert 'class="label middle"' in figure.elements


def test_the_best_single_run_is_never_presented_as_a_result() -> None:
    records = [trial(0, "lucky", 0.9876), trial(1, "b", 0.5), trial(2, "b", 0.52, replicate=1), trial(3, "c", 0.4)]
    page = Page(report_page(facts_of(*records)))
    assert "mean AP 0.5100 over 2 runs" in page.text
    assert [row for row in page.rows if "0.9876" in row] == [
        row for row in page.rows if "unconfirmed (single run)" in row
    ][:1]
    assert page.text.count("0.9876") == 1
    assert "best single run so far (unconfirmed)" in page.text


def test_a_winner_of_a_single_run_is_called_unconfirmed() -> None:
    page = Page(report_page(facts_of(trial(0, "a", 0.4), trial(1, "b", 0.3))))
    assert "Winner, unconfirmed: trial 0" in page.text
    (row,) = [row for row in page.rows if "0.4000" in row and "unconfirmed" in row]
    assert "winner, unconfirmed (single run)" in row
    assert "front of single runs (unconfirmed)" in page.text
    assert "confirmed " not in page.text.replace("unconfirmed ", "")


def test_hostile_content_of_a_run_is_escaped(run: Path, tmp_path: Path) -> None:
    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "asked":
            event["proposal"]["origin"] = HOSTILE
        elif event["event"] == "started":
            event |= {"worker": HOSTILE, "device": HOSTILE, "dtype": HOSTILE}
        elif event["event"] == "told" and "failure" in event:
            event["failure"] |= {"message": HOSTILE, "traceback": HOSTILE}
        elif event["event"] == "run_started":
            event["run"]["versions"] = {HOSTILE: HOSTILE}
        return event

    changed_journal(run, change)
    with open(run / "journal.jsonl", "ab") as file:
        refused = {"event": "refused", "at": "2026-01-01", "number": 0, "attempt": 0, "reason": HOSTILE}
        file.write(encode(refused, 10**6))
    info = json.loads((run / "run.json").read_text())
    info |= {"platform": HOSTILE, "versions": {HOSTILE: HOSTILE}, "data": {HOSTILE: {HOSTILE: HOSTILE}}}
    (run / "run.json").write_text(json.dumps(info))
    config = json.loads((run / "config.json").read_text()) | {HOSTILE: HOSTILE}
    (run / "config.json").write_text(json.dumps(config))
    (run / "validation").mkdir()
    validation = {"architectures": [{"architecture": HOSTILE}, 5], "comparisons": [{"sentence": HOSTILE}, "x"]}
    (run / "validation" / "validation.json").write_text(json.dumps(validation))
    hostile = run.rename(tmp_path / "<script>alert(1)<!--")
    write_report(hostile, tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text()
    page = Page(source)
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "<script" not in source
    assert "<img src=x" not in source
    assert HOSTILE.replace("\x1b", "\ufffd") in page.text
    for name, value in page.attributes:
        if name == "src":
            assert b"<script" not in base64.b64decode(value.partition(",")[2])
    for path in write_figures(hostile, tmp_path / "figures", format="svg"):
        assert "<script" not in path.read_text()


def test_a_damaged_line_affects_no_other_line(run: Path) -> None:
    before = read_facts(run)
    assert before.damage == ()

    def change(event: dict[str, Any]) -> dict[str, Any] | bytes:
        if event["event"] == "told" and event["number"] == 6:
            return b'{"event":"told","number":6,\n'
        if event["event"] == "asked" and event["proposal"]["number"] == 11:
            return b"\xff\x00<script>\n"
        return event

    changed_journal(run, change)
    facts = write_report(run, run / "report.html")
    assert [record.number for record in facts.records] == [n for n in range(len(before.records)) if n != 11]
    for record, old in zip(facts.records, [r for r in before.records if r.number != 11], strict=True):
        assert record == old or record.number == 6
    assert set(before.told) - set(facts.told) == {6, 11}
    assert "The journal is damaged" in Page((run / "report.html").read_text()).text
    with pytest.raises(UserError, match="--salvage"):
        Run.open(run).state()


def test_an_incomplete_last_line_is_not_damage_and_a_lost_first_line_is_an_error(run: Path) -> None:
    path = run / "journal.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"event":"asked","proposal":{"num')
    assert read_facts(run).damage == ()
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(UserError, match="first line is damaged"):
        read_facts(run)


def test_empty_and_small_runs_have_a_report(tmp_path: Path, run: Path) -> None:
    assert "No training is complete yet" in Page(report_page(facts_of())).text
    failed = trial(0, "a", status=Status.FAILED, failure=Failure(FailureKind.BUG, "m"))
    assert "bug" in report_page(facts_of(failed))
    assert "trial 0" in report_page(facts_of(trial(0, "a", 0.3)))
    asked = trial(0, "a", status=Status.RUNNING)
    assert "1 running" in report_page(RunFacts("r", (asked,), (), is_over=False))
    write_report(REPOSITORY / "tests" / "assets" / "runs" / "0.1.0", tmp_path / "old.html")
    Page((tmp_path / "old.html").read_text())
    (run / "config.json").write_text("{}")
    write_report(run, run / "report.html")


def test_equal_and_extreme_results_are_drawn() -> None:
    for objectives in ([0.25] * 20, [1e308, -1e308] * 10):
        page = Page(report_page(facts_of(*[trial(n, f"{n}", value) for n, value in enumerate(objectives)])))
        assert not {"nan", "inf", "-inf"} & set(re.split(r"[\s,]+", " ".join(value for _, value in page.attributes)))


def test_the_page_of_a_running_search_reloads_itself_by_the_only_script_it_allows() -> None:
    facts = RunFacts("r", (trial(0, "a", 0.3),), (0,), is_over=False)
    source = report_page(facts, refresh_seconds=7)
    (script,) = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
    assert "location.reload()" in script
    assert "7000" in script
    assert '<noscript><meta http-equiv="refresh" content="7"></noscript>' in source
    assert "<script" not in report_page(facts)


def test_a_watched_page_follows_the_journal_and_is_final_when_the_search_is_over(run: Path) -> None:
    journal, page = run / "journal.jsonl", run / "report.html"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    shutil.rmtree(run / "lease")
    lease = Lease.acquire(run / "lease")
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        assert seconds == 3.0
        seen.append(page.read_text())
        if len(seen) == 1:
            journal.write_bytes(whole)
        elif len(seen) == 3:
            lease.release()
        assert len(seen) < 5, "the watch must end"

    watch_report(run, page, every_seconds=3.0, sleep=sleep)
    first, second, third = seen
    assert "location.reload" in first
    assert "location.reload" in second
    assert "The search is running" in first
    assert second == third, "the page is written only after changes"
    assert len(Page(second).text) > len(Page(first).text)
    last = page.read_text()
    assert "location.reload" not in last
    assert "The search is over" in last


def test_costs_are_those_of_the_target_detector(run: Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    settings["constraints"]["target"] = "49@640"
    (run / "config.json").write_text(json.dumps(settings))
    facts = write_report(run, run / "report.html")
    page = Page((run / "report.html").read_text())
    assert "multiply-adds of the detector at 49@640, G" in page.text
    assert "Parameters and multiply-adds are counted in the detector at 49@640." in page.text
    published = {name: (params, madds) for name, params, madds in facts.published}
    assert published["spinenet-49"] == (28_543_383, PUBLISHED["spinenet-49"].cost().madds)
    row = next(row for row in facts.rows if row["n"] > 0)
    genotype = facts.by_number[row["number"]].genotype
    assert genotype is not None
    assert row["madds"] == CostTarget.published("49@640").cost(genotype).madds


def test_figures_are_written_to_files_and_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    written = write_figures(run, folder, format="svg")
    names = {path.stem for path in written}
    assert {"progress-trials", "progress-hours", "front-madds", "front-params", "distribution", "failures"} <= names
    assert {"leaders", "levels", "spans", "kinds", "detail-lost", "winner-and-spinenet-49"} <= names
    written[0].write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_figures(run, folder, format="svg")
    assert written[0].read_text() == "mine"
    write_figures(run, folder, format="svg", force=True)
    assert written[0].read_text() != "mine"


def test_a_control_run_is_drawn_too_and_must_have_the_same_task(run: Path) -> None:
    facts = read_facts(run)
    own, other = facts_of(trial(0, "a", 0.3)), facts_of(trial(0, "a", 0.2))
    assert "control, best single run" in progress_figures(own, other)["progress-trials"].elements
    assert "control, best single run" not in progress_figures(own, None)["progress-trials"].elements
    assert read_control(run, facts).records == facts.records
    different = facts_of(trial(0, "a", 0.3, task_key="another"))
    with pytest.raises(UserError, match="of another task"):
        read_control(run, different)


def test_the_command_writes_the_page_and_refuses_invalid_options(run: Path, tmp_path: Path) -> None:
    def outcome(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["report", *map(str, words)])
        return result.exit_code, result.output

    assert outcome(run)[0] == outcome(run)[0] == 0
    assert (run / "report.html").exists()
    out = tmp_path / "page.html"
    assert outcome(run, "--out", out, "--figures", tmp_path / "f", "--figure-format", "svg")[0] == 0
    assert out.exists()
    assert len(list((tmp_path / "f").iterdir())) > 8
    for words, message in (
        ((run, "--out", out), "exists already"),
        ((run, "--out", tmp_path / "page.pdf"), "end it in .html"),
        ((run, "--every", 5), "give both"),
        ((run, "--watch", "--figures", tmp_path), "give one of them"),
        ((tmp_path,), "is no run"),
        ((run, "--out", tmp_path / "nowhere" / "page.html"), "does not exist; create it first"),
    ):
        status, said = outcome(*words)
        assert status in (1, 2), words
        assert message in said
    assert outcome(run, "--watch")[0] == 0, "for a finished run it writes the page and ends"


def test_the_front_holds_only_networks_that_no_other_beats() -> None:
    rows = [
        {"number": index, "n": 1, "objective": objective, "madds": madds}
        for index, (objective, madds) in enumerate([(0.3, 5), (0.2, 3), (0.25, 3), (0.1, 9), (0.31, 5), (0.31, 6)])
    ]
    assert [row["number"] for row in report_facts.front(rows, "madds")] == [2, 4]
    rows[1]["n"] = 2
    assert [row["number"] for row in report_facts.front(rows, "madds")] == [1]


def test_published_models_are_drawn_only_near_the_costs_of_the_run() -> None:
    records = [trial(number, f"{number}", 0.3, train_seconds=1.0) for number in range(3)]  # 10, 11, 12 parameters
    facts = facts_of(*records, published=(("near", 11, 20), ("far", 10**9, 10**12)))
    found = front_figures(facts)
    assert list(found) == ["front-madds", "front-params"]
    for figure in found.values():
        assert ">near</text>" in figure.elements
        assert ">far</text>" not in figure.elements
        assert "Published models far outside this range: far (" in figure.description
        assert "belongs to another task" in figure.description


def test_counts_of_an_architecture_agree_with_its_published_rows() -> None:
    # Figure 4 d of the paper: 15 blocks after the stem, two inputs each.
    assert sum(contrast.levels(SPINENET_49).values()) == 15
    assert contrast.levels(SPINENET_49) == Counter({2: 1, 3: 2, 4: 4, 5: 4, 6: 2, 7: 2})
    assert sum(contrast.spans(SPINENET_49).values()) == 30
    by_hand = Counter()
    level = [block.level for block in (*SPINENET_49.stem, *SPINENET_49.blocks)]
    for block in SPINENET_49.blocks:
        by_hand.update(block.level - level[parent] for parent in block.parents)
    assert contrast.spans(SPINENET_49) == by_hand
    assert contrast.kinds(R0_SP53) == Counter({"bottleneck": 15})
    assert contrast.detail_lost(SPINENET_49) == Counter({3: 0, 4: 0, 5: 0, 6: 0, 7: 0})
    sequential = damaged(R0_SP53, "sequential")
    assert contrast.detail_lost(sequential) == Counter({3: 2, 4: 1, 5: 0, 6: 1, 7: 0})


def test_the_best_and_the_worst_quarter_are_compared_by_means() -> None:
    records = [trial(number, f"{number}", 0.5 - number / 100) for number in range(16)]
    facts = facts_of(*records)
    (found,) = contrast.contrasts(facts, [contrast.levels])
    assert all(each.best == each.worst and each.best_half == 0 for each in found)
    few = facts_of(*records[:8])
    assert contrast.contrasts(few, [contrast.levels]) == []


def test_progress_counts_failures_and_keeps_the_order_of_results() -> None:
    failed = trial(1, "b", status=Status.FAILED, failure=Failure(FailureKind.BUG, ""))
    records = (trial(0, "a", 0.2), failed, trial(2, "c", 0.4), trial(3, "d", 0.1))
    found = report_facts.progress(RunFacts("r", records, (2, 1, 3, 0), hours={2: 1.0, 3: 2.0, 0: 3.0}))
    assert (found.counts, found.hours) == ([1, 3, 4], [1.0, 2.0, 3.0])
    assert (found.objectives, found.best) == ([0.4, 0.1, 0.2], [0.4, 0.4, 0.4])


def test_a_lineage_ends_even_if_the_journal_has_a_cycle() -> None:
    records = [
        trial(0, "a", 0.1, parent=2),
        trial(1, "b", 0.2, parent=0),
        trial(2, "c", 0.3, parent=1),
        trial(3, "d", 0.1),
    ]
    facts = facts_of(*records)
    assert [record.number for record in lineage(facts, 2)] == [2, 1, 0]
    assert [record.number for record in lineage(facts, 3)] == [3]


def test_changes_are_described_block_by_block() -> None:
    assert changes(SPINENET_49, SPINENET_49) == "the same blocks"
    other = SPINENET_49.from_text(SPINENET_49.text.replace("4r0,1", "5b0,1", 1))
    assert changes(other, SPINENET_49) == "block 3: level 4 to 5, residual to bottleneck"
    assert changes(R0_SP53, SPINENET_49).endswith("blocks differ")


def test_failures_and_repeats_are_counted() -> None:
    bug = Failure(FailureKind.BUG, "")
    records = [trial(0, "a", status=Status.FAILED, failure=bug), trial(1, "a", 0.2), trial(2, "b", 0.2)]
    facts = facts_of(*records, losses={"worker_lost": 3, "bug": 1})
    assert report_facts.failures(facts) == {"worker_lost": (0, 3), "bug": (1, 1)}
    assert report_facts.num_duplicates(facts) == 1


def test_totals_equal_the_sums_of_the_trials() -> None:
    results = [
        Evaluation(0.1, train_seconds=10.0, eval_seconds=1.0, peak_memory_bytes=5),
        Evaluation(0.2, train_seconds=20.0, peak_memory_bytes=7),
        Evaluation(0.3),
    ]
    records = [trial(i, f"{i}", evaluation=result, device="cpu") for i, result in enumerate(results)]
    found = report_facts.totals(facts_of(*records))
    assert (found.train_seconds, found.eval_seconds, found.largest_memory_bytes) == (30.0, 1.0, 7)
    assert found.devices == {"cpu": 3}


def test_dots_of_single_runs_are_pale() -> None:
    facts = facts_of(*[trial(number, f"{number}", number / 10) for number in range(5)])
    (figure,) = progress_figures(facts, None).values()
    assert f'class="dots {Dots("", [], "quiet").colour}-stroke faint"' in figure.elements


def test_several_edits_are_grouped_by_their_number() -> None:
    origins = ["random:alive", "mutation:swap", "mutation:swap+kind", "mutation:kind+level", "mutation:a+b+c", ""]
    records = [replace(trial(number, f"{number}", 0.1), origin=origin) for number, origin in enumerate(origins)]
    found = report_facts.by_origin(facts_of(*records), 9)
    assert {origin: len(aps) for origin, aps in found.items()} == {
        "2 edits": 2, "3 edits": 1, "swap": 1, "unknown": 1, "random:alive": 1
    }  # fmt: skip


def test_charts_of_ap_show_nothing_below_zero() -> None:
    records = [trial(0, "a", 0.01), trial(1, "a", 0.09), trial(2, "b", 0.5), trial(3, "b", 0.55)]
    facts = facts_of(*records)
    assert min(row["lower"] for row in facts.rows) < 0, "by Student's t"
    of_ap = ("leaders", "progress-trials", "front-madds", "distribution")
    for name, figure in ((name, figures(facts)[name]) for name in of_ap):
        labels = re.findall(r'<text class="(?:end|middle)"[^>]*>([^<]*)</text>', figure.svg())
        assert not [label for label in labels if label.startswith("-")], name


@pytest.mark.parametrize(("device", "words"), [("cpu", "worker-hours"), ("cuda", "accelerator-hours")])
def test_hours_are_those_of_accelerators_only_if_there_were_any(device: str, words: str) -> None:
    records = [replace(trial(number, f"n{number}", 0.1 * number), device=device) for number in range(1, 4)]
    facts = facts_of(*records, hours={1: 0.1, 2: 0.2, 3: 0.3}, total_hours=0.3)
    for page in (report_page(facts), compare_page([facts, facts])):
        other = {"worker-hours", "accelerator-hours"} - {words}
        assert words in page
        assert not other & set(re.findall(r"\w+-hours", page))
