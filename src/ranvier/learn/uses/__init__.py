"""Where parameters meet the data of a step, and each of these uses as a bilinear map."""
