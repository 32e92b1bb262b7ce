"""Looking at a model and its runs: traces, attention maps, previews, summaries."""
