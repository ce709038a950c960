"""The recurrent policy: an LSTM that reads the choices so far and gives the logits of the next one.

Sources: NASNet (Zoph et al., CVPR 2018) for one layer of 100 units and the initial range; ENAS (Pham et al., ICML 2018)
for embeddings, temperature and tanh constant. It uses torch in float64 and on one thread. Random numbers come from the
caller.

Shapes: B sequences, K choices, F features and O options of the largest choice, H units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spinenas.controller.policy.choice_sequence import ChoiceSequence, Floats, Integers
from spinenas.controller.policy.policy import Squash, draw

NUM_UNITS = 100
"""Units of the LSTM (NASNet, appendix A.1: "a one-layer LSTM with 100 hidden units at each layer")."""

INITIAL_RANGE = 0.1
"""Parameters start uniform between minus this and this (NASNet: "between -0.1 and 0.1")."""


class Likelihood(NamedTuple):
    """Log-probabilities and entropies of given sequences, (B,) each, with their gradients."""

    log_probs: Tensor
    entropies: Tensor


class RecurrentPolicy(nn.Module):
    """An LSTM, embeddings (K, F, H) of the options taken, and a head (K, H, F) for each choice."""

    def __init__(
        self, sequence: ChoiceSequence, squash: Squash, rng: np.random.Generator, *, learning_rate: float
    ) -> None:
        super().__init__()
        self.sequence = sequence
        self._squash = squash
        self._features = torch.from_numpy(sequence.features)

        def initial(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(rng.uniform(-INITIAL_RANGE, INITIAL_RANGE, shape)))

        num_choices, num_features = sequence.num_choices, sequence.max_features
        self.start = initial(NUM_UNITS)
        self.embeddings = initial(num_choices, num_features, NUM_UNITS)
        self.heads = initial(num_choices, NUM_UNITS, num_features)
        self.head_biases = initial(num_choices, 1, num_features)
        # On the device "meta", torch's own initialisation draws nothing from the global generator.
        self.lstm = nn.LSTM(NUM_UNITS, NUM_UNITS, device="meta", dtype=torch.float64)
        for name, values in list(self.lstm.named_parameters()):
            setattr(self.lstm, name, initial(*values.shape))
        self._optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate, maximize=True, fused=True)

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        sequence = self.sequence
        uniforms = 1.0 - rng.random((num_samples, sequence.num_choices))
        options = np.zeros((num_samples, sequence.num_choices), dtype=np.int64)
        log_probs = np.zeros(num_samples)
        with one_torch_thread(), torch.no_grad():
            inputs = self.start.expand(num_samples, NUM_UNITS)
            output = cell = torch.zeros(num_samples, NUM_UNITS, dtype=torch.float64)
            for number, choice in enumerate(sequence.choices):
                output, cell = torch.lstm_cell(inputs, (output, cell), *self.lstm.all_weights[0])
                logits = output @ self.heads[number] + self.head_biases[number]
                scores: Floats = self._scores(logits, self._features[number]).numpy()[:, : choice.num_options]
                if number < sequence.num_levels:
                    priors = [sequence.level_log_prior(number, row) for row in options[:, :number].tolist()]
                    scores = scores + np.stack(priors)[:, : choice.num_options]
                options[:, number], gained = draw(scores, uniforms[:, number])
                log_probs += gained
                taken = self._features[number, :, torch.from_numpy(options[:, number])]  # (F, B)
                inputs = taken.T @ self.embeddings[number]
        return options, log_probs

    def ascend(
        self,
        options: Integers,
        log_priors: Floats,
        weights: Callable[[Floats], Floats],
        entropy_weight: float,
    ) -> None:
        with one_torch_thread():
            likelihood = self.likelihood(options, log_priors)
            weighted = torch.from_numpy(weights(likelihood.log_probs.detach().numpy())) * likelihood.log_probs
            self._optimizer.zero_grad()
            (weighted.sum() + entropy_weight * likelihood.entropies.sum()).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def likelihood(self, options: Integers, log_priors: Floats) -> Likelihood:
        """Return the probabilities of sequences, options (B, K) with log priors (K, B, O)."""
        taken = torch.from_numpy(options.T.copy())
        choices = torch.arange(self.sequence.num_choices)[:, None]
        embedded = self._features.transpose(1, 2)[choices, taken] @ self.embeddings  # (K, B, H)
        inputs = torch.cat((self.start.expand(1, len(options), NUM_UNITS), embedded[:-1]))
        logits = self.lstm(inputs)[0] @ self.heads + self.head_biases
        priors = torch.from_numpy(log_priors)
        log_softmax = torch.log_softmax(self._scores(logits, self._features) + priors, dim=-1)
        possible = log_softmax.masked_fill(torch.isinf(priors), 0.0)  # 0 * -inf is NaN
        entropies = -(log_softmax.exp() * possible).sum(dim=(0, 2))
        return Likelihood(log_softmax.gather(2, taken[..., None]).sum(dim=(0, 2)), entropies)

    def _scores(self, logits: Tensor, features: Tensor) -> Tensor:
        """Squash the logits of options, (..., F) and (..., F, O) to (..., O)."""
        scaled = logits @ features / self._squash.temperature
        bound = self._squash.tanh_constant
        return scaled if bound is None else bound * torch.tanh(scaled)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread, so that results do not depend on the number of cores; restores the setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
