"""Where parameters meet the data of a step, and the bilinear map each of these uses is."""
