"""Where results go: the store, its summary, pictures, and loggers."""
