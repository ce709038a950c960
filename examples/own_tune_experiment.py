"""A Ray Tune experiment of your own, led by a controller; here it minimizes the multiply-adds of the backbone.

python examples/own_tune_experiment.py

After an interruption the same command resumes it; `rm -r runs/own-tune-experiment` starts over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from spinenas.controller import make_controller
from spinenas.search.ray_searcher import ControllerSearcher
from spinenas.space import SCALINGS, Genotype, SearchSpace, backbone_cost

NAME, STORAGE = "own-tune-experiment", Path("runs").absolute()


class CountMultiplyAdds(tune.Trainable):
    """Put your training here. The actor stays alive and trains one genotype after the other."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._genotype = Genotype.from_text(new_config["genotype"])
        return True

    def step(self) -> dict[str, Any]:
        return {"gigamadds": backbone_cost(self._genotype, SCALINGS["49"], 640).madds / 1e9, "done": True}


def main() -> None:
    if tune.Tuner.can_restore(STORAGE / NAME):
        tuner = tune.Tuner.restore(str(STORAGE / NAME), trainable=CountMultiplyAdds)
    else:
        controller = make_controller("evolution", SearchSpace.spinenet49(), population_size=16, tournament_size=4)
        tuner = tune.Tuner(
            CountMultiplyAdds,
            tune_config=tune.TuneConfig(
                search_alg=ControllerSearcher(controller, metric="gigamadds", mode="min"),
                num_samples=60,
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(STORAGE),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
    best = tuner.fit().get_best_result(metric="gigamadds", mode="min")
    print(f"{best.metrics['gigamadds']:.2f} G multiply-adds: {best.config['genotype']}")


if __name__ == "__main__":
    main()
