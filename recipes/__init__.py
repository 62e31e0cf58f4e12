"""Training around tailprune: data, models, fine-tuning. Read, copied and changed by users; never installed."""
