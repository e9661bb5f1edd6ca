"""Sensitivities of the whole state, carried forward in time: RTRL and its relatives."""
