"""What is measured, as ratios and on which machine; run by `make bench`."""
