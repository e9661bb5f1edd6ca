"""Eligibility traces: whole, factorized, filtered."""
