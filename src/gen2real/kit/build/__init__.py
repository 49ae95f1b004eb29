"""Makes the kit's checkpoints from nothing: `python -m gen2real.kit.build`."""
