"""Torch modules and their parameters: autoencoder, backbones, attention, statistics; no files."""
