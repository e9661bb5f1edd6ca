"""Whether two graphs do the same: by running both."""
