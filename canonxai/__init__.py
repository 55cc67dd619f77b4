"""canonxai measures what network canonization does to explanations of neural networks."""
