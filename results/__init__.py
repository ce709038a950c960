"""What came out of trials: records, the journal, ranking, and handing architectures on."""
