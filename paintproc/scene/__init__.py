"""What is in the picture: regions, how far they are, and what lies behind them."""
