"""Scripts as people write them, and what they printed under the real TFF."""
