"""SNNGraph: populations, projections, inputs and outputs of a spiking network, with dt, resets and delays explicit."""
