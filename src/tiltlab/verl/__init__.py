"""One job over several nodes, by verl: a recipe's arm written as what verl reads, and the objective put into verl."""
