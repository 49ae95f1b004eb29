"""Sugar: one multimodal model that generates and discriminates (Chow et al., NeurIPS 2024, arXiv 2411.00304)."""
