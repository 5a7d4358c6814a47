"""Side-by-side timings of prunejax and of a plain PyTorch version of the published algorithms: `make bench`."""
