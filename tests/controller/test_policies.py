"""Policies against brute force: sequences of genotypes, their probabilities, and gradients."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from spinenas.controller import PpoOptions
from spinenas.controller.policy.choice_sequence import ChoiceSequence
from spinenas.controller.policy.factorised import FactorisedPolicy
from spinenas.controller.policy.lstm import RecurrentPolicy
from spinenas.controller.policy.policy import Policy, PolicyKind, Squash
from spinenas.controller.policy.ppo import MAX_RATIO, Ppo, clipped_slopes, importance, normalised
from spinenas.results.record import Evaluation
from spinenas.space.genotype import SPINENET_STEM, BlockKind, Genotype
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import SearchSpace

TINY = SearchSpace.tiny()
SPINENET49 = SearchSpace.spinenet49()
KNOTTED = SearchSpace("knotted", SPINENET_STEM, (3, 3, 4), (3, 5), (-1, 0, 1), (BlockKind.BOTTLENECK,), 2)
"""A space with several decision vectors per genotype, from equal base blocks and from steps that undo a swap."""

policies = pytest.mark.parametrize("kind", ["factorised", "recurrent"])
squashes = pytest.mark.parametrize("squash", [Squash(), Squash(3.0), Squash(5.0, 2.5)], ids=["plain", "warm", "ENAS"])


def trained(kind: str, space: SearchSpace, squash: Squash | None = None, scale: float = 0.5) -> Policy:
    """A policy with random parameters."""
    rng = np.random.default_rng(7)
    policy = untrained(kind, space, squash or Squash(), rng)
    for values in parameters(policy).values():
        values += rng.normal(scale=scale, size=values.shape)
    return policy


def untrained(kind: str, space: SearchSpace, squash: Squash, rng: np.random.Generator, rate: float = 0.01) -> Policy:
    if kind == "factorised":
        return FactorisedPolicy(ChoiceSequence(space), squash, learning_rate=rate)
    return RecurrentPolicy(ChoiceSequence(space), squash, rng, learning_rate=rate)


def parameters(policy: Policy) -> dict[str, np.ndarray]:
    """Views of the parameters, which can be changed in place."""
    if isinstance(policy, FactorisedPolicy):
        return {"logits": policy.logits}
    return {name: values.detach().numpy() for name, values in policy.named_parameters()}


def likelihood(policy: Policy, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and entropies of whole sequences."""
    priors = np.stack([policy.sequence.log_prior(row) for row in options.tolist()], axis=1)
    found = policy.likelihood(options, priors)
    if isinstance(policy, FactorisedPolicy):
        return found.log_probs, found.entropies.sum(axis=0)
    return found.log_probs.detach().numpy(), found.entropies.detach().numpy()


def log_probs(policy: Policy, options: np.ndarray) -> np.ndarray:
    return likelihood(policy, options)[0]


def every_genotype(space: SearchSpace) -> list[Genotype]:
    return list(space.enumerate())


@pytest.mark.parametrize(
    "space", [TINY, KNOTTED, SPINENET49, SearchSpace.r0_sp53(), SearchSpace.spinenet49(window=None)]
)
def test_a_genotype_is_recovered_from_its_sequence(space: SearchSpace) -> None:
    sequence = ChoiceSequence(space)
    rng = np.random.default_rng(0)
    for _ in range(50):
        genotype = space.sample(rng)
        options = sequence.options(genotype)
        assert sequence.genotype(options) == genotype
        prior = sequence.log_prior(options)
        assert np.isfinite(prior[np.arange(sequence.num_choices), options]).all()


def test_spinenet_49_has_44_choices_and_takes_published_levels() -> None:
    sequence = ChoiceSequence(SPINENET49)
    assert (sequence.num_choices, sequence.num_levels) == (44, 15)
    assert ChoiceSequence(SearchSpace.spinenet49(window=None)).genotype(
        ChoiceSequence(SearchSpace.spinenet49(window=None)).options(SPINENET_49)
    ) == (SPINENET_49)


@policies
def test_probabilities_of_all_genotypes_sum_to_one(kind: str) -> None:
    policy = trained(kind, KNOTTED, Squash(5.0, 2.5))
    options = np.array([policy.sequence.options(genotype) for genotype in every_genotype(KNOTTED)])
    assert len({tuple(row) for row in options.tolist()}) == KNOTTED.size() == len(options)
    total = sum(np.exp(log_probs(policy, part)).sum() for part in np.array_split(options, 1 + len(options) // 2000))
    assert total == pytest.approx(1.0, abs=1e-9)


def test_an_untrained_factorised_policy_is_the_published_uniform_draw() -> None:
    num_vectors = Counter(
        KNOTTED.decode(vector)
        for vector in itertools.product(*(range(decision.num_options) for decision in KNOTTED.decisions))
    )
    assert max(num_vectors.values()) > 4
    policy = FactorisedPolicy(ChoiceSequence(KNOTTED), Squash(), learning_rate=0.1)
    genotypes = every_genotype(KNOTTED)[::7]
    probabilities = np.exp(log_probs(policy, np.array([policy.sequence.options(genotype) for genotype in genotypes])))
    expected = [num_vectors[genotype] / KNOTTED.num_vectors() for genotype in genotypes]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-9)


@policies
@squashes
def test_samples_are_as_likely_as_the_policy_says(kind: str, squash: Squash) -> None:
    space = SearchSpace("minimal", SPINENET_STEM, (3, 3), (3, 4), (0, 1), (BlockKind.BOTTLENECK,), 2)
    policy = trained(kind, space, squash)
    options, drawn = policy.sample(np.random.default_rng(0), 4000)
    np.testing.assert_allclose(log_probs(policy, options), drawn, rtol=1e-9)
    counts = Counter(map(tuple, options.tolist()))
    for row, log_prob in {tuple(row): value for row, value in zip(options.tolist(), drawn, strict=True)}.items():
        expected = 4000 * np.exp(log_prob)
        assert abs(counts[row] - expected) < 5 * np.sqrt(expected) + 1


@policies
def test_one_sample_and_many_agree(kind: str) -> None:
    policy = trained(kind, SPINENET49)
    options, drawn = policy.sample(np.random.default_rng(3), 6)
    assert all(SPINENET49.encode(policy.sequence.genotype(row)) for row in options.tolist()), "all are of the space"
    for row, log_prob in zip(options, drawn, strict=True):
        assert log_probs(policy, row[None])[0] == pytest.approx(log_prob, rel=1e-9)


@squashes
def test_the_factorised_gradient_is_that_of_finite_differences(squash: Squash) -> None:
    policy = trained("factorised", TINY, squash, scale=0.3)
    assert isinstance(policy, FactorisedPolicy)
    rng = np.random.default_rng(1)
    options, _ = policy.sample(rng, 5)
    priors = np.stack([policy.sequence.log_prior(row) for row in options.tolist()], axis=1)
    weights, entropy_weight, step = rng.normal(size=5), 0.7, 1e-5

    def value() -> float:
        log_probs, entropies = likelihood(policy, options)
        return float(weights @ log_probs + entropy_weight * entropies.sum())

    gradient = policy.gradient(policy.likelihood(options, priors), options, weights, entropy_weight)
    for place in np.ndindex(*gradient.shape):
        kept = policy.logits[place]
        policy.logits[place] = kept + step
        above = value()
        policy.logits[place] = kept - step
        below = value()
        policy.logits[place] = kept
        assert gradient[place] == pytest.approx((above - below) / (2 * step), abs=1e-6), place


@policies
@pytest.mark.parametrize("entropy_weight", [0.0, 5.0])
def test_steps_raise_the_weighted_objective(kind: str, entropy_weight: float) -> None:
    policy = trained(kind, TINY, scale=0.3)
    options, _ = policy.sample(np.random.default_rng(1), 6)
    priors = np.stack([policy.sequence.log_prior(row) for row in options.tolist()], axis=1)
    weights = np.array([1.0, -1.0, 0.5, 0.0, -0.2, 0.3])

    def value() -> float:
        log_probs, entropies = likelihood(policy, options)
        return float(weights @ log_probs + entropy_weight * entropies.sum())

    values = [value()]
    for _ in range(3):
        policy.ascend(options, priors, lambda _: weights, entropy_weight)
        values.append(value())
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_the_lstm_draws_from_no_global_generator_and_leaves_the_number_of_threads() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    policy = untrained("recurrent", TINY, Squash(), np.random.default_rng(0))
    options, _ = policy.sample(np.random.default_rng(1), 3)
    priors = np.stack([policy.sequence.log_prior(row) for row in options.tolist()], axis=1)
    policy.ascend(options, priors, lambda log_probs: np.ones_like(log_probs), 0.1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_entropy_is_that_of_brute_force() -> None:
    space = SearchSpace("minimal", SPINENET_STEM, (3, 4), (3,), (0,), (BlockKind.BOTTLENECK, BlockKind.RESIDUAL), 2)
    policy = trained("factorised", space)
    options = np.array([policy.sequence.options(genotype) for genotype in every_genotype(space)])
    log_probs, entropies = likelihood(policy, options)
    probabilities = np.exp(log_probs)
    assert probabilities.sum() == pytest.approx(1.0)
    assert (probabilities * entropies).sum() == pytest.approx(-(probabilities * log_probs).sum())


def test_the_factorised_policys_adam_is_torchs() -> None:
    rng = np.random.default_rng(0)
    policy = FactorisedPolicy(ChoiceSequence(TINY), Squash(), learning_rate=0.01)
    theirs = torch.tensor(policy.logits, requires_grad=True)
    reference = torch.optim.Adam([theirs], lr=0.01, maximize=True)
    for _ in range(20):
        gradient = rng.normal(size=policy.logits.shape)
        theirs.grad = torch.tensor(gradient)
        policy._adam_step(gradient)
        reference.step()
    np.testing.assert_allclose(policy.logits, theirs.detach().numpy(), rtol=1e-10)


# PPO's arithmetic


def test_advantages_have_mean_0_and_variance_1_and_equal_results_teach_nothing() -> None:
    advantages = normalised(np.array([0.1, 0.2, 0.6]))
    assert (advantages.mean(), advantages.std()) == (pytest.approx(0.0), pytest.approx(1.0))
    assert not normalised(np.full(4, 0.3)).any()


def test_a_result_counts_less_the_less_likely_it_has_become_within_bounds() -> None:
    now, then = np.log([0.3, 0.1, 0.1, 0.1]), np.array([np.log(0.4), np.log(0.9), np.log(0.02), np.nan])
    np.testing.assert_allclose(importance(now, then), [0.75, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("advantage", [1.5, -1.5])
@pytest.mark.parametrize("ratio", [0.5, 0.85, 1.0, 1.15, 1.9, 19.0, 21.0])
def test_slopes_are_those_of_the_clipped_objective(advantage: float, ratio: float) -> None:
    def value(log_ratio: float) -> float:
        r = np.exp(log_ratio)
        clipped = min(r * advantage, float(np.clip(r, 0.8, 1.2)) * advantage)
        return clipped if advantage > 0 else max(clipped, MAX_RATIO * advantage)

    at, step = np.log(ratio), 1e-6
    (slope,) = clipped_slopes(np.array([ratio]), np.array([advantage]), 0.2)
    assert slope == pytest.approx((value(at + step) - value(at - step)) / (2 * step), abs=1e-6)


@pytest.mark.parametrize(("policy", "learning_rate"), [("factorised", 30.0), ("recurrent", 1.0)])
def test_ppo_stays_finite_with_results_that_it_did_not_propose(policy: PolicyKind, learning_rate: float) -> None:
    """Such as those of a warm start. Steps of this rate change likelihoods by more than a float can hold."""
    rng = np.random.default_rng(0)
    controller = Ppo(
        SPINENET49, PpoOptions(policy=policy, learning_rate=learning_rate, batch_size=10, steps_per_batch=20)
    )
    for _ in range(60):
        controller.observe(SPINENET49.sample(rng), Evaluation(float(rng.random())))
    proposal = controller.ask()
    assert proposal is not None
    assert np.isfinite(proposal.info["log_prob"])
