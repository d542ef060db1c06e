"""The benchmark (``make bench``): the cost of a scan, compared with a baseline pipeline and a lower bound."""
