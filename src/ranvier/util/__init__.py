"""Files, locks, limits, tables and other tools that know nothing of networks."""
