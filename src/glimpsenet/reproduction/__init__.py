"""The report's Table 1 on available data: its rows, their training, and a comparison with the paper's numbers."""
