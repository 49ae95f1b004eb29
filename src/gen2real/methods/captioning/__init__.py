"""ClipCap on generated pictures: `algorithm`, its settings and its data."""
