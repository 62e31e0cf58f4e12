"""tailprune."""
