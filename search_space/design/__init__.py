"""What a design is: encoders, genotype, rules, and what fusion points read."""
