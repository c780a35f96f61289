"""What a fusion design is: genotype, space, trunks with taps, operators, network."""
