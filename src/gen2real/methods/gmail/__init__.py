"""GMAIL: `algorithm` reads like the paper's; what it is put together from lies beside it."""
