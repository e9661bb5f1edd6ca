"""One step of a program run over many steps: what is fixed once, and the schedule of the rest."""
