"""Where labels and files lie in a data folder, by published layout."""
