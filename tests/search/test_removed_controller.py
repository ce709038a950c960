"""A run whose controller was removed can be read and not resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from shared_fixtures import REPOSITORY

from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.run.or_resume import search_or_resume
from spinenas.space.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(REPOSITORY / "tests" / "assets" / "runs" / "0.1.0", folder)
    config = json.loads((folder / "config.json").read_text())
    config["controller"] = {"name": "hybrid", "hybrid": {"policy_share": 0.5}}
    config["constraints"] = {"target": "49@640", "max_madds": 1e12}
    config["objective"] = {"kind": "soft"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_run_of_a_removed_controller_is_reported_and_its_costs_and_budget_are_known(run: Path) -> None:
    outputs = []
    for command in (["report", str(run)], ["show", str(run), "best"], ["leaderboard", str(run)]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    assert "49@640" in outputs[-1]  # the detector of the run's costs
    page = (run / "report.html").read_text()
    assert "hybrid" in page


def test_a_run_of_a_removed_controller_is_not_resumed(run: Path) -> None:
    journal = (run / "journal.jsonl").read_bytes()
    result = CliRunner().invoke(main, ["resume", str(run), "--trials", "50"])
    assert result.exit_code == 1
    assert (
        "this version no longer has the controller 'hybrid'; start a new run with 'predictor-guided'" in result.stderr
    )
    with pytest.raises(UserError, match="no longer has the controller 'hybrid'"):
        search_or_resume(SearchConfig(controller=ControllerConfig("evolution")), out=run)
    assert (run / "journal.jsonl").read_bytes() == journal
