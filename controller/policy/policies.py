"""Policies: distributions over the genotypes of a space that gradients move; nothing of where the gradients come from.

Two of them speak of the same choices (`choice_sequence`):
    factorised: a logit for each feature of each choice, whatever the other choices (TuNAS, Bender et al., CVPR 2020).
    recurrent: one LSTM layer of 100 units that sees the choices so far, each by its embedding, with a head for each
        choice (NASNet, Zoph et al., CVPR 2018; embeddings, temperature and tanh constant as in ENAS, Pham et al.,
        ICML 2018). Parameters begin uniform in +-0.1.

The score of an option is its log prior and the sum of its features' logits; so both policies begin at, or near,
`SearchSpace.sample`. Everything is numpy in float64: there is no global state, and a proposal takes milliseconds.

Shapes: B sequences, K choices, F features and O options of the largest choice, H units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from spinenas.controller.policy.choice_sequence import ChoiceSequence, Floats, Integers
from spinenas.space.errors import UserError, nearest

PolicyKind = Literal["factorised", "recurrent"]

NUM_UNITS = 100
"""Of the LSTM (NASNet, appendix A.1: "a one-layer LSTM with 100 hidden units at each layer")."""

INITIAL_RANGE = 0.1
"""Parameters of the LSTM begin uniform within this of 0 (NASNet: "between -0.1 and 0.1")."""


@dataclass(frozen=True, slots=True)
class Squash:
    """What becomes of a logit before it is added to the prior: c * tanh(logit / T), or logit / T without c.

    Attributes:
        temperature: T; above 1 flattens the policy. ENAS: 5.
        tanh_constant: c, which bounds how sure the policy gets; None for no bound. ENAS: 2.5.
    """

    temperature: float = 1.0
    tanh_constant: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not (self.tanh_constant is None or self.tanh_constant > 0):
            raise UserError(
                f"the policy's temperature is {self.temperature} and its tanh_constant {self.tanh_constant}; both are "
                "above 0"
            )

    def __call__(self, logits: Floats) -> Floats:
        cooled = logits / self.temperature
        return cooled if self.tanh_constant is None else self.tanh_constant * np.tanh(cooled)

    def slope(self, squashed: Floats) -> Floats | float:
        """Return the derivative at the logits that were squashed to this."""
        if self.tanh_constant is None:
            return 1.0 / self.temperature
        bent: Floats = (self.tanh_constant - squashed**2 / self.tanh_constant) / self.temperature
        return bent


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a policy says of given sequences, and what its gradient needs.

    Attributes:
        log_probs: (B,), of whole sequences.
        entropies: (B,), in nats, summed over the choices of each sequence, given those before.
        options: (B, K).
        log_softmax: (K, B, O), 0 where an option is impossible.
        softmax: (K, B, O).
        choice_entropies: (K, B).
        squashed: (K, 1 or B, O).
        memory: of the recurrent policy, its activations.
    """

    log_probs: Floats
    entropies: Floats
    options: Integers
    log_softmax: Floats
    softmax: Floats
    choice_entropies: Floats
    squashed: Floats
    memory: tuple[Floats, ...] = ()

    def score_gradient(self, by_log_prob: Floats, by_entropy: float) -> Floats:
        """Return (K, B, O), by the scores, of sum(by_log_prob * log_probs) + by_entropy * sum(entropies)."""
        gradient = -self.softmax * by_log_prob[:, None]
        rows, columns = np.indices(self.choice_entropies.shape)
        gradient[rows, columns, self.options.T] += by_log_prob
        gradient -= by_entropy * self.softmax * (self.log_softmax + self.choice_entropies[:, :, None])
        return gradient


class Policy(Protocol):
    """A distribution over the sequences of a space."""

    sequence: ChoiceSequence
    parameters: dict[str, Floats]
    """Changed in place by an optimiser, which calls `changed` afterwards."""

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        """Draw sequences; returns options (B, K) and their log-probabilities (B,)."""

    def likelihood(self, options: Integers, log_priors: Floats) -> Likelihood:
        """Look at given sequences, options (B, K) with log priors (K, B, O)."""

    def gradient(self, likelihood: Likelihood, by_log_prob: Floats, by_entropy: float) -> dict[str, Floats]:
        """Return the gradient of sum(by_log_prob * log_probs) + by_entropy * sum(entropies) by the parameters."""

    def changed(self) -> None:
        """Forget what was computed from the parameters before."""


def make_policy(kind: PolicyKind, sequence: ChoiceSequence, squash: Squash, rng: np.random.Generator) -> Policy:
    """Make an untrained policy. Raises UserError."""
    if kind == "factorised":
        return FactorisedPolicy(sequence, squash)
    if kind == "recurrent":
        return RecurrentPolicy(sequence, squash, rng)
    raise UserError(f"policy {kind!r} is unknown{nearest(kind, ('factorised', 'recurrent'))}")


class FactorisedPolicy:
    """Independent choices but for the prior: a logit for each feature of each choice, at first 0."""

    def __init__(self, sequence: ChoiceSequence, squash: Squash) -> None:
        self.sequence = sequence
        self.parameters: dict[str, Floats] = {"logits": np.zeros((sequence.num_choices, sequence.max_features))}
        self._squash = squash
        self._squashed: Floats | None = None

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        sequence = self.sequence
        uniforms = 1.0 - rng.random((num_samples, sequence.num_choices))
        options = np.zeros((num_samples, sequence.num_choices), dtype=np.int64)
        scores = self._scores()
        log_probs = np.zeros(num_samples)
        for number in range(sequence.num_levels):
            priors = np.stack([sequence.level_log_prior(number, row) for row in options[:, :number].tolist()])
            options[:, number], gained = _draw(scores[number] + priors, uniforms[:, number])
            log_probs += gained
        rest = slice(sequence.num_levels, None)
        options[:, rest], gained = _draw(scores[rest] + sequence.constant_log_prior[rest], uniforms[:, rest])
        return options, log_probs + gained.sum(axis=1)

    def likelihood(self, options: Integers, log_priors: Floats) -> Likelihood:
        squashed = self._scores()[:, None]
        return _likelihood(options, squashed, log_priors)

    def gradient(self, likelihood: Likelihood, by_log_prob: Floats, by_entropy: float) -> dict[str, Floats]:
        by_scores = likelihood.score_gradient(by_log_prob, by_entropy).sum(axis=1, keepdims=True)
        by_logits = by_scores * self._squash.slope(likelihood.squashed)
        return {"logits": (by_logits @ self.sequence.features.transpose(0, 2, 1))[:, 0]}

    def changed(self) -> None:
        self._squashed = None

    def _scores(self) -> Floats:
        """(K, O), without the prior."""
        if self._squashed is None:
            self._squashed = self._squash((self.parameters["logits"][:, None] @ self.sequence.features)[:, 0])
        return self._squashed


class RecurrentPolicy:
    """An LSTM that is fed the features of each option taken, and whose state gives the next choice's logits.

    Parameters: `start` (H,), the first input; `embeddings` (K, F, H), of what each choice took; `kernel` (2H, 4H), from
    input and state to the input, forget, output gates and the candidate; `bias` (4H,); `heads` (K, H, F) and
    `head_biases` (K, F).
    """

    def __init__(self, sequence: ChoiceSequence, squash: Squash, rng: np.random.Generator) -> None:
        self.sequence = sequence
        units, (choices, features) = NUM_UNITS, (sequence.num_choices, sequence.max_features)
        shapes: dict[str, tuple[int, ...]] = {
            "start": (units,),
            "embeddings": (choices, features, units),
            "kernel": (2 * units, 4 * units),
            "bias": (4 * units,),
            "heads": (choices, units, features),
            "head_biases": (choices, features),
        }
        self.parameters: dict[str, Floats] = {
            name: rng.uniform(-INITIAL_RANGE, INITIAL_RANGE, shape) for name, shape in shapes.items()
        }
        self._squash = squash

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        sequence, parameters = self.sequence, self.parameters
        uniforms = 1.0 - rng.random((num_samples, sequence.num_choices))
        options = np.zeros((num_samples, sequence.num_choices), dtype=np.int64)
        log_probs = np.zeros(num_samples)
        inputs = np.broadcast_to(parameters["start"], (num_samples, NUM_UNITS))
        state, cell = np.zeros((2, num_samples, NUM_UNITS))
        for number, choice in enumerate(sequence.choices):
            state, cell, _ = self._step(inputs, state, cell)
            logits = state @ parameters["heads"][number] + parameters["head_biases"][number]
            features = sequence.features[number, :, : choice.num_options]
            scores = self._squash(logits @ features)
            if number < sequence.num_levels:
                priors = [sequence.level_log_prior(number, row) for row in options[:, :number].tolist()]
                scores = scores + np.stack(priors)[:, : choice.num_options]
            options[:, number], gained = _draw(scores, uniforms[:, number])
            log_probs += gained
            inputs = features[:, options[:, number]].T @ parameters["embeddings"][number]
        return options, log_probs

    def likelihood(self, options: Integers, log_priors: Floats) -> Likelihood:
        sequence, parameters = self.sequence, self.parameters
        num_choices, num_samples = sequence.num_choices, len(options)
        taken = sequence.features.transpose(0, 2, 1)[np.arange(num_choices)[:, None], options.T]  # (K, B, F)
        inputs = np.empty((num_choices, num_samples, NUM_UNITS))
        inputs[0] = parameters["start"]
        inputs[1:] = (taken @ parameters["embeddings"])[:-1]
        states, cells = np.zeros((2, num_choices + 1, num_samples, NUM_UNITS))  # before each choice, and after the last
        gates = np.empty((num_choices, num_samples, 4 * NUM_UNITS))
        for number in range(num_choices):
            states[number + 1], cells[number + 1], gates[number] = self._step(
                inputs[number], states[number], cells[number]
            )
        logits = states[1:] @ parameters["heads"] + parameters["head_biases"][:, None]
        squashed = self._squash(logits @ sequence.features)
        return _likelihood(options, squashed, log_priors, (taken, inputs, states, cells, gates))

    def gradient(self, likelihood: Likelihood, by_log_prob: Floats, by_entropy: float) -> dict[str, Floats]:
        """Backpropagation through the steps of `likelihood`, last first."""
        taken, inputs, states, cells, gates = likelihood.memory
        parameters, kernel = self.parameters, self.parameters["kernel"]
        by_squashed = likelihood.score_gradient(by_log_prob, by_entropy)
        by_options = by_squashed * self._squash.slope(likelihood.squashed)
        by_logits = by_options @ self.sequence.features.transpose(0, 2, 1)
        by_states = by_logits @ parameters["heads"].transpose(0, 2, 1)
        by_sums = np.empty_like(gates)  # before the gates' sigmoids and tanh
        by_inputs = np.empty_like(inputs)
        by_state, by_cell = np.zeros((2, *inputs.shape[1:]))
        for number in reversed(range(len(gates))):
            admit, keep, show, candidate = _quarters(gates[number])
            bounded = np.tanh(cells[number + 1])
            by_state = by_state + by_states[number]
            by_cell = by_cell + by_state * show * (1 - bounded**2)
            by_sums[number] = np.concatenate(
                (
                    by_cell * candidate * admit * (1 - admit),
                    by_cell * cells[number] * keep * (1 - keep),
                    by_state * bounded * show * (1 - show),
                    by_cell * admit * (1 - candidate**2),
                ),
                axis=1,
            )
            by_inputs[number], by_state = np.split(by_sums[number] @ kernel.T, 2, axis=1)
            by_cell = by_cell * keep
        by_embedded = np.concatenate((by_inputs[1:], np.zeros_like(by_inputs[:1])))
        fed = np.concatenate((inputs, states[:-1]), axis=2).reshape(-1, 2 * NUM_UNITS)
        return {
            "start": by_inputs[0].sum(axis=0),
            "embeddings": taken.transpose(0, 2, 1) @ by_embedded,
            "kernel": fed.T @ by_sums.reshape(len(fed), -1),
            "bias": by_sums.sum(axis=(0, 1)),
            "heads": states[1:].transpose(0, 2, 1) @ by_logits,
            "head_biases": by_logits.sum(axis=1),
        }

    def changed(self) -> None:
        """Nothing is kept."""

    def _step(self, inputs: Floats, state: Floats, cell: Floats) -> tuple[Floats, Floats, Floats]:
        """Return state, cell (B, H) and gates (B, 4H) after one step."""
        units = NUM_UNITS
        sums = np.concatenate((inputs, state), axis=1) @ self.parameters["kernel"] + self.parameters["bias"]
        sums[:, : 3 * units] *= 0.5  # the sigmoid of x is (1 + tanh(x / 2)) / 2
        gates = np.tanh(sums)
        gates[:, : 3 * units] += 1.0
        gates[:, : 3 * units] *= 0.5
        admit, keep, show, candidate = _quarters(gates)
        cell = keep * cell + admit * candidate
        return show * np.tanh(cell), cell, gates


def _quarters(gates: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Input, forget, output gate and candidate, (B, H) each."""
    units = NUM_UNITS
    return gates[:, :units], gates[:, units : 2 * units], gates[:, 2 * units : 3 * units], gates[:, 3 * units :]


def _draw(scores: Floats, uniforms: Floats) -> tuple[Integers, Floats]:
    """Draw an option by each row of scores (..., O), with uniforms (...,) in (0, 1]; and its log-probability."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    cumulated = np.cumsum(weights, axis=-1)
    total = cumulated[..., -1]
    options = (cumulated < (uniforms * total)[..., None]).sum(axis=-1)
    rows = np.broadcast_to(weights, (*options.shape, weights.shape[-1])).reshape(options.size, -1)
    chosen = rows[np.arange(options.size), options.ravel()].reshape(options.shape)
    return options, np.log(chosen / total)


def _likelihood(options: Integers, squashed: Floats, log_priors: Floats, memory: tuple[Floats, ...] = ()) -> Likelihood:
    scores = squashed + log_priors
    scores = scores - scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores)
    total = weights.sum(axis=-1, keepdims=True)
    softmax = weights / total
    log_softmax = np.where(weights > 0, scores - np.log(total), 0.0)
    entropies = -(softmax * log_softmax).sum(axis=-1)
    chosen = np.take_along_axis(log_softmax, options.T[..., None], axis=-1)[..., 0]
    return Likelihood(
        chosen.sum(axis=0), entropies.sum(axis=0), options, log_softmax, softmax, entropies, squashed, memory
    )
