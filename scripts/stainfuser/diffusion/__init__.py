"""Objectives, samplers, training step and the StainFuser pipeline."""
