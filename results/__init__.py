"""What came out of trials: records, how they are kept, ranked, drawn and handed on."""

from spinenas.results.record import Evaluation, Failure

__all__ = ["Evaluation", "Failure"]
