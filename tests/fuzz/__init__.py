"""Fuzzing of everything Ranvier reads: damaged and hostile files are errors of Ranvier's own, or are read.

``tests/fuzz/test_fuzz.py`` runs a few files of every format; ``make fuzz`` runs many.
"""
