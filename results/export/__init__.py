"""Writes architectures to files for other programs, and reads them back."""

from spinenas.results.export.architecture_files import export_genotype, read_genotype

__all__ = ["export_genotype", "read_genotype"]
