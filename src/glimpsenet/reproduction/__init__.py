"""The report's Table 1 on data at hand: the rows, their training, and a report beside the paper's numbers."""
