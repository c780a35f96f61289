"""What a design is: encoders, genotype, rules and operator signatures."""
