"""Networks and their parameters: backbones, autoencoders, feature networks."""
