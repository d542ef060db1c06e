"""What a scan costs, measured beside a straightforward pipeline and beside the floor, in one run: ``make bench``."""
