"""UniDiff, CLIP and Stable Diffusion tuned together: `algorithm` first; what it is put together from lies beside it."""
