"""LoRA and projector of a multimodal model on answers: `algorithm`, its settings, data, readings and rehearsal."""
