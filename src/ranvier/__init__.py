"""Ranvier: an optimizing compiler for spiking neural networks on JAX."""
