"""How studies of a fixed list of designs are shown: their section of the page, plots, wording."""
